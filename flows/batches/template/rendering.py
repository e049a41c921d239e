"""Templates to text: the control structures around the pipelines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .budget import Budget, TextBuilder
from .evaluation import Evaluator
from .failures import FunctionFailure
from .functions import Function
from .printing import sprint, verbatim
from .syntax import Action, Body, Break, Continue, If, Node, Range, Template, TemplateCall, Text, With
from .text import quote
from .values import Boxed, Byte, element, followed, is_true, sorted_entries

MAX_TEMPLATE_DEPTH = 100
"""Calls of templates inside each other."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


def render(template: Template, functions: Mapping[str, Function], dot: object) -> str:
    """The text that a template gives. ``functions`` holds every name that it was parsed with.

    Raises EvaluationFailure; RecursionError for values and blocks that nest deeper than Python's stack goes.
    """
    return _Renderer(template, functions).render(dot)


class _Renderer:
    def __init__(self, template: Template, functions: Mapping[str, Function]) -> None:
        self._template = template
        self._functions = functions
        self._budget = Budget()
        self._output = TextBuilder(self._budget)
        self._depth = 0

    def render(self, dot: object) -> str:
        evaluator = Evaluator(self._functions, self._budget, "", dot)
        self._body(evaluator, dot, self._template.body)
        return self._output.text()

    def _body(self, evaluator: Evaluator, dot: object, body: Body) -> None:
        for node in body.nodes:
            evaluator.spend()
            self._node(evaluator, dot, node)

    def _node(self, evaluator: Evaluator, dot: object, node: Node) -> None:
        match node:
            case Text():
                self._write(evaluator, node.text)
            case Action():
                value = evaluator.pipeline(dot, node.pipe)
                if not node.pipe.variables:
                    self._print(evaluator, value)
            case If() | With():
                self._choose(evaluator, dot, node)
            case Range():
                self._range(evaluator, dot, node)
            case TemplateCall():
                self._call(evaluator, dot, node)
            case Break():
                raise _Break
            case Continue():
                raise _Continue

    def _print(self, evaluator: Evaluator, value: object) -> None:
        if value is None:
            self._write(evaluator, "<no value>")
            return
        try:
            shown = sprint([followed(value)], self._budget)
        except FunctionFailure as error:
            evaluator.fail(error.message)
        self._write(evaluator, shown)

    def _write(self, evaluator: Evaluator, text: str) -> None:
        try:
            self._output.write(text)
        except FunctionFailure as error:
            evaluator.fail(error.message)

    def _choose(self, evaluator: Evaluator, dot: object, node: If | With) -> None:
        mark = evaluator.mark()
        value = evaluator.pipeline(dot, node.pipe)
        try:
            if is_true(value):
                self._body(evaluator, value if isinstance(node, With) else dot, node.body)
            elif node.otherwise is not None:
                self._body(evaluator, dot, node.otherwise)
        finally:
            evaluator.forget(mark)

    def _range(self, evaluator: Evaluator, dot: object, node: Range) -> None:
        mark = evaluator.mark()
        try:
            value = evaluator.pipeline(dot, node.pipe)
            entries = self._entries(evaluator, node, value)
            if entries is not None:
                self._iterate(evaluator, node, entries)
            elif node.otherwise is not None:
                self._body(evaluator, dot, node.otherwise)
        except _Break:
            pass
        finally:
            evaluator.forget(mark)

    def _entries(self, evaluator: Evaluator, node: Range, value: object) -> Iterable[tuple[object, object]] | None:
        """Keys and elements of what is ranged over; None if it is empty."""
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipe.variables) > 1:
                evaluator.fail(f"can't use {value} to iterate over more than one variable")
            of_kind = type(value) if isinstance(value, Byte) else int
            return ((None, of_kind(index)) for index in range(value)) if value > 0 else None
        if isinstance(value, list | tuple):
            return ((index, element(value, index)) for index in range(len(value))) if value else None
        if isinstance(value, Mapping):
            evaluator.spend(len(value))
            return ((key, Boxed(item)) for key, item in sorted_entries(value)) if value else None
        if value is None:
            return None
        evaluator.fail(f"range can't iterate over {verbatim(followed(value))}")

    def _iterate(self, evaluator: Evaluator, node: Range, entries: Iterable[tuple[object, object]]) -> None:
        mark = evaluator.mark()
        for key, item in entries:
            evaluator.spend()
            self._bind(evaluator, node, key, item)
            try:
                self._body(evaluator, item, node.body)
            except _Continue:
                pass
            finally:
                evaluator.forget(mark)

    def _bind(self, evaluator: Evaluator, node: Range, key: object, item: object) -> None:
        """Gives the variables of a range their values: the last one takes the element, one before it the key."""
        bound = list(zip(reversed(node.pipe.variables), (item, key), strict=False))
        for depth, (variable, value) in reversed(list(enumerate(bound, start=1))):
            if node.pipe.assigns:
                evaluator.assign(variable.names[0], value)
            else:
                evaluator.set_top(depth, value)

    def _call(self, evaluator: Evaluator, dot: object, node: TemplateCall) -> None:
        evaluator.at(node)
        body = self._template.definitions.get(node.name)
        if body is None:
            evaluator.fail(f"template {quote(node.name)} not defined")
        if self._depth == MAX_TEMPLATE_DEPTH:
            evaluator.fail(f"exceeded maximum template depth ({MAX_TEMPLATE_DEPTH})")
        value = evaluator.pipeline(dot, node.pipe)
        self._depth += 1
        self._body(Evaluator(self._functions, self._budget, node.name, value), value, body)
        self._depth -= 1
