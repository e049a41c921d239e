"""Upstream's check of a whole spec's text: one template with empty contexts, without the actions it cannot judge.

Kept for talking to an instance; specs that run here are checked field by field instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import TemplateError
from .contexts import Bindings, ChangesetContext, ContextKind, StepContext, bind_changeset, bind_step
from .failures import EvaluationFailure, ParseFailure
from .lexer import LEFT, RIGHT
from .parser import parse_template
from .rendering import render
from .text import byte_length

_NAME = "validateBatchSpecTemplate"
_PREFIX = "validating batch spec template: "
_ANY = re.compile(re.escape(LEFT))
_INDEX = re.compile(re.escape(LEFT) + r"[ \t\n\f\r]*index", re.IGNORECASE)
_UNKNOWN_FUNCTION = re.compile(r'function "([^"]+)" not defined')
_UNKNOWN_KEY = re.compile(r'at <([^>]+)>:.*for key "([^"]+)"')


def dry_run(text: str) -> None:
    """Checks the text of a whole spec, comments included. Raises TemplateError with upstream's message."""
    text = _without_actions(text, _ANY, containing="outputs.")
    text = _without_actions(text, _INDEX)
    bindings = _empty_bindings()
    try:
        template = parse_template(text, frozenset(bindings.functions) | ContextKind.STEP.functions, _NAME)
        render(template, bindings.functions, bindings.dot)
    except ParseFailure as failure:
        raise _parse_error(failure) from failure
    except EvaluationFailure as failure:
        raise _evaluation_error(failure, text) from failure
    except RecursionError as error:
        raise TemplateError(_PREFIX + "the template nests too deeply") from error


def _without_actions(text: str, opening: re.Pattern[str], containing: str = "") -> str:
    """The text without the actions that begin with ``opening`` and contain a word.

    The same language as upstream's regular expressions, `\\$\\{\\{[^}]*…[^}]*\\}\\}`, in linear time.
    """
    kept: list[str] = []
    position = 0
    for start, end in _actions(text, opening):
        if start >= position and containing in text[start:end].lower():
            kept.append(text[position:start])
            position = end
    return "".join((*kept, text[position:]))


def _actions(text: str, opening: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Where actions without a brace inside begin and end; of those that end together the first."""
    position = 0
    while match := opening.search(text, position):
        brace = text.find("}", match.end())
        if brace < 0:
            return
        if text.startswith(RIGHT, brace):
            yield match.start(), brace + len(RIGHT)
        position = brace


def _empty_bindings() -> Bindings:
    step, changeset = bind_step(StepContext()), bind_changeset(ChangesetContext())
    return Bindings({**step.functions, **changeset.functions}, step.dot)


def _parse_error(failure: ParseFailure) -> TemplateError:
    if match := _UNKNOWN_FUNCTION.search(failure.message):
        return _unknown(match[1], failure.line)
    return TemplateError(f"{_PREFIX}template: {_NAME}:{failure.line}: {failure.message}", line=failure.line)


def _evaluation_error(failure: EvaluationFailure, text: str) -> TemplateError:
    line = text.count("\n", 0, failure.position) + 1
    column = byte_length(text[text.rfind("\n", 0, failure.position) + 1 : failure.position])
    message = f"at <{failure.context}>: {failure.message}"
    if match := _UNKNOWN_KEY.search(message):
        return _unknown(f"{match[1]}.{match[2]}", line)
    name = failure.template or _NAME
    return TemplateError(f'{_PREFIX}template: {_NAME}:{line}:{column}: executing "{name}" {message}', line=line)


def _unknown(name: str, line: int) -> TemplateError:
    return TemplateError(f"{_PREFIX}unknown templating variable: '{name}'", line=line)
