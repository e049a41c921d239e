"""The escapes of html, js and urlquery."""

from __future__ import annotations

import re
from urllib.parse import quote_plus

from .text import to_bytes

_HTML = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"},
)
_JS_SPECIAL = re.compile(r"[\x00-\x1f\\'\"<>&=]|[^\x00-\x7f]")
_JS = {"\\": r"\\", "'": r"\'", '"': r"\"", "<": r"\u003C", ">": r"\u003E", "&": r"\u0026", "=": r"\u003D"}


def html(text: str) -> str:
    """Text that HTML shows as it is."""
    return text.translate(_HTML)


def js(text: str) -> str:
    """Text for a JavaScript string between quotes."""
    return _JS_SPECIAL.sub(lambda match: _js(match[0]), text)


def urlquery(text: str) -> str:
    """Text for a value in a URL's query."""
    return quote_plus(to_bytes(text))


def _js(character: str) -> str:
    if character in _JS:
        return _JS[character]
    if character < " ":
        return f"\\u{ord(character):04X}"
    # Bytes that are no UTF-8 (surrogate escapes) pass, as in Go.
    return character if character.isprintable() or "\udc80" <= character <= "\udcff" else f"\\u{ord(character):04X}"
