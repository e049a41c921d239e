"""Go's fmt: Sprint, Sprintln and Sprintf for the values of templates, bad verbs and all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .budget import Budget, TextBuilder
from .floats import format_float
from .text import can_backquote, quote, quote_rune, to_bytes
from .values import Boxed, Kind, SearchResultPaths, Struct, kind_of, sorted_entries, type_name

_BASES = {"b": 2, "o": 8, "O": 8, "d": 10, "v": 10, "x": 16, "X": 16}
_FLOAT_PRECISIONS = {"v": -1, "b": -1, "g": -1, "G": -1, "x": -1, "X": -1, "f": 6, "F": 6, "e": 6, "E": 6}
_LARGEST_NUMBER = 1_000_000
_MAX_RUNE = 0x10FFFF


def sprint(values: Sequence[object], budget: Budget) -> str:
    """fmt.Sprint: a space between two operands when neither is a string."""
    printer = _Printer(budget)
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
    printer = _Printer(budget)
    for index, value in enumerate(values):
        if index:
            printer.write(" ")
        printer.print(value, "v")
    printer.write("\n")
    return printer.text()


def sprintf(form: str, values: Sequence[object], budget: Budget) -> str:
    """fmt.Sprintf. What is wrong with the verbs is told in the text, as in Go: `%!d(string=x)`."""
    return _Format(form, values, _Printer(budget)).text()


def verbatim(value: object, verb: str = "v") -> str:
    """A value as messages show it, cut short."""
    return sprintf(f"%{verb}", [value], Budget())[:200]


@dataclass
class _Flags:
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


class _Printer:
    """Writes values under the flags of the verb at hand."""

    def __init__(self, budget: Budget) -> None:
        self._builder = TextBuilder(budget)
        self.flags = _Flags()
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
        if verb in _BASES:
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
        prefix = f"0{verb}" if flags.sharp else ""
        form = f"{{:02{verb}}}".format
        if flags.space:
            shown = " ".join(prefix + form(byte) for byte in data)
        else:
            shown = prefix + "".join(map(form, data)) if data else ""
        self._pad(shown)

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


class _Format:
    """One run over a format: verbs, flags, widths and argument numbers."""

    def __init__(self, form: str, values: Sequence[object], printer: _Printer) -> None:
        self._form, self._values, self._printer = form, values, printer
        self._position = 0
        self._argument = 0
        self._reordered = False
        self._good_number = True
        self._after_number = False

    def text(self) -> str:
        while (start := self._form.find("%", self._position)) >= 0:
            self._printer.write(self._form[self._position : start])
            self._position = start + 1
            self._directive()
        self._printer.write(self._form[self._position :])
        if not self._reordered and self._argument < len(self._values):
            self._extra()
        return self._printer.text()

    def _directive(self) -> None:
        self._good_number, self._after_number = True, False
        flags = self._printer.flags = self._flags()
        self._argument_number()
        self._width(flags)
        self._precision(flags)
        if not self._after_number:
            self._argument_number()
        verb = self._peek()
        if not verb:
            self._printer.write("%!(NOVERB)")
            return
        self._position += 1
        self._verb(verb, flags)

    def _verb(self, verb: str, flags: _Flags) -> None:
        if verb == "%":
            self._printer.write("%")
        elif not self._good_number:
            self._printer.write(f"%!{verb}(BADINDEX)")
        elif self._argument >= len(self._values):
            self._printer.write(f"%!{verb}(MISSING)")
        else:
            if verb in "vw":
                flags.go_syntax, flags.sharp = flags.sharp, False
                flags.names_fields, flags.plus = flags.plus, False
            self._printer.print(self._values[self._argument], verb)
            self._argument += 1

    def _flags(self) -> _Flags:
        flags = _Flags()
        while (mark := self._peek()) and mark in "#0+- ":
            flags.sharp |= mark == "#"
            flags.zero |= mark == "0"
            flags.plus |= mark == "+"
            flags.minus |= mark == "-"
            flags.space |= mark == " "
            self._position += 1
        return flags

    def _argument_number(self) -> None:
        """`[3]`: which argument comes next."""
        self._after_number = False
        if self._peek() != "[":
            return
        self._reordered = True
        closing = self._form.find("]", self._position)
        if closing < 0:
            self._good_number = False
            self._position += 1
            return
        digits = self._form[self._position + 1 : closing]
        self._position = closing + 1
        number = int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= 7 else None
        self._after_number = number is not None
        if number is not None and 1 <= number <= len(self._values):
            self._argument = number - 1
        else:
            self._good_number = False

    def _width(self, flags: _Flags) -> None:
        if self._peek() != "*":
            flags.width = self._number()
            if self._after_number and flags.width is not None:
                self._good_number = False
            return
        self._position += 1
        flags.width = self._number_argument()
        if flags.width is None:
            self._printer.write("%!(BADWIDTH)")
        elif flags.width < 0:
            flags.width, flags.minus, flags.zero = -flags.width, True, False
        self._after_number = False

    def _precision(self, flags: _Flags) -> None:
        if self._peek() != "." or self._position + 1 >= len(self._form):
            return
        self._position += 1
        if self._after_number:
            self._good_number = False
        self._argument_number()
        if self._peek() != "*":
            flags.precision = self._number() or 0
            return
        self._position += 1
        flags.precision = self._number_argument()
        if flags.precision is not None and flags.precision < 0:
            flags.precision = None
        if flags.precision is None:
            self._printer.write("%!(BADPREC)")
        self._after_number = False

    def _number_argument(self) -> int | None:
        if self._argument >= len(self._values):
            return None
        value = self._values[self._argument]
        self._argument += 1
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST_NUMBER:
            return None
        return value

    def _number(self) -> int | None:
        start = self._position
        while (digit := self._peek()) and digit in "0123456789":
            self._position += 1
        digits = self._form[start : self._position]
        if len(digits.lstrip("0")) > 8 or int(digits or 0) // 10 > _LARGEST_NUMBER:
            self._position = len(self._form)  # as in Go, such a number ends the format
            return None
        return int(digits) if digits else None

    def _peek(self) -> str:
        return self._form[self._position : self._position + 1]

    def _extra(self) -> None:
        self._printer.flags = _Flags()
        self._printer.write("%!(EXTRA ")
        for index, value in enumerate(self._values[self._argument :]):
            if index:
                self._printer.write(", ")
            if value is None:
                self._printer.write("<nil>")
            else:
                self._printer.write(type_name(value) + "=")
                self._printer.print(value, "v")
        self._printer.write(")")


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
