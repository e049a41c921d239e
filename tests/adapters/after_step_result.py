"""after_step_result: upstream's record of a step, read and written again."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.batches.after_step_result import AfterStepResult
from flows.batches.records import RecordError


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"json"}, f"unknown input {sorted(input)}"
    if "error" in expect:
        assert set(expect) == {"error"}
        with pytest.raises(RecordError):
            AfterStepResult.decode(input["json"])
        return
    assert expect, "nothing expected"
    assert set(expect) <= {"reencoded", "diff_text"}, f"unknown expectation {sorted(expect)}"

    result = AfterStepResult.decode(input["json"])

    if "reencoded" in expect:
        assert json.dumps(result.encode(), sort_keys=True) == json.dumps(expect["reencoded"], sort_keys=True)
    if "diff_text" in expect:
        assert result.diff == expect["diff_text"].encode("utf-8", "surrogateescape")
