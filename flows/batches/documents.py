"""YAML text in, plain JSON-like data out, with the line of every value. Behaves as upstream's yaml.v3 does.

Only the first document of a stream counts. Refuses what JSON cannot hold (.inf, .nan), duplicate keys, aliases that
multiply, deep nesting and very long texts; nothing but SpecError is ever raised.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from .errors import Fault, SpecError
from .scalars import ScalarError, resolve
from .tabs import TabScanner

Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Path = tuple[str, ...]
"""Where a value stands: keys, and positions in lists as digits."""

LONGEST_TEXT = 10 * 2**20
DEEPEST_LEVELS = 100
MOST_ALIASED_VALUES = 100_000

_LONG_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Document:
    """The data of a YAML document, and where in the text it stands."""

    data: Json
    lines: Mapping[Path, int]
    """The line of every value, counted from 1; of an entry: the line of its key."""
    blocks: Mapping[Path, int]
    """The first line of the content of literal blocks (``run: |``)."""

    def line_of(self, path: Path, *, within: int | None = None) -> int:
        """The line of ``path`` or of the nearest value around it; or a line ``within`` a literal block, from 1."""
        if within is not None and path in self.blocks:
            return self.blocks[path] + within - 1
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def parse(text: str) -> Document:
    """The first document of ``text``; an empty text is null. Raises SpecError with the line of every fault."""
    if len(text) > LONGEST_TEXT:
        raise _refusal(f"the text is longer than {LONGEST_TEXT:,} characters; move long files beside it and mount them")
    root, nodes = _compose(text)
    reader = _Reader(nodes)
    data = None if root is None else reader.value(root, ())
    if reader.faults:
        raise SpecError(tuple(dict.fromkeys(reader.faults)))
    return Document(data, reader.lines, reader.blocks)


# --- text to nodes


@dataclass(frozen=True, eq=False)
class _Scalar:
    line: int
    text: str
    tag: str
    literal: bool

    @property
    def merges(self) -> bool:
        return self.text == "<<" and self.tag in ("", "!!merge")


@dataclass(frozen=True, eq=False)
class _Sequence:
    line: int
    items: list[_Node] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Mapping:
    line: int
    entries: list[tuple[_Node, _Node]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Alias:
    line: int
    name: str
    target: _Node


_Node = _Scalar | _Sequence | _Mapping | _Alias


def _compose(text: str) -> tuple[_Node | None, int]:
    """The root node of the first document, and how many nodes there are."""
    # Not the C parser: it refuses a colon in the plain texts of flow collections, as in `{container: alpine:3}`.
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = TabScanner
    try:
        # The generator holds the parser: closing the one disposes of the other.
        with closing(yaml.parse(text)) as events:
            for event in events:
                if isinstance(event, DocumentStartEvent):
                    return _document(events)
    except MarkedYAMLError as error:
        raise _syntax_refusal(error, text) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refusal(f"yaml: line {line}: control characters are not allowed", line) from error
    except UnicodeEncodeError as error:
        raise _refusal("yaml: the text is not valid Unicode", text.count("\n", 0, error.start) + 1) from error
    return None, 0


def _document(events: Iterator[Any]) -> tuple[_Node, int]:
    """The document that has just begun. Its end is read, and what follows: that must be the stream's end or a `---`."""
    composer = _Composer(events)
    root = composer.node(next(events), 0)
    next(events)
    next(events)
    return root, composer.nodes


class _Composer:
    """Builds nodes from events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, _Node] = {}
        self.nodes = 0

    def node(self, event: NodeEvent, level: int) -> _Node:
        line = event.start_mark.line + 1
        self.nodes += 1
        if level > DEEPEST_LEVELS:
            raise _too_deep(line)
        if isinstance(event, AliasEvent):
            return self._alias(event, line)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, line, level)
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, line, level)
        return self._scalar(event, line)

    def _alias(self, event: AliasEvent, line: int) -> _Alias:
        name = str(event.anchor)
        if name not in self._anchors:
            raise _refusal(f"yaml: unknown anchor '{name}' referenced", line)
        return _Alias(line, name, self._anchors[name])

    def _sequence(self, event: NodeEvent, line: int, level: int) -> _Sequence:
        node = _Sequence(line)
        self._remember(event, node)
        while not isinstance(inner := next(self._events), SequenceEndEvent):
            node.items.append(self.node(inner, level + 1))
        return node

    def _mapping(self, event: NodeEvent, line: int, level: int) -> _Mapping:
        node = _Mapping(line)
        self._remember(event, node)
        while not isinstance(inner := next(self._events), MappingEndEvent):
            key = self.node(inner, level + 1)
            node.entries.append((key, self.node(next(self._events), level + 1)))
        return node

    def _scalar(self, event: NodeEvent, line: int) -> _Scalar:
        assert isinstance(event, ScalarEvent)
        tag = "" if event.tag in (None, "!") else str(event.tag)
        if tag.startswith(_LONG_TAG):
            tag = "!!" + tag.removeprefix(_LONG_TAG)
        text = _joined_surrogates(event.value, line)
        node = _Scalar(line, text, tag or ("!!str" if event.style else ""), event.style == "|")
        self._remember(event, node)
        return node

    def _remember(self, event: NodeEvent, node: _Node) -> None:
        if event.anchor is not None:
            self._anchors[str(event.anchor)] = node


def _joined_surrogates(text: str, line: int) -> str:
    """JSON may write one character as two escapes, which YAML reads as two."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise _refusal(f"yaml: line {line}: found invalid Unicode character escape code", line) from error


# --- nodes to data


class _Reader:
    """Turns nodes into data, remembers the lines, and collects the faults that leave the rest readable."""

    def __init__(self, nodes: int) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self.blocks: dict[Path, int] = {}
        self.faults: list[Fault] = []
        self._visits_left = nodes + MOST_ALIASED_VALUES
        self._open_targets: list[_Node] = []

    def value(self, node: _Node, path: Path) -> Json:
        self.lines.setdefault(path, node.line)
        self._count_visits(node, 1)
        if len(path) > DEEPEST_LEVELS:
            raise _too_deep(node.line)
        if isinstance(node, _Alias):
            return self._aliased(node, path)
        if isinstance(node, _Sequence):
            return [self.value(item, (*path, str(index))) for index, item in enumerate(node.items)]
        if isinstance(node, _Mapping):
            return self._mapping(node, path)
        if node.literal:
            self.blocks[path] = node.line + 1
        return self._scalar(node, path)

    def _count_visits(self, node: _Node, visits: int) -> None:
        self._visits_left -= visits
        if self._visits_left < 0:
            raise _refusal("yaml: document contains excessive aliasing", node.line)

    def _aliased(self, node: _Alias, path: Path) -> Json:
        if node.target in self._open_targets:
            raise _refusal(f"yaml: anchor '{node.name}' value contains itself", node.line)
        self._open_targets.append(node.target)
        try:
            return self.value(node.target, path)
        finally:
            self._open_targets.pop()

    def _scalar(self, node: _Scalar, path: Path) -> Json:
        try:
            value = resolve(node.text, node.tag)
        except ScalarError as error:
            raise _refusal(f"yaml: {error}", node.line) from error
        if isinstance(value, float) and not math.isfinite(value):
            self.faults.append(
                Fault(".".join(path), f"unsupported value: {node.text} (JSON has no such number)", node.line)
            )
        return value

    def _mapping(self, node: _Mapping, path: Path) -> dict[str, Json]:
        entries: dict[str, tuple[_Node, _Node]] = {}
        self._gather(node, entries, 0)
        result: dict[str, Json] = {}
        for name, (key, value) in entries.items():
            self.lines[(*path, name)] = key.line
            result[name] = self.value(value, (*path, name))
        return result

    def _gather(self, node: _Mapping, entries: dict[str, tuple[_Node, _Node]], level: int) -> None:
        """Adds the entries of a mapping: its own win over merged ones, earlier merged mappings over later ones."""
        if level > DEEPEST_LEVELS:
            raise _too_deep(node.line)
        self._find_duplicates(node)
        own = {self._key(key): (key, value) for key, value in node.entries if not _merges(key)}
        for name, entry in own.items():
            entries.setdefault(name, entry)
        for key, value in node.entries:
            if _merges(key):
                for mapping in _merged(value, key.line):
                    self._count_visits(mapping, 1 + len(mapping.entries))
                    self._gather(mapping, entries, level + 1)

    def _find_duplicates(self, node: _Mapping) -> None:
        first: dict[str, _Scalar] = {}
        for key, _ in node.entries:
            if isinstance(key, _Scalar) and (earlier := first.setdefault(key.text, key)) is not key:
                quoted = json.dumps(key.text, ensure_ascii=False)
                message = f"yaml: line {key.line}: mapping key {quoted} already defined at line {earlier.line}"
                self.faults.append(Fault("", message, key.line))

    def _key(self, node: _Node) -> str:
        target = _target(node)
        value = self._scalar(target, ()) if isinstance(target, _Scalar) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None:
            raise _refusal("yaml: a key must be text, a number, true or false", node.line)
        return f"{value:.9g}" if isinstance(value, float) else str(value)


def _target(node: _Node) -> _Node:
    return node.target if isinstance(node, _Alias) else node


def _merges(key: _Node) -> bool:
    return isinstance(key, _Scalar) and key.merges


def _merged(node: _Node, line: int) -> Iterator[_Mapping]:
    for each in node.items if isinstance(node, _Sequence) else [node]:
        target = _target(each)
        if not isinstance(target, _Mapping):
            raise _refusal("yaml: map merge requires map or sequence of maps as the value", line)
        yield target


# --- refusals


def _too_deep(line: int) -> SpecError:
    return _refusal(f"yaml: line {line}: nested deeper than {DEEPEST_LEVELS} levels", line)


def _refusal(message: str, line: int | None = None) -> SpecError:
    return SpecError((Fault("", message, line),))


def _syntax_refusal(error: MarkedYAMLError, text: str) -> SpecError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or "unknown problem parsing YAML content"
    if mark is None:
        return _refusal(f"yaml: {problem}")
    line = mark.line + 1
    rows = text.splitlines()
    tabbed = line <= len(rows) and rows[line - 1].lstrip(" ").startswith("\t")
    hint = "; indent with spaces, not with tabs" if tabbed else ""
    return _refusal(f"yaml: line {line}: {problem}{hint}", line)
