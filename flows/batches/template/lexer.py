"""Text to tokens, as Go's text/template/parse/lex.go does with the delimiters `${{` and `}}`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from .text import byte_length, code_point, is_letter_or_digit, quote

LEFT, RIGHT = "${{", "}}"
_SPACES = " \t\r\n"
_SPACE_RUN = re.compile(r"[ \t\r\n]+")
_QUOTED = {
    '"': re.compile(r'"(?:[^"\\\n]|\\[^\n])*"'),
    "'": re.compile(r"'(?:[^'\\\n]|\\[^\n])*'"),
    "`": re.compile(r"`[^`]*`"),
}
_UNTERMINATED = {
    '"': "unterminated quoted string",
    "'": "unterminated character constant",
    "`": "unterminated raw quoted string",
}
_NUMBER = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][-+]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9_]*)?)i?"
)


class Kind(Enum):
    """What a token is. The keywords carry their own spelling as value."""

    ERROR = auto()
    EOF = auto()
    TEXT = auto()
    LEFT_DELIMITER = auto()
    RIGHT_DELIMITER = auto()
    SPACE = auto()
    BOOL = auto()
    CHARACTER = auto()
    COMPLEX = auto()
    NUMBER = auto()
    STRING = auto()
    RAW_STRING = auto()
    FIELD = auto()
    IDENTIFIER = auto()
    VARIABLE = auto()
    ASSIGN = auto()
    DECLARE = auto()
    PIPE = auto()
    LEFT_PARENTHESIS = auto()
    RIGHT_PARENTHESIS = auto()
    OTHER = auto()
    DOT = "."
    BLOCK = "block"
    BREAK = "break"
    CONTINUE = "continue"
    DEFINE = "define"
    ELSE = "else"
    END = "end"
    IF = "if"
    NIL = "nil"
    RANGE = "range"
    TEMPLATE = "template"
    WITH = "with"


_KEYWORDS = {str(kind.value): kind for kind in Kind if isinstance(kind.value, str)}
_QUOTED_KINDS = {'"': Kind.STRING, "'": Kind.CHARACTER, "`": Kind.RAW_STRING}
_SINGLE = {"=": Kind.ASSIGN, "|": Kind.PIPE}


@dataclass(frozen=True)
class Token:
    """One lexeme. ``text`` of an error is its message; ``line`` counts from 1."""

    kind: Kind
    position: int
    text: str
    line: int

    def __str__(self) -> str:
        if self.kind is Kind.EOF:
            return "EOF"
        if self.kind is Kind.ERROR:
            return self.text
        if self.text in _KEYWORDS and _KEYWORDS[self.text] is self.kind:
            return f"<{self.text}>"
        if byte_length(self.text) > 10:
            return quote(self.text[:10]) + "..."
        return quote(self.text)


class Lexer:
    """Gives one token after the other; after an error only the end of the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._start = 0
        self._line = 1
        self._counted = 0
        self._depth = 0
        self._inside_action = False

    def next_token(self) -> Token:
        """The next token; EOF again and again at the end."""
        if self._inside_action:
            return self._action_token()
        return self._text_token()

    def _text_token(self) -> Token:
        """Text up to the next action, the action's left delimiter, or the end. Comments are left out."""
        while True:
            found = self._text.find(LEFT, self._position)
            if found < 0:
                self._position = len(self._text)
                return self._token(Kind.TEXT if self._position > self._start else Kind.EOF)
            if found > self._position:
                token = self._text_before(found)
                if token.text:
                    return token
            error = self._comment()
            if error is None:
                return self._left_delimiter()
            if error:
                return self._error(error)

    def _text_before(self, delimiter: int) -> Token:
        text = self._text[self._start : delimiter]
        if self._has_left_trim_marker(delimiter + len(LEFT)):
            text = text.rstrip(_SPACES)
        token = Token(Kind.TEXT, self._start, text, self._line_at(self._start))
        self._position = self._start = delimiter
        return token

    def _comment(self) -> str | None:
        """Skips a comment: None if there is none, "" if it was skipped, else what is wrong with it."""
        start = self._position + len(LEFT)
        if self._has_left_trim_marker(start):
            start += 2
        if not self._text.startswith("/*", start):
            return None
        self._start = start
        end = self._text.find("*/", start + 2)
        if end < 0:
            return "unclosed comment"
        self._position = end + 2
        closing = self._right_delimiter_length()
        if not closing:
            return "comment ends before closing delimiter"
        self._position += closing
        if closing > len(RIGHT):
            self._skip_spaces()
        self._start = self._position
        return ""

    def _left_delimiter(self) -> Token:
        self._position += len(LEFT)
        token = self._token(Kind.LEFT_DELIMITER)
        if self._has_left_trim_marker(self._position):
            self._position += 2
        self._start = self._position
        self._inside_action = True
        self._depth = 0
        return token

    def _right_delimiter(self, length: int) -> Token:
        self._start = self._position = self._position + length - len(RIGHT)
        self._position += len(RIGHT)
        token = self._token(Kind.RIGHT_DELIMITER)
        if length > len(RIGHT):
            self._skip_spaces()
            self._start = self._position
        self._inside_action = False
        return token

    def _action_token(self) -> Token:
        if length := self._right_delimiter_length():
            return self._error("unclosed left paren") if self._depth else self._right_delimiter(length)
        character = self._peek()
        if not character:
            return self._error("unclosed action")
        if character in _SPACES:
            return self._space()
        if character in _SINGLE:
            self._position += 1
            return self._token(_SINGLE[character])
        if character in _QUOTED:
            return self._quoted(character)
        if character == ":":
            return self._declaration()
        if character in "()":
            return self._parenthesis(character)
        if character == "$" or (character == "." and not self._starts_number()):
            return self._field_or_variable(character)
        if character in ".+-0123456789":
            return self._number()
        if is_letter_or_digit(character):
            return self._word()
        self._position += 1
        if character.isascii() and character.isprintable():
            return self._token(Kind.OTHER)
        return self._error(f"unrecognized character in action: {code_point(character)}")

    def _space(self) -> Token:
        match = _SPACE_RUN.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
        if self._text.startswith("-" + RIGHT, self._position):
            self._position -= 1  # the last space belongs to the trim marker
        return self._token(Kind.SPACE)

    def _declaration(self) -> Token:
        if not self._text.startswith(":=", self._position):
            return self._error("expected :=")
        self._position += 2
        return self._token(Kind.DECLARE)

    def _quoted(self, quotes: str) -> Token:
        match = _QUOTED[quotes].match(self._text, self._position)
        if not match:
            return self._error(_UNTERMINATED[quotes])
        self._position = match.end()
        return self._token(_QUOTED_KINDS[quotes])

    def _parenthesis(self, character: str) -> Token:
        self._position += 1
        self._depth += 1 if character == "(" else -1
        if self._depth < 0:
            return self._error("unexpected right paren")
        return self._token(Kind.LEFT_PARENTHESIS if character == "(" else Kind.RIGHT_PARENTHESIS)

    def _starts_number(self) -> bool:
        following = self._text[self._position + 1 : self._position + 2]
        return not following or following in "0123456789"

    def _field_or_variable(self, first: str) -> Token:
        self._position += 1
        if first == "." and self._at_terminator():
            return self._token(Kind.DOT)
        if not self._at_terminator():
            self._skip_name()
            if not self._at_terminator():
                return self._error(f"bad character {code_point(self._peek())}")
        return self._token(Kind.FIELD if first == "." else Kind.VARIABLE)

    def _number(self) -> Token:
        if not self._scan_number():
            return self._bad_number()
        if self._peek() not in ("+", "-"):
            return self._token(Kind.NUMBER)
        if not self._scan_number() or self._text[self._position - 1] != "i":
            return self._bad_number()
        return self._token(Kind.COMPLEX)

    def _scan_number(self) -> bool:
        match = _NUMBER.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
        following = self._peek()
        if following and is_letter_or_digit(following):
            self._position += 1
            return False
        return True

    def _bad_number(self) -> Token:
        return self._error(f"bad number syntax: {quote(self._text[self._start : self._position])}")

    def _word(self) -> Token:
        self._skip_name()
        word = self._text[self._start : self._position]
        if not self._at_terminator():
            return self._error(f"bad character {code_point(self._peek())}")
        if word in ("true", "false"):
            return self._token(Kind.BOOL)
        return self._token(_KEYWORDS.get(word, Kind.IDENTIFIER))

    def _skip_name(self) -> None:
        while (character := self._peek()) and is_letter_or_digit(character):
            self._position += 1

    def _skip_spaces(self) -> None:
        if match := _SPACE_RUN.match(self._text, self._position):
            self._position = match.end()

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _at_terminator(self) -> bool:
        character = self._peek()
        if not character or character in _SPACES or character in ".,|:()":
            return True
        return self._text.startswith(RIGHT, self._position)

    def _has_left_trim_marker(self, position: int) -> bool:
        marker = self._text[position : position + 2]
        return len(marker) == 2 and marker[0] == "-" and marker[1] in _SPACES

    def _right_delimiter_length(self) -> int:
        """The length of the right delimiter here, with its trim marker; 0 if there is none."""
        if self._peek() and self._peek() in _SPACES and self._text.startswith("-" + RIGHT, self._position + 1):
            return 2 + len(RIGHT)
        return len(RIGHT) if self._text.startswith(RIGHT, self._position) else 0

    def _token(self, kind: Kind) -> Token:
        text = self._text[self._start : self._position]
        token = Token(kind, self._start, text, self._line_at(self._start))
        self._start = self._position
        return token

    def _error(self, message: str) -> Token:
        token = Token(Kind.ERROR, self._start, message, self._line_at(self._start))
        self._text, self._position, self._start, self._inside_action = "", 0, 0, False
        return token

    def _line_at(self, position: int) -> int:
        if position > self._counted:
            self._line += self._text.count("\n", self._counted, position)
            self._counted = position
        return self._line


class TokenStream:
    """The lexer with up to three tokens of look-ahead, as Go has it."""

    def __init__(self, lexer: Lexer) -> None:
        self._lexer = lexer
        self._pending: list[Token] = []
        self.line = 1
        """Of the token that was read last: what messages name."""

    def next(self) -> Token:
        if self._pending:
            return self._pending.pop()
        token = self._lexer.next_token()
        self.line = token.line
        return token

    def back(self, *tokens: Token) -> None:
        """Puts tokens back, given in the order of the text."""
        self._pending.extend(reversed(tokens))

    def peek(self) -> Token:
        token = self.next()
        self.back(token)
        return token

    def next_non_space(self) -> Token:
        while (token := self.next()).kind is Kind.SPACE:
            pass
        return token

    def peek_non_space(self) -> Token:
        token = self.next_non_space()
        self.back(token)
        return token
