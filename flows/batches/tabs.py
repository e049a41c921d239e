"""The YAML scanner with tabs where yaml.v3 takes them: behind values, in plain text, never as indentation."""

from __future__ import annotations

from typing import Any

from ruamel.yaml.scanner import Scanner, ScannerError

_BREAKS = "\r\n\x85\u2028\u2029"


class TabScanner(Scanner):
    """Two functions of ruamel's scanner, which stops at every tab outside of quotes, done as libyaml does them."""

    def scan_to_next_token(self) -> None:
        """Skips blanks, line breaks and comments."""
        peek, forward = self.reader.peek, self.reader.forward
        if self.reader.index == 0 and peek() == "\ufeff":
            forward()
        while True:
            # Where a key may begin, a tab would be indentation.
            while peek() == " " or (peek() == "\t" and (self.flow_level or not self.allow_simple_key)):
                forward()
            if peek() == "#":
                while peek() not in _BREAKS + "\0":
                    forward()
            if not self.scan_line_break():
                return
            if not self.flow_level:
                self.allow_simple_key = True

    def scan_plain_spaces(self, indent: Any, start_mark: Any) -> list[str]:
        """What stands between two words of a plain text, folded; nothing if the text ends here."""
        length = 0
        while self.reader.peek(length) in " \t":
            length += 1
        blanks: str = self.reader.prefix(length)
        self.reader.forward(length)
        if self.reader.peek() not in _BREAKS:
            return [blanks] if blanks else []
        first: str = self.scan_line_break()
        self.allow_simple_key = True
        breaks: list[str] = []
        while self.reader.peek() in _BREAKS + " \t":
            if self.reader.peek() in _BREAKS:
                breaks.append(self.scan_line_break())
            else:
                self._skip_indentation(indent, start_mark)
        if self._ends_document():
            return []
        return ([first] if first != "\n" else [] if breaks else [" "]) + breaks

    def _skip_indentation(self, indent: int, start_mark: Any) -> None:
        if self.reader.peek() == "\t" and self.reader.column < indent:
            problem = "found a tab character that violates indentation"
            raise ScannerError("while scanning a plain scalar", start_mark, problem, self.reader.get_mark())
        self.reader.forward()

    def _ends_document(self) -> bool:
        mark = self.reader.column == 0 and self.reader.prefix(3) in ("---", "...")
        return mark and self.reader.peek(3) in _BREAKS + " \t\0"
