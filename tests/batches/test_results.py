"""Stored records: they survive JSON, and what was stored once stays readable."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.batches.after_step_result import AfterStepResult
from flows.batches.diff import Changes, DiffStat
from flows.batches.records import Blob, RecordError
from flows.batches.results import (
    ExitRecord,
    Failure,
    RenderedRecord,
    RunManifest,
    StepCounts,
    StepReference,
    StepResult,
    WorkspaceResult,
    masked,
    read_run_manifest,
    read_step_result,
    read_workspace_result,
)

_FIXTURES = Path(__file__).parent / "records"
_DIGEST = "ab" * 32
_TIME = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

STEP = StepResult(
    index=1,
    state="failed",
    rendered=RenderedRecord(
        image="alpine:3",
        image_digest="sha256:" + _DIGEST,
        shell="/bin/sh",
        script="echo hi",
        environment={"TOKEN": "${{ secrets.TOKEN }}", "A": "1"},
        files={"/tmp/a": _DIGEST},
        mounts={"/mnt": _DIGEST},
        working_directory="/work/pkg",
    ),
    exit=ExitRecord(code=137, oom_killed=True),
    started_at=_TIME,
    ended_at=_TIME + timedelta(seconds=2.5),
    stdout=Blob(digest=_DIGEST, size_bytes=3),
    stderr=Blob(digest=_DIGEST, size_bytes=0),
    diff=Blob(digest=_DIGEST, size_bytes=70),
    layer=Blob(digest=_DIGEST, size_bytes=10240),
    state_digest=_DIGEST,
    changes=Changes(modified=("README.md",), added=("not utf-8 \udcff", "ü")),
    diffstat=DiffStat(files=3, added_lines=5, deleted_lines=1),
    outputs={"float": 3.0, "int": 3, "flag": True, "nothing": None, "list": ["x", {"big": 12345678901234567890}]},
    cache_key=_DIGEST,
    attempts=2,
    failure=Failure(reason="out_of_memory", message="killed"),
)
SKIPPED = StepResult(
    index=0, state="skipped", skip_reason="if: ${{ eq 1 2 }} → false", started_at=_TIME, ended_at=_TIME
)
WORKSPACE = WorkspaceResult(
    title="github.com/acme/widget/pkg",
    repository="github.com/acme/widget",
    branch="main",
    commit="c0ffee",
    path="pkg",
    state="failed",
    steps=(StepReference(index=0, how="cached", key="one"), StepReference(index=1, how="failed", key="two")),
    diff=Blob(digest=_DIGEST, size_bytes=70),
    changeset_specs=(1, 2),
    diffstat=DiffStat(files=1, added_lines=2, deleted_lines=3),
    step_counts=StepCounts(executed=1, cached=1),
    seconds=1.5,
    failure=Failure(reason="step_failed", message="Command failed with exit code 2."),
)
RUN = RunManifest(
    run_id="r1",
    name="tidy",
    spec_digest=_DIGEST,
    started_at=_TIME,
    ended_at=_TIME + timedelta(minutes=1),
    state="failed",
    workspaces=(WORKSPACE,),
    step_counts=StepCounts(executed=1, cached=1),
    changeset_specs=2,
    failure=Failure(reason="changesets", message="two have one branch"),
)


@pytest.mark.parametrize(
    ("record", "read"),
    [
        (STEP, read_step_result),
        (SKIPPED, read_step_result),
        (WORKSPACE, read_workspace_result),
        (RUN, read_run_manifest),
    ],
)
def test_a_record_survives_json_with_its_types(record: Any, read: Any) -> None:
    again = read(record.encode())

    assert again == record
    assert repr(again) == repr(record)


@pytest.mark.parametrize(
    ("name", "record", "read"),
    [
        ("step_result_1", STEP, read_step_result),
        ("step_result_skipped_1", SKIPPED, read_step_result),
        ("workspace_result_1", WORKSPACE, read_workspace_result),
        ("run_manifest_1", RUN, read_run_manifest),
    ],
)
def test_what_version_1_stored_is_read_for_ever(name: str, record: Any, read: Any) -> None:
    """The files were written by the first release and are never written again: a new version gets new files."""
    assert read((_FIXTURES / f"{name}.json").read_bytes()) == record


def test_times_are_kept_in_utc() -> None:
    elsewhere = _TIME.astimezone(timezone(timedelta(hours=2)))

    result = StepResult(index=0, state="completed", started_at=elsewhere, ended_at=elsewhere)

    assert result.started_at == _TIME
    assert result.started_at.tzinfo == UTC
    with pytest.raises(ValidationError):
        StepResult(index=0, state="completed", started_at=datetime(2024, 1, 2), ended_at=elsewhere)


def test_a_step_knows_how_long_it_took() -> None:
    assert STEP.seconds == 2.5


def test_a_failure_or_a_skip_says_why() -> None:
    with pytest.raises(ValidationError, match="a failed step has a failure"):
        StepResult(index=0, state="failed", started_at=_TIME, ended_at=_TIME)
    with pytest.raises(ValidationError, match="a skipped step has a skip_reason"):
        StepResult(index=0, state="skipped", started_at=_TIME, ended_at=_TIME)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "has no schema_version"),
        (b"{}", "has no schema_version"),
        (b'{"schema_version": "1"}', "has no schema_version"),
        (b'{"schema_version": true}', "has no schema_version"),
        (b'{"schema_version": 99}', "has schema_version 99, this program reads 1; upgrade it"),
        (b'{"schema_version": 1}', "is damaged"),
    ],
)
def test_what_cannot_be_read_is_a_record_error(raw: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_step_result(raw)


@given(st.binary(max_size=40) | st.from_regex(r'\{"schema_version":.{0,20}\}').map(str.encode))
def test_reading_raises_nothing_but_a_record_error(raw: bytes) -> None:
    with pytest.raises(RecordError):
        read_step_result(raw)


def test_secrets_are_replaced_by_their_names() -> None:
    shown = masked({"TOKEN": "hunter2", "A": "1"}, {"TOKEN"})

    assert shown == {"TOKEN": "${{ secrets.TOKEN }}", "A": "1"}


def test_counts_add_up() -> None:
    total = StepCounts.total([StepCounts(executed=1, cached=2), StepCounts(executed=3, skipped=4)])

    assert total == StepCounts(executed=4, cached=2, skipped=4)


@given(st.binary(max_size=40))
def test_upstreams_version_2_keeps_every_byte_of_a_diff(diff: bytes) -> None:
    result = AfterStepResult(version=2, diff_or_nil=diff, outputs={"x": 1.5})

    assert AfterStepResult.decode(json.loads(json.dumps(result.encode()))) == result


def test_upstreams_version_1_loses_bytes_that_are_not_utf_8() -> None:
    assert AfterStepResult(diff_or_nil=b"\xff").encode()["diff"] == "\ufffd"


def test_newer_instances_keep_large_diffs_elsewhere() -> None:
    artifacts = {"diff": {"objectStorageKey": "k", "size": 3}}

    assert AfterStepResult.decode({"version": 2, "artifacts": artifacts}).encode()["artifacts"] == artifacts


@pytest.mark.parametrize(
    "content",
    [
        {"version": 2, "diff": "no base64!"},
        {"version": 2, "diff": 1},
        {"diff": ["x"]},
        {"version": "2"},
        {"stepIndex": "1"},
        {"outputs": []},
        {"changedFiles": {"added": "x"}},
    ],
)
def test_a_malformed_result_of_upstream_is_a_record_error(content: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        AfterStepResult.decode(content)
