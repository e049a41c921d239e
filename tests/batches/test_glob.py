"""Globs: gobwas's language without separators, in linear time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.glob import Glob, GlobError, compile_glob


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", [""], ["a"]),
        ("github.com/*", ["github.com/a/b", "github.com/"], ["github.com", "xgithub.com/a"]),
        ("**", ["", "a/b\nc"], []),
        ("a*a", ["aa", "aba"], ["a"]),
        ("?", ["a", "/", "é", "\n"], ["", "ab"]),
        ("[abc]x", ["ax", "cx"], ["dx", "abcx"]),
        ("[a-c]", ["a", "b", "c"], ["d", "-"]),
        ("[!a-c]", ["d", "-"], ["a", ""]),
        ("[!ab]", ["c", "!"], ["a", "b", ""]),
        ("[^a]", ["^", "a"], ["b"]),
        ("[!!]", ["a"], ["!"]),
        ("[ab-c]", ["a", "b", "-", "c"], []),
        ("[-a]", ["-", "a"], ["b"]),
        ("[\\]]", ["]"], ["\\"]),
        ("[]-a]", ["]", "^", "a"], ["b"]),
        ("{a,b*}c", ["ac", "bc", "bxc"], ["c", "axc"]),
        ("a{,b}c", ["ac", "abc"], ["a"]),
        ("{a,{b,c}d}", ["a", "bd", "cd"], ["b", "ad"]),
        ("{a\\,b,c}", ["a,b", "c"], ["a"]),
        ("{}", [""], ["{}"]),
        ("{a,b", ["a", "b"], ["{a,b"]),
        ("a,b", ["a,b"], ["a"]),
        ("a}", ["a}"], ["a"]),
        ("a]", ["a]"], ["a"]),
        ("!a", ["!a"], ["b"]),
        ("a\\*\\\\b", ["a*\\b"], ["axb"]),
        ("a\\", ["a"], ["a\\"]),
        ("a.b+(c)$", ["a.b+(c)$"], ["axbb(c)"]),
        ("*ACME*", ["xACMEx"], ["acme"]),
    ],
)
def test_matches(pattern: str, matching: list[str], other: list[str]) -> None:
    glob = compile_glob(pattern)

    assert [name for name in matching if not glob.match(name)] == []
    assert [name for name in other if glob.match(name)] == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("[", "unexpected end of input"),
        ("a[b", "unexpected end of input"),
        ("[a-", "unexpected end of input"),
        ("[!", "unexpected end of input"),
        ("[a-]", "unexpected end of input"),
        ("[]", "could not parse range"),
        ("[!]", "could not parse range"),
        ("[a-zA-Z]", "expected close range character"),
        ("[z-a]", "hi character 'a' should be greater than lo 'z'"),
        ("\udc80", "could not read rune"),
        ("{" * 500, "more than 100 braces inside each other"),
    ],
)
def test_a_malformed_pattern_is_an_error(pattern: str, message: str) -> None:
    with pytest.raises(GlobError) as caught:
        compile_glob(pattern)

    assert str(caught.value) == message


@pytest.mark.parametrize("pattern", ["*a" * 40 + "b", "{*,?}" * 40 + "b", "{a*,*a,a}" * 20 + "b"])
def test_never_backtracks(pattern: str) -> None:
    assert not Glob(pattern).match("a" * 20_000)


literals = st.sampled_from(["a", "b", "/", ".", "é", "\n"])
patterns = st.recursive(
    st.one_of(
        literals.map(lambda text: (text, re.escape(text))),
        st.sampled_from(
            [("*", ".*"), ("**", ".*"), ("?", "."), ("[ab]", "[ab]"), ("[!a-b]", "[^a-b]"), ("\\*", r"\*")]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(
            lambda parts: ("".join(glob for glob, _ in parts), "".join(f"(?:{regex})" for _, regex in parts))
        ),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda parts: (
                "{" + ",".join(glob for glob, _ in parts) + "}",
                "(?:" + "|".join(regex for _, regex in parts) + ")",
            )
        ),
    ),
    max_leaves=6,
)


@given(patterns, st.lists(st.text("ab/.é\n*", max_size=6), max_size=5))
def test_equals_the_regular_expression_of_the_same_language(pattern: tuple[str, str], names: list[str]) -> None:
    glob, regex = pattern

    for name in names:
        assert compile_glob(glob).match(name) == bool(re.fullmatch(regex, name, re.DOTALL)), (glob, name)


@given(st.text(), st.text())
def test_any_text_is_a_pattern_or_a_glob_error(pattern: str, name: str) -> None:
    try:
        glob = compile_glob(pattern)
    except GlobError:
        return

    glob.match(name)


@given(st.text().filter(lambda text: "\ufffd" not in text))
def test_an_escaped_name_matches_itself_only(name: str) -> None:
    glob = compile_glob("".join("\\" + character for character in name))

    assert glob.match(name)
    assert not glob.match(name + "x")
