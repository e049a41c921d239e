"""Text that nobody trusts (repository names, output, diffs) in markdown: shown as it is, whatever it contains."""

from __future__ import annotations

import re


def code(text: str) -> str:
    """``text`` in a line, as code that it cannot end."""
    line = " ".join(text.split())
    fence = "`" * (_longest_run(line) + 1)
    room = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{room}{line}{room}{fence}" if line else ""


def block(language: str, text: str) -> str:
    """``text`` as a code block that it cannot end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"


def cell(text: str) -> str:
    """``text`` as code in a cell of a table, where a bar would end it."""
    return code(text).replace("|", "\\|")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
