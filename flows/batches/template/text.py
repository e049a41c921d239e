"""Text as Go sees it: bytes that are mostly UTF-8, its own idea of white space, and quoted forms.

Bytes that are no UTF-8 live in Python strings as surrogate escapes, as in file names.
"""

from __future__ import annotations

import re
import unicodedata

_WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_MAYBE_ESCAPED = re.compile(r'[^ -~]|["\\]')
_SHORT_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
}


def trim_space(text: str) -> str:
    """strings.TrimSpace: unlike str.strip it leaves the separators 0x1c to 0x1f."""
    return text.strip(_WHITE_SPACE)


def to_bytes(text: str) -> bytes:
    """The bytes of a Go string. Surrogates that stand for no byte become U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _LONE_SURROGATES.sub("\ufffd", text).encode("utf-8", "surrogateescape")


def from_bytes(data: bytes) -> str:
    """The inverse of ``to_bytes``."""
    return data.decode("utf-8", "surrogateescape")


def byte_length(text: str) -> int:
    """What Go's len says."""
    return len(text) if text.isascii() else len(to_bytes(text))


def is_letter_or_digit(character: str) -> bool:
    """What names are made of: unicode.IsLetter, unicode.IsDigit or an underscore."""
    category = unicodedata.category(character)
    return character == "_" or category.startswith("L") or category == "Nd"


def code_point(character: str) -> str:
    """fmt's %#U: `U+0023 '#'`."""
    shown = f" '{character}'" if character.isprintable() else ""
    return f"U+{ord(character):04X}{shown}"


def quote(text: str, *, ascii_only: bool = False) -> str:
    """strconv.Quote: a Go string literal in double quotes."""
    escaped = _MAYBE_ESCAPED.sub(lambda match: _escaped(match[0], '"', ascii_only=ascii_only), text)
    return f'"{escaped}"'


def quote_rune(character: str, *, ascii_only: bool = False) -> str:
    """strconv.QuoteRune: a Go character literal."""
    return "'" + _escaped(character, "'", ascii_only=ascii_only) + "'"


def can_backquote(text: str) -> bool:
    """strconv.CanBackquote: whether the text fits in a raw string of one line."""
    return not any(
        character in "`\x7f\ufeff" or (character < " " and character != "\t") or "\ud800" <= character <= "\udfff"
        for character in text
    )


def _escaped(character: str, quotes: str, *, ascii_only: bool) -> str:
    if character == quotes:
        return "\\" + character
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable() and (not ascii_only or character.isascii()):
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
