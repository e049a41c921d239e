"""outputs: a step's outputs after its run; how they render, fresh and read back from a stored result."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.batches.errors import PermanentError
from flows.batches.outputs import render_outputs
from flows.batches.results import StepResult, read_step_result
from flows.batches.spec import Output
from flows.batches.template import StepContext, StepState, render_step

_INPUTS = {"outputs", "step_stdout", "previous_outputs", "then_render"}
_EXPECTATIONS = {"outputs", "render", "render_after_json_cache"}


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) <= _INPUTS, f"unknown input {sorted(set(input) - _INPUTS)}"
    if "error" in expect:
        assert set(expect) == {"error"}
        assert expect["error"] in _refusal(input)
        return
    assert expect, "nothing expected"
    assert set(expect) <= _EXPECTATIONS, f"unknown expectation {sorted(set(expect) - _EXPECTATIONS)}"

    outputs = _outputs(input)

    if "outputs" in expect:
        assert outputs == expect["outputs"]
    if "render" in expect:
        assert _rendered(input["then_render"], outputs) == expect["render"]
    if "render_after_json_cache" in expect:
        assert _rendered(input["then_render"], _stored(outputs)) == expect["render_after_json_cache"]


def _outputs(input: dict[str, Any]) -> dict[str, Any]:
    outputs = {name: Output.model_validate(output) for name, output in input["outputs"].items()}
    context = StepContext(step=StepState(stdout=input["step_stdout"]), outputs=input["previous_outputs"])
    return render_outputs(outputs, context, 0)


def _refusal(input: dict[str, Any]) -> str:
    try:
        return f"no error, but {_outputs(input)}"
    except PermanentError as error:
        return str(error)


def _rendered(template: str, outputs: dict[str, Any]) -> str:
    return render_step(template, StepContext(outputs=outputs), "run")


def _stored(outputs: dict[str, Any]) -> dict[str, Any]:
    time = datetime.now(UTC)
    result = StepResult(index=0, state="completed", started_at=time, ended_at=time, outputs=outputs)
    return dict(read_step_result(result.encode()).outputs)
