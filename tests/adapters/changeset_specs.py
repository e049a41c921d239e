"""changeset_specs: what a workspace's diff becomes, what an instance takes, and ids of imported changesets."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.batches import changeset_schema
from flows.batches.changesets import BaseRepository, build, draft, import_specs
from flows.batches.errors import PermanentError, SpecError
from flows.batches.loading import load_spec
from flows.batches.spec import Author

_BUILD_INPUTS = {"spec", "repository", "path", "outputs", "diff", "fallback_author", "binary_diffs"}


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    if "changeset_spec" in input:
        _check_schema(input, expect)
    elif "external_id" in input:
        _check_external_id(input, expect)
    else:
        _check_specs(input, expect)


def _check_specs(input: dict[str, Any], expect: dict[str, Any]) -> None:
    assert set(input) <= _BUILD_INPUTS, f"unknown input {sorted(set(input) - _BUILD_INPUTS)}"
    (asked,) = expect
    if asked == "specs":
        # Vectors about what is built may hold what an instance refuses later: drafts are what upstream builds.
        specs = [spec.encode() for spec in draft(**_arguments(input))]
        expected = sorted(expect["specs"], key=lambda spec: spec["headRef"])
        assert json.dumps(specs, sort_keys=True) == json.dumps(expected, sort_keys=True)
    elif asked == "error":
        assert expect["error"] in _refusal(input)
    else:
        raise AssertionError(f"unknown expectation {asked}")


def _refusal(input: dict[str, Any]) -> str:
    try:
        return f"no error, but {build(**_arguments(input))}"
    except PermanentError as error:
        return str(error)


def _arguments(input: dict[str, Any]) -> dict[str, Any]:
    author = input.get("fallback_author")
    repository = input["repository"]
    return {
        "spec": load_spec(json.dumps(input["spec"])),
        "repository": BaseRepository(**(repository | {"file_matches": tuple(repository.get("file_matches") or ())})),
        "path": input["path"],
        "outputs": _go_numbers(input["outputs"] or {}),
        "diff": input["diff"].encode("utf-8", "surrogateescape"),
        "fallback_author": None if author is None else Author(**author),
        "binary_diffs": input["binary_diffs"],
    }


def _go_numbers(value: Any) -> Any:
    """As upstream reads a stored result: every number is a float."""
    if isinstance(value, dict):
        return {key: _go_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_go_numbers(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_schema(input: dict[str, Any], expect: dict[str, Any]) -> None:
    assert set(input) == {"changeset_spec"}
    assert "valid" in expect
    assert set(expect) <= {"valid", "errors"}, f"unknown expectation {sorted(expect)}"
    faults = changeset_schema.faults(input["changeset_spec"])
    assert (not faults) is expect["valid"]
    if "errors" in expect:
        assert sorted(map(str, faults)) == sorted(expect["errors"])


def _check_external_id(input: dict[str, Any], expect: dict[str, Any]) -> None:
    """An id goes through the whole batch spec, whose schema refuses what is neither text nor an integer."""
    assert set(input) == {"external_id"}
    (asked,) = expect
    text = json.dumps({"name": "n", "importChangesets": [{"repository": "r", "externalIDs": [input["external_id"]]}]})
    if asked == "error":
        with pytest.raises(SpecError) as caught:
            load_spec(text)
        assert {fault.path for fault in caught.value.faults} == {"importChangesets.0.externalIDs.0"}
        return
    (spec,) = import_specs(load_spec(text).import_changesets, {"r": "r"})
    assert {"id": spec.external_id} == expect
