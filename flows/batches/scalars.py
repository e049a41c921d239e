"""What a YAML scalar means, by the rules of yaml.v3: YAML 1.2 words, YAML 1.1 octals, dates as RFC 3339 text.

Refuses an explicit tag that does not fit the text.
"""

from __future__ import annotations

import base64
import binascii
import re
from calendar import isleap

Scalar = bool | int | float | str | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_NUMBER_STARTS = frozenset("+-.0123456789")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BASES = (16, 2, 8, 10)
_MOST_NEGATIVE, _LARGEST = -(2**63), 2**64 - 1
_STRAY_UNDERSCORE = re.compile(r"(?<![0-9])_|_(?![0-9])")
_LONGEST_INTEGER = 80  # more than 64 bits need in any base; int() refuses very long texts
_DATE = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"(?:(?P<mark>[Tt]| +)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2}):(?P<second>[0-9]{1,2})(?P<fraction>[.,][0-9]+)?"
    r"(?P<zone>Z|[-+][0-9]{2}:[0-9]{2})?)?"
)
_RESOLVED_TAGS = frozenset({"!!bool", "!!int", "!!float", "!!null", "!!timestamp"})


class ScalarError(ValueError):
    """The text cannot be what its tag says."""


def resolve(text: str, tag: str) -> Scalar:
    """The value of a scalar. ``tag`` is its short form ("!!int"), or "" for plain text without one.

    Dates become RFC 3339 text, `!!binary` becomes text; unknown tags are ignored, as upstream does. Raises ScalarError.
    """
    if tag == "!!binary":
        return _decoded(text)
    if tag and tag not in _RESOLVED_TAGS:
        return text
    found, value = _plain(text, dates=tag in ("", "!!timestamp"))
    if tag in ("", found):
        return value
    if tag == "!!float" and found == "!!int" and isinstance(value, int) and value < 2**63:
        return float(value)
    raise ScalarError(f"cannot decode {found} `{text}` as a {tag}")


def _plain(text: str, *, dates: bool) -> tuple[str, Scalar]:
    if text in _WORDS:
        return _tag_of(_WORDS[text]), _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return "!!str", text
    if dates and (moment := _moment(text)) is not None:
        return "!!timestamp", moment
    number = _number(text)
    return ("!!str", text) if number is None else (_tag_of(number), number)


def _tag_of(value: Scalar) -> str:
    if value is None:
        return "!!null"
    if isinstance(value, bool):
        return "!!bool"
    return "!!float" if isinstance(value, float) else "!!int"


def _number(text: str) -> int | float | None:
    # Underscores may be anywhere, but for texts that begin with a point: Go reads those as they are.
    digits = text if text.startswith(".") and _STRAY_UNDERSCORE.search(text) else text.replace("_", "")
    if len(digits) <= _LONGEST_INTEGER and (match := _INTEGER.fullmatch(digits)):
        sign, *forms = match.groups()
        base, form = next((base, form) for base, form in zip(_BASES, forms, strict=True) if form is not None)
        number = int(sign + form, base)
        if _MOST_NEGATIVE <= number <= _LARGEST and not (sign == "+" and number >= 2**63):
            return number
    if not _FLOAT.fullmatch(digits):
        return None
    value = float(digits)
    return value if abs(value) != float("inf") else None


def _moment(text: str) -> str | None:
    """RFC 3339 text for what Go's time.Parse takes in the four forms that yaml.v3 tries."""
    match = _DATE.fullmatch(text)
    if not match or (match["zone"] is None) != (not (match["mark"] or "").strip()):
        return None
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    if not (1 <= month <= 12 and 1 <= day <= _days(year, month) and hour < 24 and minute < 60 and second < 60):
        return None
    zone = match["zone"] or "Z"
    if zone != "Z" and (int(zone[1:3]) >= 24 or int(zone[4:]) >= 60):
        return None
    zone = "Z" if zone in ("+00:00", "-00:00") else zone
    fraction = (match["fraction"] or "")[1:10].rstrip("0")
    clock = f"{hour:02}:{minute:02}:{second:02}" + (f".{fraction}" if fraction else "")
    return f"{year:04}-{month:02}-{day:02}T{clock}{zone}"


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if isleap(year) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _decoded(text: str) -> str:
    try:
        content = base64.b64decode(text.replace("\n", "").replace("\r", "").encode("utf-8"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ScalarError("!!binary value contains invalid base64 data") from error
    # As Go's JSON encoder: one mark for every byte that is not UTF-8.
    return re.sub("[\udc80-\udcff]", "\ufffd", content.decode("utf-8", "surrogateescape"))
