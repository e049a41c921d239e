"""JSON as Go's encoding/json reads and writes it: its error texts, its numbers, its bytes. Users see them."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from .errors import PermanentError
from .template.text import quote_rune

MAX_DEPTH = 200
"""Deeper values are refused: what reads the records afterwards (pydantic) gives up at 255. Go's own limit is 10000."""

_SPACE = re.compile(r"[ \t\r\n]*")
_INTEGER = re.compile(r"0|[1-9][0-9]*")
_DIGITS = re.compile(r"[0-9]+")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = re.compile(r"[0-9A-Fa-f]{0,4}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_ESCAPED = {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}


class JSONError(PermanentError):
    """A text is not JSON. The message is Go's."""


def first_value(text: str) -> object:
    """The first JSON value of a text; what follows it is not looked at. Every number is a float. Raises JSONError.

    As Go's ``json.NewDecoder(r).Decode(&any)``; half a surrogate pair becomes U+FFFD.
    """
    start = _skip_space(text, 0)
    if start == len(text):
        raise JSONError("EOF")
    end = _end_of_value(text, start)
    return well_formed(json.loads(text[start:end], parse_int=_number, parse_float=_number))


def well_formed(value: Any) -> Any:
    """``value`` as JSON can carry it: every byte that is not UTF-8 (surrogate escapes) becomes U+FFFD, as in Go."""
    match value:
        case str():
            return _SURROGATE.sub("\ufffd", value)
        case list():
            return [well_formed(item) for item in value]
        case dict():
            return {_SURROGATE.sub("\ufffd", key): well_formed(item) for key, item in value.items()}
    return value


def dumps(value: object) -> str:
    """``value`` as ``json.Marshal`` writes it: compact, in its order, `< > &` and U+2028/9 escaped, nothing else."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = _SURROGATE.sub(r"\\ufffd", text)
    return re.sub("[<>&\u2028\u2029]", lambda match: _ESCAPED[match[0]], text)


def marshal(value: object) -> str:
    """``value`` as ``json.Marshal`` writes what ``first_value`` gave: as ``dumps``, with numbers in Go's form.

    A whole number is written without a point, also where it is a float; the exponent form begins where Go's does.
    """
    match value:
        case dict():
            return "{" + ",".join(f"{dumps(str(key))}:{marshal(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(marshal, value)) + "]"
        case float():
            return _float(value)
    return dumps(value)


def in_key_order(value: Any) -> Any:
    """``value`` with every object's keys sorted, as Go writes maps."""
    match value:
        case dict():
            return {key: in_key_order(value[key]) for key in sorted(value)}
        case list():
            return [in_key_order(item) for item in value]
    return value


def as_read(value: Any) -> Any:
    """``value`` as Go has it after reading it from JSON: every number is a float."""
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case dict():
            return {key: as_read(item) for key, item in value.items()}
        case list():
            return [as_read(item) for item in value]
    return value


def _float(number: float) -> str:
    if math.isnan(number) or math.isinf(number):
        raise JSONError(f"json: unsupported value: {number}")
    if number == 0:
        return "-0" if math.copysign(1, number) < 0 else "0"
    if 1e-6 <= abs(number) < 1e21:
        return f"{Decimal(repr(number)):f}".removesuffix(".0")
    digits, _, exponent = repr(number).partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent):+d}"


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise JSONError(f"json: cannot unmarshal number {text} into Go value of type float64")
    return number


def _end_of_value(text: str, position: int) -> int:
    """Where the value that begins at ``position`` ends. Without recursion: the depth is the user's."""
    closers: list[str] = []
    while True:
        opener = text[position : position + 1]
        if opener in ("[", "{"):
            closers.append("]" if opener == "[" else "}")
            if len(closers) > MAX_DEPTH:
                raise _fault(text, position, "exceeded max depth")
            position = _skip_space(text, position + 1)
            if not text.startswith(closers[-1], position):
                position = _end_of_key(text, position) if opener == "{" else position
                continue
            closers.pop()
            position += 1
        else:
            position = _end_of_scalar(text, position)
        position, more = _after_value(text, position, closers)
        if not more:
            return position


def _after_value(text: str, position: int, closers: list[str]) -> tuple[int, bool]:
    """Close what ends here; whether another value follows, and where."""
    while closers:
        position = _skip_space(text, position)
        if text.startswith(",", position):
            position = _skip_space(text, position + 1)
            return (_end_of_key(text, position) if closers[-1] == "}" else position), True
        if not text.startswith(closers[-1], position):
            raise _fault(text, position, "after array element" if closers[-1] == "]" else "after object key:value pair")
        closers.pop()
        position += 1
    return position, False


def _end_of_key(text: str, position: int) -> int:
    """Where the value of the key that begins at ``position`` begins."""
    if not text.startswith('"', position):
        raise _fault(text, position, "looking for beginning of object key string")
    position = _skip_space(text, _end_of_string(text, position + 1))
    if not text.startswith(":", position):
        raise _fault(text, position, "after object key")
    return _skip_space(text, position + 1)


def _end_of_scalar(text: str, position: int) -> int:
    first = text[position : position + 1]
    if first == '"':
        return _end_of_string(text, position + 1)
    if first in _LITERALS:
        return _end_of_literal(text, position, _LITERALS[first])
    if first == "-":
        return _end_of_number(text, position + 1, "in numeric literal")
    return _end_of_number(text, position, "looking for beginning of value")


def _end_of_literal(text: str, position: int, literal: str) -> int:
    for offset, expected in enumerate(literal):
        if not text.startswith(expected, position + offset):
            raise _fault(text, position + offset, f"in literal {literal} (expecting '{expected}')")
    return position + len(literal)


def _end_of_number(text: str, position: int, context: str) -> int:
    position = _end_of(_INTEGER, text, position, context)
    if text.startswith(".", position):
        position = _end_of(_DIGITS, text, position + 1, "after decimal point in numeric literal")
    if text.startswith(("e", "E"), position):
        position += 2 if text.startswith(("+", "-"), position + 1) else 1
        position = _end_of(_DIGITS, text, position, "in exponent of numeric literal")
    return position


def _end_of_string(text: str, position: int) -> int:
    while True:
        position = _end_of(_PLAIN, text, position, "in string literal")
        if text.startswith('"', position):
            return position + 1
        if not text.startswith("\\", position):
            raise _fault(text, position, "in string literal")
        escape = text[position + 1 : position + 2]
        if escape == "u":
            end = _end_of(_HEX, text, position + 2, "in string literal")
            if end < position + 6:
                raise _fault(text, end, r"in \u hexadecimal character escape")
            position = end
        elif escape and escape in 'bfnrt\\/"':
            position += 2
        else:
            raise _fault(text, position + 1, "in string escape code")


def _end_of(pattern: re.Pattern[str], text: str, position: int, context: str) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise _fault(text, position, context)
    return match.end()


def _skip_space(text: str, position: int) -> int:
    return _end_of(_SPACE, text, position, "")


def _fault(text: str, position: int, context: str) -> JSONError:
    """Go reads bytes: of a character beyond ASCII it names the first byte, as if that were a character."""
    if position >= len(text):
        return JSONError("unexpected EOF")
    character = chr(text[position].encode("utf-8", "surrogatepass")[0])
    return JSONError(f"invalid character {quote_rune(character)} {context}")
