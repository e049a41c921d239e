"""`if`: whether its rendered text is true, and what can be said about it before anything runs.

Upstream: lib/batches/template/templating.go, EvalStepCondition, and partial_eval.go, IsStaticBool.
"""

from __future__ import annotations

from collections.abc import Sequence

from .template import ContextKind, parse, static_text, trim_space


def is_true(rendered: str) -> bool:
    """Whether a rendered condition lets its step run: nothing but `true`, with white space around it."""
    return trim_space(rendered) == "true"


def evaluate_static(
    condition: str,
    *,
    repository_name: str,
    batch_change_name: str,
    batch_change_description: str,
    field: str = "if",
) -> bool | None:
    """What a condition comes to in every workspace of a repository; None if only the running step can tell.

    An empty condition is always true. Raises TemplateError if the condition does not parse.
    """
    if not condition:
        return True
    known = {
        "repository.name": repository_name,
        "batch_change.name": batch_change_name,
        "batch_change.description": batch_change_description,
    }
    text = static_text(parse(condition, ContextKind.STEP, field), known)
    return None if text is None else is_true(text)


def skipped_steps(
    conditions: Sequence[str], *, repository_name: str, batch_change_name: str, batch_change_description: str
) -> frozenset[int]:
    """The indexes of the steps that no workspace of the repository has to run. Raises TemplateError, as above."""
    return frozenset(
        index
        for index, condition in enumerate(conditions)
        if evaluate_static(
            condition,
            repository_name=repository_name,
            batch_change_name=batch_change_name,
            batch_change_description=batch_change_description,
            field=f"steps.{index}.if",
        )
        is False
    )
