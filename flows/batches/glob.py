"""Globs as upstream's gobwas/glob has them, without separators: `*` crosses slashes, the whole name must match.

`*` and `**` any text, `?` one character, `[abc] [a-z] [!a]`, `{a,b}` nested, `\\x` the character x itself.
Patterns come from untrusted specs: matching never backtracks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

_MAX_NESTING = 100
_MAX_REMEMBERED = 50_000
_UNREADABLE = "\ufffd"


class GlobError(ValueError):
    """The pattern is malformed. The text is gobwas's."""


@dataclass(frozen=True)
class _Single:
    """One character out of ranges, or not out of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def takes(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) != self.negated


@dataclass(frozen=True)
class _Star:
    """Any text."""


@dataclass(frozen=True)
class _Choice:
    """One of several sequences."""

    alternatives: tuple[_Sequence, ...]


_Sequence = tuple[_Single | _Star | _Choice, ...]
_ANY = _Single((), negated=True)


class Glob:
    """A compiled pattern: an automaton whose moves are remembered once they were made."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._states: list[tuple[_Single | None, list[int]]] = []
        """What a state takes (None: nothing, it stands for its followers) and the states that follow."""
        self._end = self._add(None)
        self._start = self._reachable([self._link(_Reader(pattern).sequence(), self._end)])
        self._moves: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._remembered = 0

    def match(self, name: str) -> bool:
        """Whether the whole name matches."""
        states = self._start
        for character in name:
            following = self._moves.get((states, character))
            states = self._move(states, character) if following is None else following
            if not states:
                return False
        return self._end in states

    def _move(self, states: frozenset[int], character: str) -> frozenset[int]:
        taking = (self._states[state] for state in states)
        following = self._reachable(
            follower for single, followers in taking if single and single.takes(character) for follower in followers
        )
        self._remembered += len(following) + 1
        if self._remembered > _MAX_REMEMBERED:
            self._moves.clear()
            self._remembered = 0
        self._moves[states, character] = following
        return following

    def _reachable(self, states: Iterable[int]) -> frozenset[int]:
        """The states that can be entered without taking a character."""
        found: set[int] = set()
        pending = list(states)
        while pending:
            state = pending.pop()
            if state not in found:
                found.add(state)
                single, followers = self._states[state]
                if single is None:
                    pending.extend(followers)
        return frozenset(found)

    def _link(self, sequence: _Sequence, following: int) -> int:
        """Adds the states of a sequence in front of a state; gives the first."""
        for item in reversed(sequence):
            match item:
                case _Single():
                    following = self._add(item, following)
                case _Choice():
                    following = self._add(None, *(self._link(each, following) for each in item.alternatives))
                case _Star():
                    loop = self._add(_ANY)
                    following = self._add(None, loop, following)
                    self._states[loop][1].append(following)
        return following

    def _add(self, single: _Single | None, *followers: int) -> int:
        self._states.append((single, list(followers)))
        return len(self._states) - 1

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"


@lru_cache(maxsize=128)
def compile_glob(pattern: str) -> Glob:
    """The compiled pattern. Raises GlobError."""
    return Glob(pattern)


class _Reader:
    """Reads a pattern from left to right; an unclosed brace ends with the pattern, as upstream has it."""

    def __init__(self, pattern: str) -> None:
        if any(character == _UNREADABLE or "\ud800" <= character <= "\udfff" for character in pattern):
            raise GlobError("could not read rune")
        self._pattern = pattern
        self._position = 0

    def sequence(self, nesting: int = 0) -> _Sequence:
        """Everything up to the end, or inside of braces up to a comma or the closing brace."""
        items: list[_Single | _Star | _Choice] = []
        while (character := self._peek()) and not (nesting and character in ",}"):
            self._position += 1
            if character == "*":
                items.append(_Star())
            elif character == "?":
                items.append(_ANY)
            elif character == "[":
                items.append(self._range())
            elif character == "{":
                items.append(self._choice(nesting + 1))
            elif character != "\\":
                items.append(_Single(((character, character),)))
            elif escaped := self._take():
                items.append(_Single(((escaped, escaped),)))
        return tuple(items)

    def _choice(self, nesting: int) -> _Choice:
        if nesting > _MAX_NESTING:
            raise GlobError(f"more than {_MAX_NESTING} braces inside each other")
        alternatives = [self.sequence(nesting)]
        while self._take() == ",":
            alternatives.append(self.sequence(nesting))
        return _Choice(tuple(alternatives))

    def _range(self) -> _Single:
        negated = self._peek() == "!"
        self._position += negated
        low = self._needed()
        if self._peek() != "-":
            self._position -= 1
            return _Single(tuple((character, character) for character in self._set()), negated)
        self._position += 1
        high = self._needed()
        if self._needed() != "]":
            raise GlobError("expected close range character")
        if high < low:
            raise GlobError(f"hi character '{high}' should be greater than lo '{low}'")
        return _Single(((low, high),), negated)

    def _set(self) -> str:
        characters = ""
        while (character := self._needed()) != "]":
            characters += self._needed() if character == "\\" else character
        if not characters:
            raise GlobError("could not parse range")
        return characters

    def _needed(self) -> str:
        character = self._take()
        if not character:
            raise GlobError("unexpected end of input")
        return character

    def _take(self) -> str:
        character = self._peek()
        self._position += 1
        return character

    def _peek(self) -> str:
        return self._pattern[self._position : self._position + 1]
