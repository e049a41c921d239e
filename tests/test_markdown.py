"""Text that nobody trusts, in markdown."""

from __future__ import annotations

from flows.markdown import block, cell, code


def test_no_text_ends_the_code_that_it_is_shown_as() -> None:
    assert code("a ` b `` c\n[x](javascript:1)") == "```a ` b `` c [x](javascript:1)```"
    assert code("`x`") == "`` `x` ``"
    assert code(" \n") == ""
    assert block("diff", "+````\n+x") == "`````diff\n+````\n+x\n`````\n"


def test_no_text_ends_the_cell_that_it_stands_in() -> None:
    assert cell("a | b") == r"`a \| b`"
