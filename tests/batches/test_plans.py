"""The plan of a run as it is stored: read for as long as anybody keeps it."""

from __future__ import annotations

import pytest

from flows.batches.plans import (
    PlannedWorkspace,
    RunPlan,
    Shard,
    WorkspaceOutputs,
    read_run_plan,
    read_shard,
    read_workspace_outputs,
    shards_of,
)
from flows.batches.records import RecordError
from flows.batches.workspaces import Workspace

PLAN_1 = (
    b'{"schema_version": 1, "spec_digest": "' + b"0" * 64 + b'", "found_at": "2026-11-25T16:00:00Z", "workspaces": 2,'
    b' "shards": 1, "imports": {"acme/a": "acme/a"}}'
)
SHARD_1 = (
    b'{"schema_version": 1, "number": 1, "workspaces": [{"number": 1, "title": "acme/a", "workspace": {"repository":'
    b' "acme/a", "branch": "main", "commit": "c0ffee", "path": "", "only_fetch_workspace": false,'
    b' "search_result_paths": ["na\\u00efve", "\\udcff"], "skipped_steps": [1], "ignored": false}}]}'
)
OUTPUTS_1 = b'{"schema_version": 1, "outputs": {"who": "me", "list": [1, null]}}'


def planned(count: int) -> list[PlannedWorkspace]:
    return [
        PlannedWorkspace(
            number=number, title=str(number), workspace=Workspace(repository=str(number), branch="main", commit="c")
        )
        for number in range(1, count + 1)
    ]


def test_version_1_is_read() -> None:
    plan, shard, outputs = read_run_plan(PLAN_1), read_shard(SHARD_1), read_workspace_outputs(OUTPUTS_1)

    assert (plan.workspaces, plan.shards, plan.imports) == (2, 1, {"acme/a": "acme/a"})
    assert shard.workspaces[0].workspace.search_result_paths == ("naïve", "\udcff")
    assert outputs.outputs == {"who": "me", "list": [1, None]}


@pytest.mark.parametrize(
    ("raw", "read"), [(PLAN_1, read_run_plan), (SHARD_1, read_shard), (OUTPUTS_1, read_workspace_outputs)]
)
def test_what_is_written_is_read_again(raw: bytes, read) -> None:  # type: ignore[no-untyped-def]
    record: RunPlan | Shard | WorkspaceOutputs = read(raw)

    assert read(record.encode()) == record


def test_a_newer_plan_is_refused_with_advice() -> None:
    with pytest.raises(RecordError, match="upgrade"):
        read_run_plan(PLAN_1.replace(b'"schema_version": 1', b'"schema_version": 2'))


@pytest.mark.parametrize(
    ("workspaces", "count", "sizes"), [(6, 3, [2, 2, 2]), (101, 2, [50, 51]), (3, 1, [3]), (7, 4, [1, 2, 2, 2])]
)
def test_shards_are_of_about_the_same_size_and_leave_nobody_out(workspaces: int, count: int, sizes: list[int]) -> None:
    shards = shards_of(planned(workspaces), count)

    assert [len(shard.workspaces) for shard in shards] == sizes
    assert [shard.number for shard in shards] == list(range(1, count + 1))
    assert [each for shard in shards for each in shard.workspaces] == planned(workspaces)
