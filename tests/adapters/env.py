"""What a step's `env` comes to in an outer environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.batches.environment import canonical, is_static, outer_names, parse_outer, resolve
from flows.batches.errors import PermanentError, SpecError
from flows.batches.loading import parse_spec

_SPEC = """\
name: env
steps:
  - run: ""
    container: image
    env: {env}
changesetTemplate: {{title: t, branch: b, commit: {{message: m}}}}
"""


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    unknown = set(expect) - {"error", "resolved", "outer_names", "static", "canonical"}
    assert not unknown, f"unknown keys in expect: {unknown}"
    if "error" in expect:
        return _check_refused(input, expect["error"])
    entries = parse_spec(_text(input)).steps[0].env

    found = {
        "resolved": resolve(entries, parse_outer(input["outer"])),
        "outer_names": list(outer_names(entries)),
        "static": is_static(entries),
        "canonical": canonical(entries),
    }

    assert {key: found[key] for key in expect} == expect
    return None


def _check_refused(input: dict[str, Any], error: str) -> None:
    if error == "invalid env":
        with pytest.raises(SpecError) as caught:
            parse_spec(_text(input))
        faults = caught.value.faults
        assert all(fault.path.startswith("steps.0.env") for fault in faults), faults
        return
    with pytest.raises(PermanentError) as refused:
        resolve(parse_spec(_text(input)).steps[0].env, parse_outer(input["outer"]))
    assert error in str(refused.value)


def _text(input: dict[str, Any]) -> str:
    env = input["env"].replace("\n", "\n      ")
    return _SPEC.format(env=f"\n      {env}" if "\n" in env else env)
