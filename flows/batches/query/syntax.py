"""Query text -> tree: Sourcegraph's grammar and its heuristics for parentheses (internal/search/query/parser.go).

    or    = and { "or" and }
    and   = leaves { "and" leaves }
    leaves = ( "(" or ")" | [-]field:value | ["not"] pattern )...

Operators are case-insensitive words. What a field means is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .errors import QueryError

PatternType = Literal["literal", "standard", "regexp", "keyword"]

ALIASES = {
    "r": "repo",
    "g": "repogroup",
    "f": "file",
    "l": "lang",
    "language": "lang",
    "revision": "rev",
    "since": "after",
    "until": "before",
    "m": "message",
    "msg": "message",
}
FIELDS = frozenset(
    (
        "repo",
        "file",
        "lang",
        "content",
        "rev",
        "count",
        "case",
        "patterntype",
        "type",
        "select",
        "archived",
        "fork",
        "visibility",
        "context",
        "timeout",
        "stable",
        "index",
        "repohasfile",
        "repohascommitafter",
        "repogroup",
        "author",
        "before",
        "after",
        "committer",
        "message",
        "rule",
        "max",
    )
)
"""Words that are a filter in front of a colon; any other word there is part of a pattern, as in http://x."""

_FIELD = re.compile(r"(-?)([A-Za-z]+):")
_PREDICATE = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+)*\(")
_OPERATOR_AHEAD = re.compile(r"(?:and|or|not) ", re.IGNORECASE)
_DEEPEST = 100


@dataclass(frozen=True)
class Pattern:
    """Text to look for; ``quoted``: it was delimited, so neighbours do not join it."""

    text: str
    kind: Literal["literal", "regexp"]
    negated: bool = False
    quoted: bool = False


@dataclass(frozen=True)
class Parameter:
    """``field:value``, or ``field:predicate(value)``; ``delimiter`` is what stood around the value, if anything."""

    field: str
    value: str
    negated: bool = False
    predicate: str = ""
    delimiter: str = ""

    def __str__(self) -> str:
        value = f"{self.predicate}({self.value})" if self.predicate else self.value
        return f"{'-' if self.negated else ''}{self.field}:{self.delimiter}{value}{self.delimiter}"


@dataclass(frozen=True)
class Operator:
    """``concat`` joins neighbouring patterns: what that means depends on the pattern type."""

    kind: Literal["and", "or", "concat"]
    operands: tuple[Node, ...]


Node = Pattern | Parameter | Operator


def parse(text: str, pattern_type: PatternType) -> Node | None:
    """The tree of a query; None when it is empty. Raises QueryError."""
    if not text.strip():
        return None
    try:
        return _Parser(text, pattern_type).parse()
    except _Unbalanced:
        return _Parser(text, pattern_type, parentheses_are_text=True).parse()


def walk(node: Node) -> Iterator[Pattern | Parameter]:
    """The leaves of a tree."""
    if isinstance(node, Operator):
        for operand in node.operands:
            yield from walk(operand)
    else:
        yield node


class _Unbalanced(Exception):
    """The parentheses cannot be groups; they may still be text."""


class _Parser:
    def __init__(self, text: str, pattern_type: PatternType, *, parentheses_are_text: bool = False) -> None:
        self._text = text
        self._type = pattern_type
        self._position = 0
        self._depth = 0
        self._grouped = False
        self._parentheses_are_text = parentheses_are_text

    def parse(self) -> Node | None:
        node = self._or()
        if self._depth or self._position < len(self._text):
            raise _Unbalanced
        return node if self._grouped or node is None else _hoist(node)

    def _or(self) -> Node | None:
        operands = [self._and()]
        while self._take_word("or"):
            operands.append(self._and())
        return self._operator("or", operands)

    def _and(self) -> Node | None:
        operands = [self._leaves()]
        while self._take_word("and"):
            operands.append(self._leaves())
        return self._operator("and", operands)

    def _operator(self, kind: Literal["and", "or"], operands: list[Node | None]) -> Node | None:
        if len(operands) == 1:
            return operands[0]
        present = [operand for operand in operands if operand is not None]
        if len(present) < len(operands):
            if not self._parentheses_are_text:
                raise _Unbalanced
            raise QueryError(f'"{kind}" needs a term on both sides in {self._text!r}')
        return _joined(kind, present)

    def _leaves(self) -> Node | None:
        nodes: list[Node] = []
        while True:
            self._skip_spaces()
            if self._position >= len(self._text) or self._at_word("and") or self._at_word("or"):
                break
            if self._text[self._position] == ")" and not self._parentheses_are_text:
                if not self._depth:
                    raise _Unbalanced
                break
            leaf = self._group() if self._opens_group() else self._leaf()
            if leaf is not None:
                nodes.append(leaf)
        return _partition(nodes)

    def _opens_group(self) -> bool:
        if self._text[self._position] != "(" or self._parentheses_are_text:
            return False
        return self._type == "keyword" or self._balanced_text() is None

    def _group(self) -> Node | None:
        self._position += 1
        self._depth += 1
        self._grouped = True
        if self._depth > _DEEPEST:
            raise QueryError(f"the query has parentheses in more than {_DEEPEST} levels")
        node = self._or()
        if self._position >= len(self._text):
            raise _Unbalanced
        self._position += 1
        self._depth -= 1
        return node

    def _leaf(self) -> Node:
        negated = self._take_not()
        parameter = self._parameter()
        if parameter is not None:
            if negated and parameter.negated:
                raise QueryError(f'unexpected NOT before "{parameter}": remove one of the two')
            return replace(parameter, negated=negated or parameter.negated)
        return replace(self._pattern(), negated=negated)

    def _take_not(self) -> bool:
        before = self._text[self._position - 1 : self._position] if self._position else " "
        if not (before.isspace() or before == "(") or not self._followed_by_space("not"):
            return False
        self._position += 3
        self._skip_spaces()
        if self._text[self._position : self._position + 1] == "(" and self._opens_group():
            raise QueryError("NOT cannot stand before a group in parentheses: put it before each term or filter")
        if self._position >= len(self._text):
            raise QueryError("NOT needs a term or a filter behind it")
        return True

    def _parameter(self) -> Parameter | None:
        match = _FIELD.match(self._text, self._position)
        if match is None or not _is_field(match[2]):
            return None
        self._position = match.end()
        parameter = self._value(ALIASES.get(match[2].lower(), match[2].lower()))
        return replace(parameter, negated=bool(match[1]))

    def _value(self, field: str) -> Parameter:
        char = self._text[self._position : self._position + 1]
        if char in ("'", '"') or (char == "/" and field == "content" and self._type in ("standard", "keyword")):
            delimited = self._delimited(char)
            if delimited is not None:
                value, self._position = delimited
                return Parameter(field, value, delimiter=char)
            if char != "/":
                raise QueryError(f"the value of {field}: begins with {char} and does not end with it")
        predicate = _PREDICATE.match(self._text, self._position) if field in ("repo", "file") else None
        if predicate is not None and _is_predicate(predicate[0]):
            return self._predicate(field, predicate[0][:-1])
        end = self._balanced_text()
        if end is None:
            end = self._end_of_plain_text()
        value, self._position = self._text[self._position : end], end
        return Parameter(field, value)

    def _predicate(self, field: str, name: str) -> Parameter:
        start = self._position + len(name) + 1
        depth, position = 1, start
        while position < len(self._text):
            char = self._text[position]
            depth += (char == "(") - (char == ")")
            if not depth:
                self._position = position + 1
                return Parameter(field, self._text[start:position], predicate=name)
            position += 2 if char == "\\" else 1
        raise QueryError(f"{field}:{name}( lacks its closing parenthesis")

    def _pattern(self) -> Pattern:
        char = self._text[self._position]
        if self._is_delimiter(char):
            delimited = self._delimited(char)
            if delimited is not None and self._ends_here(delimited[1]):
                text, self._position = delimited
                return Pattern(text, "regexp" if char == "/" else "literal", quoted=True)
        end = None if self._parentheses_are_text else self._balanced_text()
        if end is None or end == self._position:
            end = self._end_of_plain_text()
        text, self._position = self._text[self._position : end], end
        return Pattern(text, "regexp" if self._type == "regexp" else "literal")

    def _is_delimiter(self, char: str) -> bool:
        if char == "/":
            return self._type != "literal"
        return char in "'\"" and self._type in ("keyword", "regexp")

    def _ends_here(self, position: int) -> bool:
        following = self._text[position : position + 1]
        return not following or following.isspace() or (following == ")" and self._depth > 0)

    def _delimited(self, delimiter: str) -> tuple[str, int] | None:
        """The text between two delimiters and the position behind; None if the second one is missing."""
        escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", delimiter: delimiter}
        if delimiter == "/":
            escapes = {"/": "/"}
        found: list[str] = []
        position = self._position + 1
        while position < len(self._text):
            char = self._text[position]
            if char == delimiter:
                return "".join(found), position + 1
            if char == "\\" and position + 1 < len(self._text):
                following = self._text[position + 1]
                found.append(escapes.get(following, char + following))
                position += 2
            else:
                found.append(char)
                position += 1
        return None

    def _balanced_text(self) -> int | None:
        """Where a text ends whose parentheses are balanced; None when they look like groups of the query."""
        if self._looks_like_query(self._position):
            return None
        depth, position = 0, self._position
        while position < len(self._text):
            char = self._text[position]
            if char == "\\":
                position += 2
                continue
            if char.isspace() and not depth:
                break
            if char == ")" and not depth:
                break
            if (char == "(" or char.isspace()) and self._looks_like_query(position + 1):
                return None
            depth += (char == "(") - (char == ")")
            position += 1
        return None if depth else min(position, len(self._text))

    def _looks_like_query(self, position: int) -> bool:
        field = _FIELD.match(self._text, position)
        return (field is not None and _is_field(field[2])) or bool(_OPERATOR_AHEAD.match(self._text, position))

    def _end_of_plain_text(self) -> int:
        """Where a text ends that stops at white space, and at a parenthesis that closes a group."""
        position = self._position
        while position < len(self._text):
            char = self._text[position]
            if char.isspace() or (char in "()" and not self._parentheses_are_text and position > self._position):
                break
            position += 2 if char == "\\" else 1
        return min(position, len(self._text))

    def _skip_spaces(self) -> None:
        while self._position < len(self._text) and self._text[self._position].isspace():
            self._position += 1

    def _at_word(self, word: str) -> bool:
        before = self._text[self._position - 1 : self._position]
        return self._position > 0 and before.isspace() and self._followed_by_space(word)

    def _take_word(self, word: str) -> bool:
        if not self._at_word(word):
            return False
        self._position += len(word)
        return True

    def _followed_by_space(self, word: str) -> bool:
        end = self._position + len(word)
        return self._text[self._position : end].lower() == word and self._text[end : end + 1].isspace()


def _is_field(word: str) -> bool:
    return ALIASES.get(word.lower(), word.lower()) in FIELDS


def _is_predicate(text: str) -> bool:
    return re.match(r"(?:has|contains)[.(]", text) is not None


def _partition(nodes: list[Node]) -> Node | None:
    """Filters are a set, patterns a sequence: what stands between them does not part them."""
    patterns: list[Node] = [node for node in nodes if _holds_pattern(node)]
    filters = [node for node in nodes if not _holds_pattern(node)]
    if len(patterns) > 1:
        patterns = [Operator("concat", tuple(patterns))]
    return _joined("and", [*filters, *patterns]) if nodes else None


def _holds_pattern(node: Node) -> bool:
    return any(isinstance(leaf, Pattern) for leaf in walk(node))


def _joined(kind: Literal["and", "or"], nodes: list[Node]) -> Node:
    """One operator over all nodes; operands that are the same operator are taken apart."""
    flat: list[Node] = []
    for node in nodes:
        flat += node.operands if isinstance(node, Operator) and node.kind == kind else (node,)
    return flat[0] if len(flat) == 1 else Operator(kind, tuple(flat))


def _hoist(node: Node) -> Node:
    """``repo:x a or b`` means ``repo:x (a or b)``: filters before and after alternatives of patterns hold for all."""
    if not isinstance(node, Operator) or node.kind != "or":
        return node
    filters: list[Node] = []
    patterns: list[Node] = []
    last = len(node.operands) - 1
    for number, operand in enumerate(node.operands):
        parts = operand.operands if isinstance(operand, Operator) and operand.kind == "and" else (operand,)
        own_filters = [part for part in parts if isinstance(part, Parameter)]
        own_patterns: list[Node] = [part for part in parts if not isinstance(part, Parameter)]
        if not own_patterns or any(isinstance(leaf, Parameter) for part in own_patterns for leaf in walk(part)):
            return node
        if own_filters and number not in (0, last):
            return node
        filters += own_filters
        patterns.append(_joined("and", own_patterns))
    return _joined("and", [*filters, _joined("or", patterns)])
