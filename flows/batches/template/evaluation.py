"""Pipelines to values, as Go's text/template/exec.go does with the option missingkey=error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from .budget import Budget
from .failures import EvaluationFailure, FunctionFailure
from .functions import Function, Want
from .literals import INT_MAX
from .syntax import (
    Bool,
    Chain,
    Command,
    Dot,
    Field,
    Identifier,
    Nil,
    Number,
    Operand,
    Pipe,
    String,
    TemplateCall,
    Variable,
)
from .text import quote
from .values import Boxed, SearchResultPaths, StringList, Struct, is_true, type_name, unbox

_Term = Field | Chain | Identifier | Variable
_Place = Operand | Command | TemplateCall


class _Missing:
    """What precedes the first command of a pipeline."""


_MISSING = _Missing()


class Evaluator:
    """The state of one template while it runs: its variables, and the node that messages point at.

    Every method that evaluates raises EvaluationFailure.
    """

    def __init__(self, functions: Mapping[str, Function], budget: Budget, template: str, dot: object) -> None:
        self._functions = functions
        self._budget = budget
        self._template = template
        self._variables: list[tuple[str, object]] = [("$", dot)]
        self._place: _Place | None = None

    def fail(self, message: str) -> NoReturn:
        """Stops the template at the node at hand."""
        position = self._place.position if self._place else 0
        raise EvaluationFailure(message, str(self._place or ""), position, self._template)

    def at(self, place: _Place) -> None:
        """Says which node is at hand."""
        self._place = place
        self.spend()

    def spend(self, nodes: int = 1) -> None:
        """Says that nodes are evaluated, or entries visited."""
        try:
            self._budget.spend_nodes(nodes)
        except FunctionFailure as error:
            self.fail(error.message)

    def mark(self) -> int:
        """Where the variables end now."""
        return len(self._variables)

    def forget(self, mark: int) -> None:
        """Drops the variables declared since the mark."""
        del self._variables[mark:]

    def assign(self, name: str, value: object) -> None:
        """Gives the youngest variable of that name a new value."""
        self._variables[self._find(name)] = name, value

    def set_top(self, depth: int, value: object) -> None:
        """Gives the youngest variable (``depth`` 1) or the one before it (2) a new value."""
        self._variables[-depth] = self._variables[-depth][0], value

    def pipeline(self, dot: object, pipe: Pipe | None) -> object:
        """The value of a pipeline, never boxed; the variables that it declares stay."""
        if pipe is None:
            return None
        self.at(pipe)
        value: object = _MISSING
        for command in pipe.commands:
            value = unbox(self._command(dot, command, value))
        for variable in pipe.variables:
            if pipe.assigns:
                self.assign(variable.names[0], value)
            else:
                self._variables.append((variable.names[0], value))
        return value

    def _find(self, name: str) -> int:
        for index in range(len(self._variables) - 1, -1, -1):
            if self._variables[index][0] == name:
                return index
        self.fail(f"undefined variable: {name}")

    def _command(self, dot: object, command: Command, final: object) -> object:
        first, arguments = command.operands[0], command.operands[1:]
        if isinstance(first, _Term):
            return self._term(dot, first, command, arguments, final)
        if isinstance(first, Pipe):
            self._refuse_arguments(first, arguments, final)
            return self.pipeline(dot, first)
        self.at(first)
        self._refuse_arguments(first, arguments, final)
        if isinstance(first, Nil):
            self.fail("nil is not a command")
        return dot if isinstance(first, Dot) else self._literal(first)

    def _term(self, dot: object, node: _Term, place: _Place, arguments: Sequence[Operand], final: object) -> object:
        """What can take arguments. ``place`` is where a failing function is reported."""
        self.at(node)
        match node:
            case Identifier():
                return self._function(dot, node, place, arguments, final)
            case Field():
                return self._fields(dot, node, node.names, arguments, final)
            case Chain():
                return self._fields(self._untyped(dot, node.node), node, node.fields, arguments, final)
        value = self._variables[self._find(node.names[0])][1]
        if len(node.names) > 1:
            return self._fields(value, node, node.names[1:], arguments, final)
        self._refuse_arguments(node, arguments, final)
        return value

    def _untyped(self, dot: object, node: Operand) -> object:
        self.at(node)
        if isinstance(node, Identifier):
            return self._function(dot, node, node, (), _MISSING)
        assert isinstance(node, Pipe), "the parser makes chains of functions and pipelines only"
        return self.pipeline(dot, node)

    def _refuse_arguments(self, node: Operand, arguments: Sequence[Operand], final: object) -> None:
        if arguments or final is not _MISSING:
            self.fail(f"can't give argument to non-function {node}")

    def _literal(self, node: Operand) -> object:
        assert isinstance(node, Bool | Number | String)
        if isinstance(node, Number) and isinstance(node.value, int) and node.value > INT_MAX:
            self.fail(f"{node} overflows int")
        return node.value

    def _fields(
        self, receiver: object, node: _Term, names: Sequence[str], arguments: Sequence[Operand], final: object
    ) -> object:
        for index, name in enumerate(names):
            is_last = index == len(names) - 1
            given = len(arguments) + (final is not _MISSING) if is_last else 0
            receiver = self._field(receiver, name, given, _safe_form(node, index))
        return receiver

    def _field(self, receiver: object, name: str, given: int, safe_form: str) -> object:
        """One field, method or map entry. ``given`` counts the arguments: nothing here takes any."""
        value = unbox(receiver)
        if value is None:
            self.fail(
                f"nil pointer evaluating interface {{}}.{name}"
                if isinstance(receiver, Boxed)
                else f"nil data; no entry for key {quote(name)}"
            )
        method = value.methods.get(name) if isinstance(value, Struct) else None
        if isinstance(value, SearchResultPaths) and name == "String":
            method = value.__str__
        if method:
            if given:
                self.fail(f"wrong number of args for {name}: want 0 got {given}")
            return method()
        if isinstance(value, Struct) and name in value.fields:
            if given:
                self.fail(f"{name} has arguments but cannot be invoked as function")
            return value.fields[name]
        if isinstance(value, Mapping):
            if given:
                self.fail(f"{name} is not a method but has arguments")
            if name in value:
                return Boxed(value[name])
            self.fail(f"map has no entry for key {quote(name)}{safe_form}")
        self.fail(f"can't evaluate field {name} in type {type_name(receiver)}")

    def _function(
        self, dot: object, node: Identifier, place: _Place, arguments: Sequence[Operand], final: object
    ) -> object:
        match node.name:
            case "and" | "or":
                return self._logic(dot, node.name, arguments, final)
            case "call":
                return self._call(dot, place, arguments, final)
        function = self._functions[node.name]
        values = self._arguments(dot, node.name, function.parameters, function.rest, arguments, final)
        try:
            return function.call(self._budget, *values)
        except FunctionFailure as error:
            self._place = place
            self.fail(f"error calling {node.name}: {error.message}")

    def _logic(self, dot: object, name: str, arguments: Sequence[Operand], final: object) -> object:
        """`and` and `or`: the first operand that decides, else the last one; what follows it is not evaluated."""
        self._check_count(name, 1, at_least=True, arguments=arguments, final=final)
        value: object = None
        for argument in arguments:
            value = self._argument(dot, Want.VALUE, argument)
            if is_true(value) == (name == "or"):
                return value
        return value if final is _MISSING else final

    def _call(self, dot: object, place: _Place, arguments: Sequence[Operand], final: object) -> NoReturn:
        """`call`: there are no values here that could be called."""
        called = unbox(self._arguments(dot, "call", (Want.VALUE,), Want.VALUE, arguments, final)[0])
        self._place = place
        if called is None:
            self.fail("error calling call: call of nil")
        piped = called if isinstance(called, str) else f"<{type_name(called)} Value>"
        shown = str(arguments[0]) if arguments else piped
        self.fail(f"error calling call: non-function {shown} of type {type_name(called)}")

    def _arguments(
        self,
        dot: object,
        name: str,
        parameters: Sequence[Want],
        rest: Want | None,
        arguments: Sequence[Operand],
        final: object,
    ) -> list[object]:
        self._check_count(name, len(parameters), at_least=rest is not None, arguments=arguments, final=final)
        count = len(arguments) + (final is not _MISSING)
        wants = [*parameters, *([rest] if rest else []) * (count - len(parameters))]
        values = [self._argument(dot, want, node) for want, node in zip(wants, arguments, strict=False)]
        if final is not _MISSING:
            values.append(self._fitting(final, wants[-1]))
        return values

    def _check_count(
        self, name: str, wanted: int, *, at_least: bool, arguments: Sequence[Operand], final: object
    ) -> None:
        given = len(arguments) + (final is not _MISSING)
        if at_least and given < wanted:
            self.fail(f"wrong number of args for {name}: want at least {wanted} got {len(arguments)}")
        if not at_least and given != wanted:
            self.fail(f"wrong number of args for {name}: want {wanted} got {given}")

    def _argument(self, dot: object, want: Want, node: Operand) -> object:
        self.at(node)
        match node:
            case Nil() if want is Want.STRING:
                self.fail("cannot assign nil to string")
            case Nil():
                return self._fitting(None, want)
            case Dot():
                return self._fitting(dot, want)
            case Pipe():
                return self._fitting(self.pipeline(dot, node), want)
            case Field() | Chain() | Identifier() | Variable():
                return self._fitting(self._term(dot, node, node, (), _MISSING), want)
        if want is Want.STRING and not isinstance(node, String):
            self.fail(f"expected string; found {node}")
        if want is Want.STRINGS:
            self.fail(f"can't handle {node} for arg of type []string")
        return self._literal(node)

    def _fitting(self, value: object, want: Want) -> object:
        """The value as the parameter takes it."""
        if want is Want.VALUE:
            return value
        bare = unbox(value)
        if want is Want.ANY:
            return bare
        if value is None and want is Want.STRING:
            self.fail("invalid value; expected string")
        if value is None:
            return StringList()
        if not isinstance(bare, str if want is Want.STRING else StringList):
            found = type_name(value if bare is None else bare)
            self.fail(f"wrong type for value; expected {want.value}; got {found}")
        return bare


def _safe_form(node: _Term, index: int) -> str:
    """What to write instead of `outputs.x` when x may be missing: said in the message about it."""
    if not isinstance(node, Chain) or str(node.node) != "outputs":
        return ""
    keys = " ".join(quote(name) for name in node.fields[: index + 1])
    return f"; write index outputs {keys} where it may be missing"
