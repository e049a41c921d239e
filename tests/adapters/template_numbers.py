"""template_numbers: how a value that came from JSON prints."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.errors import TemplateError
from flows.batches.template import StepContext, render_step
from tests.template_contexts import as_json_output


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"json_output_value", "template"}, f"unknown input {sorted(input)}"
    assert set(expect) in ({"out"}, {"error"}), f"unknown expectation {sorted(expect)}"
    context = StepContext(outputs={"a": as_json_output(input["json_output_value"])})

    if "out" in expect:
        assert render_step(input["template"], context) == expect["out"]
        return
    with pytest.raises(TemplateError) as caught:
        render_step(input["template"], context)
    assert expect["error"]
    assert expect["error"] in str(caught.value)
