"""condition_eval: what an `if` comes to before anything runs, and in a step's context."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.conditions import evaluate_static, is_true
from flows.batches.errors import TemplateError
from flows.batches.template import StepContext, render_step
from tests.template_contexts import step_context

_PLANS = {True: "static-true", False: "static-false", None: "dynamic"}


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"if", "context"}, f"unknown input {sorted(input)}"
    assert {"plan", "runtime"} <= set(expect) <= {"plan", "runtime", "runtime_error"}, f"unknown form {sorted(expect)}"
    context, condition = step_context(vectors, input["context"]), input["if"]

    assert _plan(condition, context) == expect["plan"]
    if expect["runtime"] != "error":
        assert "runtime_error" not in expect
        assert (not condition or is_true(render_step(condition, context))) is expect["runtime"]
        return
    with pytest.raises(TemplateError) as caught:
        render_step(condition, context)
    assert expect.get("runtime_error", "") in str(caught.value)


def _plan(condition: str, context: StepContext) -> str:
    try:
        value = evaluate_static(
            condition,
            repository_name=context.repository_name,
            batch_change_name=context.batch_change_name,
            batch_change_description=context.batch_change_description,
        )
    except TemplateError:
        return "error"
    return _PLANS[value]
