"""Values to text as Go's fmt writes them, under a verb and its flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .budget import Budget, TextBuilder
from .floats import format_float
from .text import can_backquote, quote, quote_rune, to_bytes
from .values import Boxed, Kind, SearchResultPaths, Struct, kind_of, sorted_entries, type_name

_INTEGER_VERBS = frozenset("bdoOvxX")
_FLOAT_PRECISIONS = {"v": -1, "b": -1, "g": -1, "G": -1, "x": -1, "X": -1, "f": 6, "F": 6, "e": 6, "E": 6}
_MAX_RUNE = 0x10FFFF
_SLOW = 16
"""How much more than copying a character it costs to look at it."""


def sprint(values: Sequence[object], budget: Budget) -> str:
    """fmt.Sprint: a space between two operands when neither is a string."""
    printer = Printer(budget)
    after_string = True
    for value in values:
        is_string = isinstance(value, str)
        if not is_string and not after_string:
            printer.write(" ")
        printer.print(value, "v")
        after_string = is_string
    return printer.text()


def sprintln(values: Sequence[object], budget: Budget) -> str:
    """fmt.Sprintln: spaces between all operands, and a newline."""
    printer = Printer(budget)
    for index, value in enumerate(values):
        if index:
            printer.write(" ")
        printer.print(value, "v")
    printer.write("\n")
    return printer.text()


def verbatim(value: object, verb: str = "v") -> str:
    """A value as messages show it, cut short."""
    printer = Printer(Budget())
    printer.print(value, verb)
    return printer.text()[:200]


@dataclass
class Flags:
    """What stands between the percent sign and the verb."""

    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    width: int | None = None
    precision: int | None = None
    names_fields: bool = False
    """%+v"""
    go_syntax: bool = False
    """%#v"""


class Printer:
    """Writes values under the flags of the verb at hand."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._builder = TextBuilder(budget)
        self.flags = Flags()
        self._reporting = False

    def write(self, piece: str) -> None:
        self._builder.write(piece)

    def text(self) -> str:
        return self._builder.text()

    def print(self, value: object, verb: str) -> None:
        """A value that stands at the top: only there nil has no verb but v and T, and pointers are followed."""
        if value is None and verb not in ("v", "T"):
            self.bad_verb(value, verb)
        elif value is None:
            self._pad("<nil>")
        elif verb == "T":
            self._text(type_name(value))
        else:
            self._value(value, verb, top=True)

    def bad_verb(self, value: object, verb: str) -> None:
        self.write(f"%!{verb}(")
        if value is None:
            self.write("<nil>")
        else:
            self.write(type_name(value) + "=")
            self._reporting, before = True, self._reporting
            self._value(value, "v", top=True)
            self._reporting = before
        self.write(")")

    def _value(self, value: object, verb: str, *, top: bool = False) -> None:
        kind = kind_of(value)
        if kind is Kind.NIL:
            self.write("interface {}(nil)" if self.flags.go_syntax else "<nil>")
        elif kind is Kind.INTERFACE:
            assert isinstance(value, Boxed)
            self._value(value.value, verb)
        elif isinstance(value, bool):
            self._boolean(value, verb)
        elif isinstance(value, int):
            self._integer(value, verb, signed=kind is Kind.INT)
        elif isinstance(value, float):
            self._float(value, verb)
        elif isinstance(value, complex):
            self._complex(value, verb)
        elif isinstance(value, str):
            self._string(value, verb)
        elif isinstance(value, Struct):
            self._struct(value, verb, top=top)
        elif verb == "w" and not self._reporting:
            self.bad_verb(value, verb)
        elif isinstance(value, SearchResultPaths) and self._prints_itself(verb):
            self._string(str(value), verb)
        elif isinstance(value, list | tuple):
            self._list(value, verb)
        else:
            self._map(value, verb)

    def _prints_itself(self, verb: str) -> bool:
        return verb in "vsxXq" and not self.flags.go_syntax and not self._reporting

    def _boolean(self, value: bool, verb: str) -> None:
        if verb in "tv":
            self._pad("true" if value else "false")
        else:
            self.bad_verb(value, verb)

    def _integer(self, value: int, verb: str, *, signed: bool) -> None:
        if verb in _INTEGER_VERBS:
            hexadecimal = verb == "v" and self.flags.go_syntax and not signed
            self._digits(value, "x" if hexadecimal else verb, prefixed=hexadecimal or self.flags.sharp)
        elif verb == "c":
            self._pad(_rune(value))
        elif verb == "q":
            self._pad(quote_rune(_rune(value), ascii_only=self.flags.plus))
        elif verb == "U":
            self._code_point(value)
        else:
            self.bad_verb(value, verb)

    def _digits(self, value: int, verb: str, *, prefixed: bool) -> None:
        flags = self.flags
        digits = _in_base(abs(value), verb)
        if flags.precision == 0 and value == 0:
            self.write(" " * (flags.width or 0))
            return
        if flags.precision is not None:
            digits = digits.rjust(flags.precision, "0")
        elif flags.zero and not flags.minus and flags.width is not None:
            digits = digits.rjust(flags.width - (value < 0 or flags.plus or flags.space), "0")
        if prefixed and verb in "xXb":
            digits = f"0{verb}{digits}"
        elif prefixed and verb in "oO" and not digits.startswith("0"):
            digits = "0" + digits
        if verb == "O":
            digits = "0o" + digits
        self._pad(self._sign(negative=value < 0) + digits, zeros=False)

    def _sign(self, *, negative: bool) -> str:
        if negative:
            return "-"
        return "+" if self.flags.plus else " " if self.flags.space else ""

    def _code_point(self, value: int) -> None:
        code = value % 2**64
        shown = "U+" + f"{code:X}".rjust(max(self.flags.precision or 0, 4), "0")
        if self.flags.sharp and code <= _MAX_RUNE and chr(code).isprintable():
            shown += f" '{chr(code)}'"
        self._pad(shown, zeros=False)

    def _float(self, value: float, verb: str) -> None:
        if verb not in _FLOAT_PRECISIONS:
            self.bad_verb(value, verb)
            return
        flags = self.flags
        precision = _FLOAT_PRECISIONS[verb] if flags.precision is None else flags.precision
        verb = {"v": "g", "F": "f"}.get(verb, verb)
        shown = format_float(value, verb, precision)
        digits = shown.lstrip("+-")
        sign = "-" if shown.startswith("-") else " " if flags.space and not flags.plus else "+"
        if digits == "Inf" or (digits == "NaN" and (flags.plus or flags.space)):
            self._pad(sign + digits, zeros=False)
        elif digits == "NaN":
            self._pad(digits, zeros=False)
        else:
            self._signed_float(sign, _with_point(digits, verb, precision) if flags.sharp and verb != "b" else digits)

    def _signed_float(self, sign: str, digits: str) -> None:
        flags = self.flags
        if sign == "+" and not flags.plus:
            self._pad(digits)
        elif flags.zero and not flags.minus and flags.width is not None:
            self.write(sign + digits.rjust(flags.width - 1, "0"))
        else:
            self._pad(sign + digits)

    def _complex(self, value: complex, verb: str) -> None:
        if verb not in _FLOAT_PRECISIONS:
            self.bad_verb(value, verb)
            return
        plus = self.flags.plus
        self.write("(")
        self._float(value.real, verb)
        self.flags.plus = True
        self._float(value.imag, verb)
        self.flags.plus = plus
        self.write("i)")

    def _string(self, value: str, verb: str) -> None:
        if verb == "q" or (verb == "v" and self.flags.go_syntax):
            value = self._cut(value)
            self._budget.spend_work(_SLOW * len(value))
            raw = self.flags.sharp and can_backquote(value)
            self._pad(f"`{value}`" if raw else quote(value, ascii_only=self.flags.plus))
        elif verb in "vs":
            self._text(value)
        elif verb in "xX":
            self._hexadecimal(value, verb)
        else:
            self.bad_verb(value, verb)

    def _hexadecimal(self, value: str, verb: str) -> None:
        flags = self.flags
        data = to_bytes(value)[: flags.precision]
        shown = data.hex(" ") if flags.space else data.hex()
        if flags.sharp and data:
            shown = "0x" + (shown.replace(" ", " 0x") if flags.space else shown)
        self._pad(shown.upper() if verb == "X" else shown)

    def _text(self, value: str) -> None:
        self._pad(self._cut(value))

    def _cut(self, value: str) -> str:
        return value[: self.flags.precision]

    def _list(self, items: Sequence[object], verb: str) -> None:
        if self.flags.go_syntax:
            self._joined(f"{type_name(items)}{{", items, verb, "}")
        else:
            self._joined("[", items, verb, "]")

    def _joined(self, opening: str, items: Iterable[object], verb: str, closing: str) -> None:
        self.write(opening)
        for index, item in enumerate(items):
            if index:
                self._separate()
            self._value(item, verb)
        self.write(closing)

    def _separate(self) -> None:
        self.write(", " if self.flags.go_syntax else " ")

    def _map(self, value: object, verb: str) -> None:
        assert isinstance(value, Mapping)
        self.write(f"{type_name(value)}{{" if self.flags.go_syntax else "map[")
        for index, (key, item) in enumerate(sorted_entries(value)):
            if index:
                self._separate()
            self._value(key, verb)
            self.write(":")
            self._value(item, verb)
        self.write("}" if self.flags.go_syntax else "]")

    def _struct(self, value: Struct, verb: str, *, top: bool) -> None:
        if value.pointer:
            self.write("&" if top else "0x")
        if self.flags.go_syntax:
            self.write(value.type_name)
        self.write("{")
        for index, (name, item) in enumerate(value.fields.items()):
            if index:
                self._separate()
            if self.flags.names_fields or self.flags.go_syntax:
                self.write(name + ":")
            self._value(item, verb)
        self.write("}")

    def _pad(self, shown: str, *, zeros: bool = True) -> None:
        flags = self.flags
        missing = (flags.width or 0) - len(shown)
        if missing <= 0:
            self.write(shown)
        elif flags.minus:
            self.write(shown + " " * missing)
        else:
            self.write(("0" if zeros and flags.zero else " ") * missing + shown)


def _in_base(number: int, verb: str) -> str:
    return f"{number:{verb.lower() if verb == 'O' else 'd' if verb == 'v' else verb}}"


def _rune(value: int) -> str:
    """The character of a code point; U+FFFD where there is none."""
    return chr(value) if 0 <= value <= _MAX_RUNE and not 0xD800 <= value <= 0xDFFF else "\ufffd"


def _with_point(digits: str, verb: str, precision: int) -> str:
    """The # flag: always a decimal point, and for g and x the zeros that were left out."""
    marks = "p" if verb in "xX" else "e"
    cut = next((index for index, mark in enumerate(digits.lower()) if mark in marks), len(digits))
    number, tail = digits[:cut], digits[cut:]
    wanted = (6 if precision == -1 else precision) if verb in "gGx" else 0
    significant = number.replace(".", "").lstrip("0")
    wanted -= len(significant)
    if "." not in number:
        if number == "0":
            wanted -= 1
        number += "."
    return number + "0" * max(wanted, 0) + tail
