"""template_step: a template rendered in a named step context."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.errors import TemplateError
from flows.batches.template import render_step
from tests.template_contexts import step_context


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"template", "context"}, f"unknown input {sorted(input)}"
    assert set(expect) in ({"out"}, {"error"}), f"unknown expectation {sorted(expect)}"
    context = step_context(vectors, input["context"])

    if "out" in expect:
        assert render_step(input["template"], context) == expect["out"]
        return
    with pytest.raises(TemplateError) as caught:
        render_step(input["template"], context)
    assert expect["error"]
    assert expect["error"] in str(caught.value)
