"""Go's fmt.Sprintf: verbs, flags, widths and argument numbers, and what it says about wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

from .budget import Budget
from .printing import Flags, Printer
from .values import type_name

_LARGEST_NUMBER = 1_000_000


def sprintf(form: str, values: Sequence[object], budget: Budget) -> str:
    """fmt.Sprintf. What is wrong with the verbs is told in the text, as in Go: `%!d(string=x)`."""
    return _Format(form, values, Printer(budget)).text()


class _Format:
    """One run over a format: verbs, flags, widths and argument numbers."""

    def __init__(self, form: str, values: Sequence[object], printer: Printer) -> None:
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

    def _verb(self, verb: str, flags: Flags) -> None:
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

    def _flags(self) -> Flags:
        flags = Flags()
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

    def _width(self, flags: Flags) -> None:
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

    def _precision(self, flags: Flags) -> None:
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
        self._printer.flags = Flags()
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
