"""Tokens to a syntax tree, as Go's text/template/parse/parse.go does, with its messages.

Refuses what nests deeper than Python's stack should go: Go's own limits are far higher.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NoReturn

from . import literals
from .failures import ParseFailure
from .lexer import Kind, Lexer, Token, TokenStream
from .syntax import (
    Action,
    Body,
    Bool,
    Break,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Identifier,
    If,
    Nil,
    Node,
    Number,
    Operand,
    Pipe,
    Range,
    String,
    Template,
    TemplateCall,
    Text,
    Variable,
    With,
)
from .text import quote

MAX_DEPTH = 100
"""Blocks and parentheses inside each other."""
MAX_VARIABLES = 1000
"""Variables that are visible at one place."""

_OPERAND_STARTS = frozenset(
    {
        Kind.BOOL,
        Kind.CHARACTER,
        Kind.COMPLEX,
        Kind.DOT,
        Kind.FIELD,
        Kind.IDENTIFIER,
        Kind.NUMBER,
        Kind.NIL,
        Kind.RAW_STRING,
        Kind.STRING,
        Kind.VARIABLE,
        Kind.LEFT_PARENTHESIS,
    }
)
_Block = Literal["if", "with", "range"]
_End = Literal["{{end}}", "{{else}}"]


def parse_template(text: str, functions: frozenset[str], name: str) -> Template:
    """The tree of a text. ``functions`` are the names that exist; ``name`` is the text's name in messages.

    Raises ParseFailure.
    """
    definitions: dict[str, Body] = {}
    body = _Parser(TokenStream(Lexer(text)), functions, name, definitions).template()
    return Template(text, body, definitions)


class _Parser:
    """The body of one template: the text itself, a `define` or a `block`; they share all but the variables."""

    def __init__(self, tokens: TokenStream, functions: frozenset[str], name: str, definitions: dict[str, Body]) -> None:
        self._tokens = tokens
        self._functions = functions
        self._name = name
        self._definitions = definitions
        self._variables = ["$"]
        self._range_depth = 0
        self._depth = 0
        self._action_line = 0

    def template(self) -> Body:
        nodes: list[Node] = []
        while (token := self._tokens.peek()).kind is not Kind.EOF:
            if token.kind is Kind.LEFT_DELIMITER and self._definition():
                continue
            node = self._text_or_action()
            if isinstance(node, str):
                self._fail(f"unexpected {node}")
            nodes.append(node)
        return Body(tuple(nodes))

    def _definition(self) -> bool:
        """Takes a `define` if there is one."""
        delimiter = self._tokens.next()
        keyword = self._tokens.next_non_space()
        if keyword.kind is not Kind.DEFINE:
            self._tokens.back(delimiter, keyword)
            return False
        where = "define clause"
        name = self._string(self._expect((Kind.STRING, Kind.RAW_STRING), where))
        self._expect((Kind.RIGHT_DELIMITER,), where)
        self._define(name, where)
        return True

    def _define(self, name: str, where: str) -> None:
        outer = self._variables, self._range_depth, self._action_line
        self._variables, self._range_depth, self._action_line = ["$"], 0, 0
        body, end = self._body()
        self._variables, self._range_depth, self._action_line = outer
        if end != "{{end}}":
            self._fail(f"unexpected {end} in {where}")
        existing = self._definitions.get(name)
        if existing is None or existing.is_empty:
            self._definitions[name] = body
        elif not body.is_empty:
            self._fail(f'template: multiple definition of template "{name}"')

    def _body(self) -> tuple[Body, _End]:
        nodes: list[Node] = []
        while self._tokens.peek_non_space().kind is not Kind.EOF:
            node = self._text_or_action()
            if isinstance(node, str):
                return Body(tuple(nodes)), node
            nodes.append(node)
        self._fail("unexpected EOF")

    def _text_or_action(self) -> Node | _End:
        token = self._tokens.next_non_space()
        if token.kind is Kind.TEXT:
            return Text(token.position, token.text)
        if token.kind is not Kind.LEFT_DELIMITER:
            self._unexpected(token, "input")
        self._action_line = token.line
        with self._nested("blocks nest too deeply"):
            node = self._action()
        self._action_line = 0
        return node

    def _action(self) -> Node | _End:
        token = self._tokens.next_non_space()
        match token.kind:
            case Kind.BLOCK:
                return self._block(self._tokens.next_non_space())
            case Kind.BREAK | Kind.CONTINUE:
                return self._jump(token)
            case Kind.ELSE:
                return self._else()
            case Kind.END:
                self._expect((Kind.RIGHT_DELIMITER,), "end")
                return "{{end}}"
            case Kind.IF:
                return self._if()
            case Kind.RANGE:
                return self._range()
            case Kind.TEMPLATE:
                return self._template_call(self._tokens.next_non_space())
            case Kind.WITH:
                return self._with()
        self._tokens.back(token)
        return Action(token.position, self._pipeline("command", Kind.RIGHT_DELIMITER))

    def _jump(self, keyword: Token) -> Node:
        word = f"{{{{{keyword.text}}}}}"
        following = self._tokens.next_non_space()
        if following.kind is not Kind.RIGHT_DELIMITER:
            self._unexpected(following, word)
        if not self._range_depth:
            self._fail(f"{word} outside {{{{range}}}}")
        return Break(keyword.position) if keyword.kind is Kind.BREAK else Continue(keyword.position)

    def _else(self) -> _End:
        # `else if` and `else with` leave their second word for the block that they belong to.
        if self._tokens.peek_non_space().kind not in (Kind.IF, Kind.WITH):
            self._expect((Kind.RIGHT_DELIMITER,), "else")
        return "{{else}}"

    def _if(self) -> If:
        return If(*self._control("if"))

    def _with(self) -> With:
        return With(*self._control("with"))

    def _range(self) -> Range:
        return Range(*self._control("range"))

    def _control(self, block: _Block) -> tuple[int, Pipe, Body, Body | None]:
        visible = len(self._variables)
        pipe = self._pipeline(block, Kind.RIGHT_DELIMITER)
        self._range_depth += block == "range"
        body, end = self._body()
        self._range_depth -= block == "range"
        otherwise = self._otherwise(block) if end == "{{else}}" else None
        del self._variables[visible:]
        return pipe.position, pipe, body, otherwise

    def _otherwise(self, block: _Block) -> Body:
        following = self._tokens.peek()
        if (block, following.kind) in (("if", Kind.IF), ("with", Kind.WITH)):
            self._tokens.next()
            with self._nested("blocks nest too deeply"):
                return Body((self._if() if block == "if" else self._with(),))
        body, end = self._body()
        if end != "{{end}}":
            self._fail(f"expected end; found {end}")
        return body

    def _block(self, name_token: Token) -> TemplateCall:
        where = "block clause"
        name = self._template_name(name_token, where)
        pipe = self._pipeline(where, Kind.RIGHT_DELIMITER)
        self._define(name, where)
        return TemplateCall(name_token.position, name, pipe)

    def _template_call(self, name_token: Token) -> TemplateCall:
        where = "template clause"
        name = self._template_name(name_token, where)
        following = self._tokens.next_non_space()
        if following.kind is Kind.RIGHT_DELIMITER:
            return TemplateCall(name_token.position, name, None)
        self._tokens.back(following)
        return TemplateCall(name_token.position, name, self._pipeline(where, Kind.RIGHT_DELIMITER))

    def _template_name(self, token: Token, where: str) -> str:
        if token.kind not in (Kind.STRING, Kind.RAW_STRING):
            self._unexpected(token, where)
        return self._string(token)

    def _pipeline(self, where: str, end: Kind) -> Pipe:
        position = self._tokens.peek_non_space().position
        variables, assigns = self._declarations(where)
        commands: list[Command] = []
        while (token := self._tokens.next_non_space()).kind is not end:
            if token.kind not in _OPERAND_STARTS:
                self._unexpected(token, where)
            self._tokens.back(token)
            commands.append(self._command())
        self._check_pipeline(commands, where)
        return Pipe(position, variables, assigns, tuple(commands))

    def _declarations(self, where: str) -> tuple[tuple[Variable, ...], bool]:
        """`$x :=`, `$x =`, `$i, $v :=`, or nothing; and whether it assigns."""
        declared: list[Variable] = []
        while (variable := self._tokens.peek_non_space()).kind is Kind.VARIABLE:
            self._tokens.next()
            after = self._tokens.next()
            following = self._tokens.next_non_space() if after.kind is Kind.SPACE else after
            if following.kind in (Kind.ASSIGN, Kind.DECLARE):
                declared.append(self._declare(variable))
                return tuple(declared), following.kind is Kind.ASSIGN
            if following.kind is not Kind.OTHER or following.text != ",":
                self._tokens.back(*((variable, after, following) if after is not following else (variable, after)))
                break
            declared.append(self._declare(variable))
            self._check_second_variable(where, len(declared))
        return tuple(declared), False

    def _check_second_variable(self, where: str, declared: int) -> None:
        if where != "range" or declared >= 2:
            self._fail(f"too many declarations in {where}")
        following = self._tokens.peek_non_space()
        if following.kind not in (Kind.VARIABLE, Kind.RIGHT_DELIMITER, Kind.RIGHT_PARENTHESIS):
            self._fail("range can only initialize variables")

    def _declare(self, token: Token) -> Variable:
        if len(self._variables) > MAX_VARIABLES:
            self._fail(f"more than {MAX_VARIABLES} variables")
        self._variables.append(token.text)
        return Variable(token.position, (token.text,))

    def _check_pipeline(self, commands: list[Command], where: str) -> None:
        if not commands:
            self._fail(f"missing value for {where}")
        for stage, command in enumerate(commands[1:], start=2):
            if isinstance(command.operands[0], Bool | Dot | Nil | Number | String):
                self._fail(f"non executable command in pipeline stage {stage}")

    def _command(self) -> Command:
        position = self._tokens.peek_non_space().position
        operands: list[Operand] = []
        while True:
            self._tokens.peek_non_space()
            operand = self._operand()
            if operand is not None:
                operands.append(operand)
            token = self._tokens.next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT_DELIMITER, Kind.RIGHT_PARENTHESIS):
                self._tokens.back(token)
            elif token.kind is not Kind.PIPE:
                self._unexpected(token, "operand")
            break
        if not operands:
            self._fail("empty command")
        return Command(position, tuple(operands))

    def _operand(self) -> Operand | None:
        term = self._term()
        if term is None or self._tokens.peek().kind is not Kind.FIELD:
            return term
        position = self._tokens.peek().position
        names: list[str] = []
        while self._tokens.peek().kind is Kind.FIELD:
            names.append(self._tokens.next().text[1:])
        if isinstance(term, Field):
            return Field(position, (*term.names, *names))
        if isinstance(term, Variable):
            return Variable(position, (*term.names, *names))
        if isinstance(term, Bool | String | Number | Nil | Dot):
            self._fail(f"unexpected . after term {quote(str(term))}")
        return Chain(position, term, tuple(names))

    def _term(self) -> Operand | None:
        token = self._tokens.next_non_space()
        match token.kind:
            case Kind.IDENTIFIER:
                if token.text not in self._functions:
                    self._fail(f'function "{token.text}" not defined')
                return Identifier(token.position, token.text)
            case Kind.DOT:
                return Dot(token.position)
            case Kind.NIL:
                return Nil(token.position)
            case Kind.VARIABLE:
                return self._use_variable(token)
            case Kind.FIELD:
                return Field(token.position, (token.text[1:],))
            case Kind.BOOL:
                return Bool(token.position, token.text == "true")
            case Kind.CHARACTER | Kind.COMPLEX | Kind.NUMBER:
                return self._number(token)
            case Kind.LEFT_PARENTHESIS:
                with self._nested("max expression depth exceeded"):
                    return self._pipeline("parenthesized pipeline", Kind.RIGHT_PARENTHESIS)
            case Kind.STRING | Kind.RAW_STRING:
                return String(token.position, token.text, self._string(token))
        self._tokens.back(token)
        return None

    def _use_variable(self, token: Token) -> Variable:
        if token.text not in self._variables:
            self._fail(f'undefined variable "{token.text}"')
        return Variable(token.position, (token.text,))

    def _number(self, token: Token) -> Number:
        read = {Kind.CHARACTER: literals.character, Kind.COMPLEX: literals.complex_number, Kind.NUMBER: literals.number}
        try:
            return Number(token.position, token.text, read[token.kind](token.text))
        except literals.LiteralError as error:
            self._fail(str(error))

    def _string(self, token: Token) -> str:
        try:
            return literals.unquote(token.text)
        except literals.LiteralError as error:
            self._fail(str(error))

    def _expect(self, kinds: tuple[Kind, ...], where: str) -> Token:
        token = self._tokens.next_non_space()
        if token.kind not in kinds:
            self._unexpected(token, where)
        return token

    def _unexpected(self, token: Token, where: str) -> NoReturn:
        if token.kind is not Kind.ERROR:
            self._fail(f"unexpected {token} in {where}")
        started = ""
        if self._action_line not in (0, token.line):
            started = f" in action started at {self._name}:{self._action_line}"
            if token.text.endswith(" action"):
                started = started.removeprefix(" in action")
        self._fail(token.text + started)

    def _fail(self, message: str) -> NoReturn:
        raise ParseFailure(message, self._tokens.line)

    @contextmanager
    def _nested(self, complaint: str) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"{complaint}: more than {MAX_DEPTH} levels")
        yield
        self._depth -= 1
