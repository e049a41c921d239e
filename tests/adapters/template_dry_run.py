"""template_dry_run: upstream's check of a whole spec's text."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.errors import TemplateError
from flows.batches.template import dry_run


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"text"}, f"unknown input {sorted(input)}"
    assert set(expect) <= {"valid", "error"}, f"unknown expectation {sorted(expect)}"

    if expect["valid"]:
        assert "error" not in expect
        dry_run(input["text"])
        return
    with pytest.raises(TemplateError) as caught:
        dry_run(input["text"])
    assert expect.get("error", "") in str(caught.value)
