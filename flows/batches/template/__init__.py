"""The ${{ }} language: Go's text/template with upstream's functions, parsed and evaluated here.

Public: the contexts, rendering, checking, what a template reads, and upstream's whole-spec dry run.
All errors are TemplateError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import TemplateError
from .analysis import names_read
from .contexts import (
    Bindings,
    ChangesetContext,
    ContextKind,
    StepContext,
    StepState,
    bind_changeset,
    bind_step,
)
from .dry_run import dry_run
from .failures import EvaluationFailure, ParseFailure
from .lexer import LEFT
from .parser import parse_template
from .rendering import render
from .static import static_text
from .syntax import Template
from .text import trim_space

__all__ = [
    "ChangesetContext",
    "ContextKind",
    "StepContext",
    "StepState",
    "Template",
    "check",
    "dry_run",
    "parse",
    "render_changeset",
    "render_step",
    "static_text",
    "trim_space",
    "variables",
]

_LONGEST_MESSAGE = 500


def parse(text: str, kind: ContextKind, field: str = "") -> Template:
    """The syntax tree of a template. ``field`` is the path of the text in the spec. Raises TemplateError."""
    with _template_errors(text, field):
        return parse_template(text, kind.functions, field or "template")


def check(text: str, kind: ContextKind, field: str = "") -> None:
    """Whether the template parses. Raises TemplateError."""
    parse(text, kind, field)


def render_step(text: str, context: StepContext, field: str = "") -> str:
    """A step's template as text. Raises TemplateError."""
    if LEFT not in text:
        return text
    return _render(text, ContextKind.STEP, bind_step(context), field)


def render_changeset(text: str, context: ChangesetContext, field: str = "") -> str:
    """A changeset template's field as text, trimmed at both ends. Raises TemplateError."""
    return trim_space(_render(text, ContextKind.CHANGESET, bind_changeset(context), field))


def variables(text: str, kind: ContextKind, field: str = "") -> frozenset[str]:
    """What the template reads: `previous_step.stdout`, `outputs.version`; a bare `outputs` stands for all its fields.

    Raises TemplateError.
    """
    return names_read(parse(text, kind, field), kind.variables)


def _render(text: str, kind: ContextKind, bindings: Bindings, field: str) -> str:
    template = parse(text, kind, field)
    with _template_errors(text, field):
        return render(template, bindings.functions, bindings.dot)


def _cut(message: str) -> str:
    """Messages can quote any amount of the spec or of a value."""
    return message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "…"


@contextmanager
def _template_errors(text: str, field: str) -> Iterator[None]:
    try:
        yield
    except ParseFailure as failure:
        raise TemplateError(_cut(failure.message), field=field, line=failure.line) from failure
    except EvaluationFailure as failure:
        line = text.count("\n", 0, failure.position) + 1
        message = f"at <{_cut(failure.context)}>: {_cut(failure.message)}"
        raise TemplateError(message, field=field, line=line) from failure
    except RecursionError as error:
        raise TemplateError("the template or a value in it nests too deeply", field=field) from error
