"""What is kept of a run's plan: the workspaces that were found, in shards, and the outputs of those that are done.

Found once: every attempt at a run goes on with the same workspaces at the same commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, JsonValue

from .records import Digest, Part, Reader, Record, Time, read
from .workspaces import Workspace


class PlannedWorkspace(Part):
    """A workspace with its number in the run, counted from 1, and what people call it."""

    number: int
    title: str
    workspace: Workspace


class Shard(Record):
    """The workspaces that one process runs. Shards count from 1; a small run has just one."""

    schema_version: Literal[1] = 1
    number: int
    workspaces: tuple[PlannedWorkspace, ...]


class RunPlan(Record):
    """How many workspaces a run has, in how many shards, and what else its attempts must agree on."""

    schema_version: Literal[1] = 1
    spec_digest: Digest
    """Of the batch spec's text, as in the manifest."""
    found_at: Time
    workspaces: int
    shards: int
    imports: dict[str, str] = Field(default_factory=dict)
    """The ids of the repositories that `importChangesets` names, by name."""


class WorkspaceOutputs(Record):
    """The outputs that a workspace's changeset specs are built from."""

    schema_version: Literal[1] = 1
    outputs: dict[str, JsonValue]


_PLAN_READERS: Mapping[int, Reader[RunPlan]] = {1: RunPlan.model_validate}
_SHARD_READERS: Mapping[int, Reader[Shard]] = {1: Shard.model_validate}
_OUTPUTS_READERS: Mapping[int, Reader[WorkspaceOutputs]] = {1: WorkspaceOutputs.model_validate}


def read_run_plan(raw: bytes) -> RunPlan:
    """A stored run plan of any version. Raises RecordError."""
    return read(raw, "run plan", _PLAN_READERS)


def read_shard(raw: bytes) -> Shard:
    """A stored shard of any version. Raises RecordError."""
    return read(raw, "shard", _SHARD_READERS)


def read_workspace_outputs(raw: bytes) -> WorkspaceOutputs:
    """The stored outputs of a workspace, of any version. Raises RecordError."""
    return read(raw, "outputs of a workspace", _OUTPUTS_READERS)


def shards_of(planned: Sequence[PlannedWorkspace], count: int) -> list[Shard]:
    """``count`` shards of about the same size, in order."""
    borders = [len(planned) * number // count for number in range(count + 1)]
    return [
        Shard(number=number, workspaces=tuple(planned[borders[number - 1] : borders[number]]))
        for number in range(1, count + 1)
    ]
