"""template_changeset: a template rendered as a field of the changeset template, in a named context."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.errors import TemplateError
from flows.batches.template import render_changeset
from tests.template_contexts import changeset_context


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"template", "context"}, f"unknown input {sorted(input)}"
    assert set(expect) in ({"out"}, {"error"}), f"unknown expectation {sorted(expect)}"
    context = changeset_context(vectors, input["context"])

    if "out" in expect:
        assert render_changeset(input["template"], context) == expect["out"]
        return
    with pytest.raises(TemplateError) as caught:
        render_changeset(input["template"], context)
    assert expect["error"]
    assert expect["error"] in str(caught.value)
