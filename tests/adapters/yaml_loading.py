"""What a YAML text loads as: the data as JSON, types included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.batches.documents import parse
from flows.batches.errors import SpecError


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    if "error" in expect:
        assert set(expect) == {"error"}, expect
        with pytest.raises(SpecError) as caught:
            parse(input["yaml"])
        if isinstance(expect["error"], str):
            assert _stable(expect["error"]) in str(caught.value)
        return
    assert set(expect) == {"json"}, expect
    found = parse(input["yaml"]).data
    assert _same(found, expect["json"]), found


def _same(found: object, wanted: object) -> bool:
    """Tells 1 from "1" and from true. JSON has one kind of number: 1.0 is 1, and large floats have lost digits."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key]) for key in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, float) and isinstance(wanted, int):
        return found == float(wanted)
    return found == wanted


def _stable(error: str) -> str:
    return error.rpartition("yaml: ")[2].rpartition("unmarshal errors:\n")[2].strip()
