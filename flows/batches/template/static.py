"""The part of a template that can be evaluated before any step has run, by upstream's rules.

Upstream: lib/batches/template/partial_eval.go. Each action is replaced by its text or left alone as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .budget import Budget
from .failures import FunctionFailure
from .functions import OWN, Want
from .literals import INT_MAX
from .printing import sprint
from .syntax import Action, Bool, Chain, Identifier, Node, Number, Operand, Pipe, String, Template, Text
from .values import StringList, is_true, type_name


class _Dynamic(Exception):
    """Not known before the steps run."""


def static_text(template: Template, known: Mapping[str, str]) -> str | None:
    """The template's text if all of it is known now, else None. ``known`` holds the variables as `name.field`."""
    budget = Budget()
    try:
        return "".join(_text(node, known, budget) for node in template.body.nodes)
    except (_Dynamic, FunctionFailure):
        return None


def _text(node: Node, known: Mapping[str, str], budget: Budget) -> str:
    if isinstance(node, Text):
        return node.text
    if isinstance(node, Action):
        return sprint([_pipe(node.pipe, known, budget)], budget)
    raise _Dynamic


def _pipe(pipe: Pipe, known: Mapping[str, str], budget: Budget) -> object:
    if pipe.variables or len(pipe.commands) != 1:
        raise _Dynamic
    command = pipe.commands[0]
    first = command.operands[0]
    if isinstance(first, Identifier):
        return _call(first.name, command.operands[1:], known, budget)
    # A pipeline in parentheses is an argument only, never the whole action.
    if len(command.operands) > 1 or isinstance(first, Pipe):
        raise _Dynamic
    return _operand(first, known, budget)


def _operand(operand: Operand, known: Mapping[str, str], budget: Budget) -> object:
    match operand:
        case Number() if isinstance(operand.value, int) and operand.value > INT_MAX:
            raise _Dynamic
        case Bool() | Number() | String():
            return operand.value
        case Chain(node=Identifier()) if str(operand) in known:
            return known[str(operand)]
        case Pipe():
            return _pipe(operand, known, budget)
    raise _Dynamic


def _call(name: str, operands: Sequence[Operand], known: Mapping[str, str], budget: Budget) -> object:
    arguments = [_operand(operand, known, budget) for operand in operands]
    match name, arguments:
        case "eq", [first, second]:
            return _equal(first, second)
        case "ne", [first, second]:
            return not _equal(first, second)
        case "not", [value]:
            return not is_true(value)
    if name not in OWN or not _fit(name, arguments):
        raise _Dynamic
    return OWN[name].call(budget, *arguments)


def _equal(first: object, second: object) -> bool:
    """Go's == of two interfaces: other types are unequal, lists cannot be compared."""
    if type_name(first) != type_name(second):
        return False
    if isinstance(first, StringList):
        raise _Dynamic
    return first == second


def _fit(name: str, arguments: Sequence[object]) -> bool:
    function = OWN[name]
    fixed = len(function.parameters)
    if len(arguments) < fixed or (len(arguments) > fixed and function.rest is None):
        return False
    wants = [*function.parameters, *([function.rest] * (len(arguments) - fixed))]
    types = {Want.STRING: str, Want.STRINGS: StringList}
    return all(
        want is not None and isinstance(value, types[want]) for want, value in zip(wants, arguments, strict=True)
    )
