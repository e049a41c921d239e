"""glob: which names a pattern matches."""

from pathlib import Path
from typing import Any

import pytest

from flows.batches.glob import GlobError, compile_glob


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) == {"pattern", "names"}, f"unknown input {sorted(input)}"
    assert set(expect) in ({"match"}, {"error"}), f"unknown expectation {sorted(expect)}"

    if "error" in expect:
        with pytest.raises(GlobError) as caught:
            compile_glob(input["pattern"])
        assert expect["error"]
        assert expect["error"] in str(caught.value)
        return
    assert [compile_glob(input["pattern"]).match(name) for name in input["names"]] == expect["match"]
