"""skipped_steps: which steps no workspace of a repository has to run."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.conditions import skipped_steps
from flows.batches.errors import TemplateError
from tests.template_contexts import step_context


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"ifs", "repository"}, f"unknown input {sorted(input)}"
    assert set(expect) in ({"skipped", "workspace_dropped"}, {"error"}), f"unknown expectation {sorted(expect)}"
    conditions = [_condition(raw) for raw in input["ifs"]]
    batch_change = step_context(vectors, "cond")

    def skipped() -> frozenset[int]:
        return skipped_steps(
            conditions,
            repository_name=input["repository"],
            batch_change_name=batch_change.batch_change_name,
            batch_change_description=batch_change.batch_change_description,
        )

    if "error" in expect:
        with pytest.raises(TemplateError) as caught:
            skipped()
        assert expect["error"]
        assert expect["error"] in str(caught.value)
        return
    assert sorted(skipped()) == expect["skipped"]
    assert (len(skipped()) == len(conditions)) is expect["workspace_dropped"]


def _condition(raw: bool | str | None) -> str:
    """`if` as the spec holds it: a YAML bool is its text, nothing is always."""
    return raw if isinstance(raw, str) else {True: "true", False: "false", None: ""}[raw]
