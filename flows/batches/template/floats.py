"""Go's strconv.FormatFloat: the digits of a float for the verbs e, f, g, b and x."""

from __future__ import annotations

from math import copysign, frexp, isinf, isnan, ldexp


def format_float(value: float, verb: str, precision: int) -> str:
    """The number as text with its sign only if negative. ``precision`` -1: the fewest digits that give it back.

    ``verb`` is one of e, f, g, b, x, or the upper case of e, g, x.
    """
    if isnan(value):
        return "NaN"
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if verb in "EGX":
        return format_float(value, verb.lower(), precision).upper()
    if verb == "b":
        return _binary(value)
    if verb == "x":
        return _hexadecimal(value, precision)
    return _shortest(value, verb) if precision < 0 else _rounded(value, verb, precision)


def _rounded(value: float, verb: str, precision: int) -> str:
    return f"{value:.{precision}{verb}}"


def _shortest(value: float, verb: str) -> str:
    # repr() gives the shortest digits too, only arranged by other rules.
    sign, digits, point = _digits(repr(value))
    exponent = point - 1
    if verb == "e" or (verb == "g" and not -4 <= exponent < 6):
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{exponent:+03d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    return f"{sign}{digits[:point]}.{digits[point:]}"


def _digits(shown: str) -> tuple[str, str, int]:
    """Sign, significant digits without zeros around them, and where the decimal point stands before them."""
    sign = "-" if shown.startswith("-") else ""
    mantissa, _, exponent = shown.removeprefix("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    stripped = digits.lstrip("0")
    if not stripped:
        return sign, "0", 1
    return sign, stripped.rstrip("0"), len(whole) - (len(digits) - len(stripped)) + int(exponent or 0)


def _binary(value: float) -> str:
    exponent = max(frexp(value)[1] - 53, -1074) if value else -1074
    return f"{'-' if copysign(1, value) < 0 else ''}{int(ldexp(abs(value), -exponent))}p{exponent:+d}"


def _hexadecimal(value: float, precision: int) -> str:
    sign = "-" if copysign(1, value) < 0 else ""
    if value == 0:
        return f"{sign}0x0{'.' + '0' * precision if precision > 0 else ''}p+00"
    mantissa, exponent = frexp(abs(value))
    # 53 bits, the first of them before the point: 13 hexadecimal digits behind it.
    digits, exponent = int(mantissa * 2**53), exponent - 1
    if 0 <= precision < 13:
        digits = _round_half_even(digits, 4 * (13 - precision))
        if digits >> 53:
            digits, exponent = digits >> 1, exponent + 1
    fraction = f"{digits & (2**52 - 1):013x}"
    fraction = fraction.rstrip("0") if precision < 0 else fraction[:precision].ljust(precision, "0")
    return f"{sign}0x1{'.' if fraction else ''}{fraction}p{exponent:+03d}"


def _round_half_even(number: int, bits: int) -> int:
    """The number with its lowest bits rounded away to zeros."""
    kept, rest, half = number >> bits, number & ((1 << bits) - 1), 1 << (bits - 1)
    kept += rest > half or (rest == half and kept & 1)
    return kept << bits
