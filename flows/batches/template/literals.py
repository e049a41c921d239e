"""The literals of an action: strings, characters and numbers, as Go's strconv and ideal constants have them."""

from __future__ import annotations

import re
import string
from math import isinf

from .text import from_bytes

_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_ESCAPE = re.compile(
    r"\\(?:(?P<short>[abfnrtv\\'\"])|(?P<octal>[0-7]{3})|x(?P<byte>[0-9a-fA-F]{2})"
    r"|u(?P<short_rune>[0-9a-fA-F]{4})|U(?P<long_rune>[0-9a-fA-F]{8}))"
)
_PREFIXES = {"0x": 16, "0o": 8, "0b": 2}
_DECIMAL_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_HEX_FLOAT = re.compile(r"[-+]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][-+]?[0-9]+")
_MOST_DIGITS = 4000  # int() refuses longer ones; no 64-bit number has as many
INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1

Number = int | float | complex


class LiteralError(ValueError):
    """The literal is malformed. The text is Go's."""


def unquote(literal: str) -> str:
    """The text of a string literal with its quotes, double or raw. Raises LiteralError."""
    body = literal[1:-1]
    if literal[0] == "`":
        return body.replace("\r", "")
    parts: list[bytes] = []
    position = 0
    while (start := body.find("\\", position)) >= 0:
        parts.append(body[position:start].encode("utf-8", "surrogateescape"))
        match = _ESCAPE.match(body, start)
        if not match:
            raise LiteralError("invalid syntax")
        code, is_byte = _escape_code(match, '"')
        parts.append(bytes([code]) if is_byte else chr(code).encode())
        position = match.end()
    if not parts:
        return body
    parts.append(body[position:].encode("utf-8", "surrogateescape"))
    return from_bytes(b"".join(parts))


def character(literal: str) -> int:
    """The code point of a character constant with its quotes. Raises LiteralError."""
    body = literal[1:]
    if body[0] == "'":
        raise LiteralError("invalid syntax")
    if body[0] != "\\":
        code, rest = ord(body[0]), body[1:]
    else:
        match = _ESCAPE.match(body)
        if not match:
            raise LiteralError("invalid syntax")
        code, rest = _escape_code(match, "'")[0], body[match.end() :]
    if rest != "'":
        raise LiteralError(f"malformed character constant: {literal}")
    return code


def number(literal: str) -> Number:
    """What Go's ideal constant becomes where no type is asked for: an int, else a float, else a complex number.

    An int may exceed 64-bit signed range up to ``UINT_MAX``: evaluating it is an error then. Raises LiteralError.
    """
    if literal.endswith("i") and (imaginary := _float(literal[:-1])) is not None:
        return complex(0, imaginary)
    integer = _integer(literal)
    if integer is not None and INT_MIN <= integer <= UINT_MAX:
        return float(integer) if _written_as_float(literal) else integer
    real = _float(literal)
    if real is None:
        raise LiteralError(f'illegal number syntax: "{literal}"')
    if not any(mark in literal for mark in ".eEpP"):
        raise LiteralError(f'integer overflow: "{literal}"')
    return real


def complex_number(literal: str) -> complex:
    """The value of `1+2i`. Raises LiteralError."""
    split = max(literal.rfind("+"), literal.rfind("-"))
    if literal[split - 1] in "eEpP":
        split = max(literal.rfind("+", 0, split), literal.rfind("-", 0, split))
    real, imaginary = _float(literal[:split]), _float(literal[split:-1])
    if real is None or imaginary is None:
        raise LiteralError(f'illegal number syntax: "{literal}"')
    return complex(real, imaginary)


def _escape_code(match: re.Match[str], quotes: str) -> tuple[int, bool]:
    """The value of an escape, and whether it is a byte and not a code point."""
    if short := match["short"]:
        if short in "'\"" and short != quotes:
            raise LiteralError("invalid syntax")
        return _ESCAPES.get(short, ord(short)), True
    if match["octal"] or match["byte"]:
        code = int(match["octal"], 8) if match["octal"] else int(match["byte"], 16)
        if code > 0xFF:
            raise LiteralError("invalid syntax")
        return code, True
    code = int(match["short_rune"] or match["long_rune"], 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise LiteralError("invalid syntax")
    return code, False


def _written_as_float(literal: str) -> bool:
    """Go looks for a float's letters in the text; the e of a hexadecimal integer counts only behind a sign."""
    return literal[:2] not in ("0x", "0X") and any(mark in literal for mark in ".eEpP")


def _integer(literal: str) -> int | None:
    digits = literal[1:] if literal[0] in "+-" else literal
    if not _underscores_fit(digits):
        return None
    base = _PREFIXES.get(digits[:2].lower(), 10)
    if base != 10:
        digits = digits[2:]
    elif digits.startswith("0") and len(digits) > 1:
        base = 8
    digits = digits.replace("_", "")
    if not digits.isalnum() or not digits.isascii() or len(digits) > _MOST_DIGITS:
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return -value if literal[0] == "-" else value


def _float(literal: str) -> float | None:
    if not _underscores_fit(literal.lstrip("+-")):
        return None
    text = literal.replace("_", "")
    try:
        if _DECIMAL_FLOAT.fullmatch(text):
            value = float(text)
        elif _HEX_FLOAT.fullmatch(text):
            value = float.fromhex(text)
        else:
            return None
    except OverflowError:
        return None
    return None if isinf(value) else value


def _underscores_fit(digits: str) -> bool:
    """strconv.underscoreOK: an underscore stands between digits, or between a prefix and a digit."""
    if "_" not in digits:
        return True
    accepted, previous = string.digits, "^"
    if digits[:2].lower() in _PREFIXES:
        accepted = string.hexdigits if digits[1] in "xX" else accepted
        digits, previous = digits[2:], "0"
    for mark in digits:
        if mark in accepted:
            previous = "0"
        elif mark == "_":
            if previous != "0":
                return False
            previous = "_"
        elif previous == "_":
            return False
        else:
            previous = "!"
    return previous != "_"
