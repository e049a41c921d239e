"""diff_changes: a diff, and the paths it changes."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.diff import DiffError, changes, parse


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"diff"}, f"unknown input {sorted(input)}"
    diff = input["diff"].encode("utf-8", "surrogateescape")
    if "error" in expect:
        assert set(expect) == {"error"}, f"unknown expectation {sorted(expect)}"
        with pytest.raises(DiffError):
            changes(diff)
        return

    found = changes(diff)

    assert found.model_dump(mode="json") == {name: paths or [] for name, paths in expect.items()}
    assert b"".join(file.raw for file in parse(diff)) == diff
