"""Texts with fields of a payload in them: ``{payload.repository.full_name}``. Paths, and nothing else: no code runs.

``{{`` and ``}}`` stand for braces. A path's first name says where to look; then come keys of objects and numbers of
lists. A ``?`` at its end makes a field that is missing an empty text. What a payload says is put in as text, and never
looked at for fields again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST_CHARACTERS = 512 * 1024
"""Of a rendered text."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)*\??", re.ASCII)


class FieldMissing(ValueError):
    """The payload has no such field, or none that is a text, a number or a truth value."""


@dataclass(frozen=True)
class Template:
    """A text and the paths in it, in turn. Beginning and ending with text."""

    texts: tuple[str, ...]
    paths: tuple[str, ...]

    def render(self, fields: Mapping[str, Any]) -> str:
        """The text with the fields put in. Raises FieldMissing."""
        values = [_optional(path, fields) for path in self.paths]
        parts = [part for pair in zip(self.texts, [*values, ""], strict=True) for part in pair]
        if sum(map(len, parts)) > MOST_CHARACTERS:
            raise FieldMissing(f"the text is longer than {MOST_CHARACTERS} characters")
        return "".join(parts)


def parse(text: str) -> Template:
    """Take a template apart. Raises ValueError that says what is wrong with it."""
    texts, paths = [""], []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece in ("{{", "}}"):
            texts[-1] += piece[0]
        elif piece in ("{", "}"):
            raise ValueError(f"a single {piece!r} in {text!r}: write it twice, or a field as {{payload.name}}")
        elif match[1] is not None:
            paths.append(_checked(match[1], text))
            texts.append("")
        else:
            texts[-1] += piece
    return Template(tuple(texts), tuple(paths))


def look_up(path: str, fields: Mapping[str, Any]) -> str:
    """A field as text: numbers and truth values as JSON writes them. Raises FieldMissing."""
    value: Any = fields
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise FieldMissing(f"there is no field {path}")
    if value is None:
        raise FieldMissing(f"the field {path} is null")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise FieldMissing(
            f"the field {path} is no text, but {'an object' if isinstance(value, Mapping) else 'a list'}"
        )
    return _plain(path, value)


def paths_of(value: Any) -> Iterator[str]:
    """The paths in all texts of a structure. Raises ValueError as ``parse``."""
    if isinstance(value, str):
        yield from parse(value).paths
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from paths_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from paths_of(each)


def rendered(value: Any, fields: Mapping[str, Any]) -> Any:
    """A structure with its texts rendered. Keys, and all that is no text, stay as they are. Raises FieldMissing."""
    if isinstance(value, str):
        return parse(value).render(fields)
    if isinstance(value, Mapping):
        return {key: rendered(each, fields) for key, each in value.items()}
    if isinstance(value, list):
        return [rendered(each, fields) for each in value]
    return value


def _checked(path: str, text: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{{{path}}} in {text!r} is no path: write names with dots between them, as in {{payload.name}}"
        )
    return path


def _optional(path: str, fields: Mapping[str, Any]) -> str:
    if not path.endswith("?"):
        return look_up(path, fields)
    try:
        return look_up(path.removesuffix("?"), fields)
    except FieldMissing:
        return ""


def _plain(path: str, value: str) -> str:
    """A text that every database can keep."""
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise FieldMissing(f"the field {path} holds characters that cannot be kept (NUL, or half of one)")
    return value
