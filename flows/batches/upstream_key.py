"""Upstream's cache key, as a pure function for talking to an instance. Our own step cache never uses it: see ``cache``.

Upstream: lib/batches/execution/cache. Its key changes with the spec's texts and the modification times of mounts, not
with image digests or the content of mounts.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from . import gojson
from .decoding import environment
from .environment import OuterEntryError, canonical, parse_outer, resolve
from .errors import PermanentError

_PER_RUN_VARIABLES = frozenset({"SRC_EXECUTOR_JOB_TOKEN", "SRC_EXECUTOR_JOB_ID", "SRC_EXECUTOR_NAME"})

JsonObject = Mapping[str, object]
V = TypeVar("V")


class UpstreamKeyError(PermanentError):
    """The key cannot be computed."""


@dataclass(frozen=True)
class UpstreamRepository:
    """Upstream's Repository. ``base_ref`` is spelled as the instance spells it."""

    id: str
    name: str
    base_ref: str
    base_rev: str
    file_matches: Sequence[str] = ()


@dataclass(frozen=True)
class MountMetadata:
    """One mounted file. ``modified`` is RFC 3339 text as Go writes it (``2024-01-02T03:04:05Z``)."""

    path: str
    size: int
    modified: str


@dataclass(frozen=True)
class UpstreamTask:
    """A workspace as upstream sees it. ``steps`` are the spec's steps as JSON objects, ``outer`` holds `NAME=VALUE`."""

    repository: UpstreamRepository
    path: str
    only_fetch_workspace: bool
    steps: Sequence[JsonObject]
    batch_change_name: str
    batch_change_description: str
    outer: Sequence[str] = ()
    mounts: Sequence[MountMetadata] = ()


def upstream_key(task: UpstreamTask, step_index: int) -> str:
    """The key of the result after step ``step_index`` (from 0), as upstream computes it. Raises UpstreamKeyError."""
    digest = hashlib.sha256(upstream_canonical_json(task, step_index).encode("utf-8")).digest()
    return f"{urlsafe_b64encode(digest[:16]).decode('ascii').rstrip('=')}-step-{step_index}"


def upstream_canonical_json(task: UpstreamTask, step_index: int) -> str:
    """The text that upstream hashes. Raises UpstreamKeyError."""
    if not 0 <= step_index < len(task.steps):
        raise UpstreamKeyError(f"there is no step {step_index}: the task has {len(task.steps)} steps")
    steps = task.steps[: step_index + 1]
    repository = task.repository
    content: dict[str, object] = {
        "Repository": {
            "ID": repository.id,
            "Name": repository.name,
            "BaseRef": repository.base_ref,
            "BaseRev": repository.base_rev,
            "FileMatches": sorted(repository.file_matches),
        },
        "Path": task.path,
        "OnlyFetchWorkspace": task.only_fetch_workspace,
        "Steps": [_step(step) for step in steps],
        "BatchChangeAttributes": {"Name": task.batch_change_name, "Description": task.batch_change_description},
        "StepIndex": step_index,
        "Environments": _environments(steps, task.outer),
    }
    if task.mounts:
        content["MountsMetadata"] = [
            {"Path": mount.path, "Size": mount.size, "Modified": mount.modified} for mount in task.mounts
        ]
    return gojson.dumps(content)


def _environments(steps: Sequence[JsonObject], outer: Sequence[str]) -> list[dict[str, str]]:
    try:
        values = parse_outer(outer)
    except OuterEntryError as error:
        # Upstream parses the outer variables again for every step, so the first one fails.
        raise UpstreamKeyError(f"resolving environment for step 0: {error}") from error
    resolved = (resolve(environment(step.get("env")), values) for step in steps)
    return [_sorted({name: each[name] for name in each if name not in _PER_RUN_VARIABLES}) for each in resolved]


def _step(step: JsonObject) -> dict[str, object]:
    """A step in Go's order of fields, without those that Go leaves out when empty or does not know."""
    variables = canonical(environment(step.get("env")))
    content: dict[str, object] = {name: step.get(name) for name in ("run", "container", "image")}
    content = _without_empty(content) | {"env": _sorted(variables) if isinstance(variables, dict) else variables}
    content |= _without_empty(
        {
            "files": _sorted(_object(step.get("files"))),
            "outputs": {name: _output(output) for name, output in _sorted(_object(step.get("outputs"))).items()},
            "mount": [_mount(mount) for mount in _list(step.get("mount"))],
        }
    )
    # Go leaves out an absent condition only: "" and false stay.
    return content if step.get("if") is None else content | {"if": step["if"]}


def _output(output: object) -> dict[str, object]:
    content = _object(output)
    return _without_empty({"value": content.get("value"), "format": content.get("format")})


def _mount(mount: object) -> dict[str, object]:
    content = _object(mount)
    return {"mountpoint": content.get("mountpoint", ""), "path": content.get("path", "")}


def _object(value: object) -> JsonObject:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _without_empty(content: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in content.items() if value}


def _sorted(content: Mapping[str, V]) -> dict[str, V]:
    return {name: content[name] for name in sorted(content)}
