"""cache_key: upstream's cache key, compared between two tasks or with its exact text."""

import json
from pathlib import Path
from typing import Any

from flows.batches.upstream_key import (
    MountMetadata,
    UpstreamKeyError,
    UpstreamRepository,
    UpstreamTask,
    upstream_canonical_json,
    upstream_key,
)

_EXPECTATIONS = {"same_key", "canonical_json", "key", "error"}


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert expect, "nothing expected"
    assert set(expect) <= _EXPECTATIONS, f"unknown expectation {sorted(set(expect) - _EXPECTATIONS)}"
    base = json.loads((vectors / "cache_key_base.json").read_text())
    if "same_key" in expect:
        assert set(expect) == {"same_key"}
        changed = _task(input["changed"], base["key"], base["key"])
        against = _task(input["against"], base["key"], changed[0])
        assert (_key(changed) == _key(against)) is expect["same_key"]
    else:
        _check_text(_task(input, base["key"], base["key"]), expect)


def _check_text(task: tuple[dict[str, Any], UpstreamTask], expect: dict[str, Any]) -> None:
    if "error" in expect:
        assert set(expect) == {"error"}
        assert expect["error"] in _refusal(task)
        return
    if "canonical_json" in expect:
        assert upstream_canonical_json(task[1], task[0]["StepIndex"]) == expect["canonical_json"]
    if "key" in expect:
        assert _key(task) == expect["key"]


def _key(task: tuple[dict[str, Any], UpstreamTask]) -> str:
    return upstream_key(task[1], task[0]["StepIndex"])


def _refusal(task: tuple[dict[str, Any], UpstreamTask]) -> str:
    try:
        return f"no error, but the key {_key(task)}"
    except UpstreamKeyError as error:
        return str(error)


def _task(input: dict[str, Any], base: dict[str, Any], same: dict[str, Any]) -> tuple[dict[str, Any], UpstreamTask]:
    """The key object as upstream has it, and the task that it describes. "base" and "same" stand for other objects."""
    assert set(input) <= {"key", "outer_env", "mounts_metadata"}, f"unknown input {sorted(input)}"
    named = {"base": base, "same": same}
    key: dict[str, Any] = named[input["key"]] if isinstance(input["key"], str) else input["key"]
    repository, attributes = key["Repository"], key["BatchChangeAttributes"]
    return key, UpstreamTask(
        repository=UpstreamRepository(
            id=repository["ID"],
            name=repository["Name"],
            base_ref=repository["BaseRef"],
            base_rev=repository["BaseRev"],
            file_matches=repository["FileMatches"] or (),
        ),
        path=key["Path"],
        only_fetch_workspace=key["OnlyFetchWorkspace"],
        steps=key["Steps"],
        batch_change_name=attributes["Name"],
        batch_change_description=attributes["Description"],
        outer=input.get("outer_env") or (),
        mounts=[
            MountMetadata(mount["Path"], mount["Size"], mount["Modified"])
            for mount in input.get("mounts_metadata") or ()
        ],
    )
