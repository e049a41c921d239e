"""Regular expressions of queries: Go's (RE2) syntax, compiled for Python's ``re`` where names and paths are matched.

Python backtracks, RE2 does not: what could run away on a short name (a loop of nothing but loops) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .errors import QueryError

LONGEST = 2000
"""Characters of a pattern."""

_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_REPEAT = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}")
_POSIX_CLASS = re.compile(r"\[:(\w+):\]")
_ACROSS_LINES = re.compile(r"(?<!\\)(?:\\\\)*\\n|\(\?[imU]*s")
_FLAGS = re.compile(r"\(\?([imsU]*)\)")


@lru_cache(maxsize=512)
def compile_regexp(pattern: str, *, case_sensitive: bool = False) -> re.Pattern[str]:
    """The pattern for ``search`` on names and paths. Raises QueryError."""
    if len(pattern) > LONGEST:
        raise QueryError(f"the regular expression {pattern[:40]!r}... is longer than {LONGEST} characters")
    try:
        return re.compile(_Translation(pattern).python(), re.NOFLAG if case_sensitive else re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise QueryError(f"invalid regular expression {pattern!r}: {error}") from error


def check_content_pattern(pattern: str, *, regexp: bool) -> None:
    """Refuse what cannot be looked for in files: git compares one line at a time. Raises QueryError."""
    if len(pattern) > LONGEST:
        raise QueryError(f"the pattern {pattern[:40]!r}... is longer than {LONGEST} characters")
    if "\n" in pattern or "\0" in pattern or (regexp and _ACROSS_LINES.search(pattern)):
        raise QueryError(
            f"the pattern {pattern!r} reaches over lines and cannot be answered from git: split it with AND"
        )


@dataclass
class _Group:
    """What is known of a group while it is read: whether its current alternative has to consume something certain."""

    loops: bool = False
    certain: bool = False
    risky: bool = False

    def end_alternative(self) -> None:
        self.risky = self.risky or (self.loops and not self.certain)
        self.loops = self.certain = False


class _Translation:
    """One pass over a pattern: Go's syntax becomes Python's, and loops of loops are found."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._position = 0
        self._out: list[str] = []
        self._groups = [_Group()]

    def python(self) -> str:
        flags = _FLAGS.match(self._pattern)
        if flags:
            self._position = flags.end()
            self._out.append(self._inline_flags(flags[1]))
        while self._position < len(self._pattern):
            self._step()
        return "".join(self._out)

    def _step(self) -> None:
        char = self._pattern[self._position]
        if char == "(":
            self._open_group()
        elif char == ")":
            self._close_group()
        elif char == "|":
            self._emit(1)
            self._groups[-1].end_alternative()
        elif char in "^$":
            self._emit(1)
        elif char == "[":
            self._out.append(self._character_class())
            self._after_atom(loops=False)
        elif char == "\\":
            self._escape()
        else:
            self._emit(1)
            self._after_atom(loops=False)

    def _emit(self, count: int) -> None:
        self._out.append(self._pattern[self._position : self._position + count])
        self._position += count

    def _open_group(self) -> None:
        if _FLAGS.match(self._pattern, self._position):
            raise QueryError(f"flags inside of {self._pattern!r} cannot be used: write them in front, or as (?i:...)")
        rest = self._pattern[self._position : self._position + 4]
        if rest.startswith("(?<") and rest[3:4] not in ("=", "!"):
            self._position += 3
            self._out.append("(?P<")
        elif rest.startswith(("(?=", "(?!", "(?<", "(?>", "(?P=", "(?#", "(?(")):
            raise QueryError(f"{rest!r} in {self._pattern!r} is not part of RE2, Sourcegraph's regular expressions")
        else:
            header = re.compile(r"\((?:\?(?:P<\w+>|[ims]*(?:-[ims]+)?:))?").match(self._pattern, self._position)
            self._emit(len(header[0]) if header else 1)
        self._groups.append(_Group())

    def _close_group(self) -> None:
        self._emit(1)
        if len(self._groups) == 1:
            return  # unbalanced: re.compile says so
        group = self._groups.pop()
        group.end_alternative()
        self._after_atom(loops=group.risky)

    def _after_atom(self, *, loops: bool) -> None:
        """Read the repetition behind an atom. ``loops``: the atom may consist of nothing but loops."""
        repeat = _REPEAT.match(self._pattern, self._position)
        group = self._groups[-1]
        if repeat is None:
            group.loops, group.certain = group.loops or loops, group.certain or not loops
            return
        text = repeat[0]
        unbounded = text in ("*", "+") or text.endswith(",}")
        if unbounded and loops:
            raise QueryError(
                f"{self._pattern!r} repeats a repetition and could take forever: write it without ()*, ()+"
            )
        self._emit(len(text))
        if self._pattern[self._position : self._position + 1] == "?":
            self._emit(1)
        elif self._pattern[self._position : self._position + 1] == "+":
            raise QueryError(
                f"{text + '+'!r} in {self._pattern!r} is not part of RE2, Sourcegraph's regular expressions"
            )
        group.loops = group.loops or unbounded or loops
        group.certain = group.certain or not (unbounded or loops or text == "?" or text.startswith("{0"))

    def _character_class(self) -> str:
        start = self._position
        self._position += 1
        parts = ["["]
        if self._pattern[self._position : self._position + 1] == "^":
            self._position += 1
            parts.append("^")
        first = True
        while self._position < len(self._pattern):
            char = self._pattern[self._position]
            posix = _POSIX_CLASS.match(self._pattern, self._position)
            if char == "]" and not first:
                self._position += 1
                return "".join([*parts, "]"])
            if posix and posix[1] in _POSIX:
                parts.append(_POSIX[posix[1]])
                self._position = posix.end()
            elif char == "\\":
                parts.append(self._pattern[self._position : self._position + 2])
                self._position += 2
            else:
                parts.append("\\" + char if char in "[]&~|" else char)
                self._position += 1
            first = False
        raise QueryError(f"invalid regular expression {self._pattern!r}: {self._pattern[start:]!r} lacks its ]")

    def _escape(self) -> None:
        following = self._pattern[self._position + 1 : self._position + 2]
        if following == "Q":
            end = self._pattern.find("\\E", self._position)
            literal = self._pattern[self._position + 2 : end if end >= 0 else None]
            self._position = end + 2 if end >= 0 else len(self._pattern)
            self._out.append(re.escape(literal))
            self._groups[-1].certain = self._groups[-1].certain or bool(literal)
        elif following in ("p", "P", "C"):
            raise QueryError(f"\\{following} in {self._pattern!r} cannot be used: name the characters in [...]")
        elif following.isdigit() and following != "0":
            raise QueryError(
                f"\\{following} in {self._pattern!r} is not part of RE2, Sourcegraph's regular expressions"
            )
        elif following in ("z", "A", "b", "B"):
            self._position += 2
            self._out.append("\\Z" if following == "z" else "\\" + following)
        else:
            self._emit(2)
            self._after_atom(loops=False)

    def _inline_flags(self, flags: str) -> str:
        known = "".join(sorted(set(flags) - {"U"}))
        return f"(?{known})" if known else ""
