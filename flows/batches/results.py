"""What is kept of a step (executed or skipped), of a workspace, of a run: to see what happened, to go on from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from .diff import Changes, DiffStat
from .records import Blob, Digest, Part, Reader, Record, Time, read

StepState = Literal["completed", "failed", "skipped"]
StepFate = Literal["executed", "cached", "skipped", "failed"]
WorkspaceState = Literal["completed", "failed", "cancelled"]
RunState = Literal["running", "completed", "failed", "cancelled"]

FailureReason = Literal[
    "step_failed",
    "timed_out",
    "out_of_memory",
    "cancelled",
    "image",
    "disk_full",
    "secret_in_diff",
    "outputs",
    "changesets",
    "infrastructure",
]


class Failure(Part):
    """Why something did not complete: for programs, and for people."""

    reason: FailureReason
    message: str


class RenderedRecord(Part):
    """What a step really ran with. Secrets' values are replaced: see ``masked``."""

    image: str
    """The reference as rendered."""
    image_digest: str
    shell: str
    script: str
    environment: dict[str, str]
    files: dict[str, Digest]
    """Target in the container -> digest of the content."""
    mounts: dict[str, Digest]
    """Mountpoint -> digest of the content."""
    working_directory: str


class ExitRecord(Part):
    """How the step's container ended."""

    code: int
    oom_killed: bool = False
    timed_out: bool = False
    cancelled: bool = False
    disk_full: bool = False


class StepResult(Record):
    """One step of one workspace. ``index`` counts from 0.

    ``diff``, ``changes`` and ``diffstat`` are cumulative (against the base commit), ``outputs`` is the accumulated map.
    """

    schema_version: Literal[1] = 1
    index: int
    state: StepState
    skip_reason: str = ""
    """The condition as written and as rendered; only of a skipped step."""
    rendered: RenderedRecord | None = None
    exit: ExitRecord | None = None
    """None if no container ended."""
    started_at: Time
    ended_at: Time
    stdout: Blob | None = None
    stderr: Blob | None = None
    diff: Blob | None = None
    layer: Blob | None = None
    """What the step changed, as the runtime keeps it; None where a step cannot be resumed from the store."""
    state_digest: Digest | None = None
    """Of the workspace's content after the step."""
    changes: Changes = Changes()
    diffstat: DiffStat = DiffStat()
    outputs: dict[str, JsonValue] = Field(default_factory=dict)
    cache_key: str = ""
    attempts: int = 1
    failure: Failure | None = None

    @model_validator(mode="after")
    def _reasons_belong_to_states(self) -> Self:
        if (self.state == "failed") != (self.failure is not None):
            raise ValueError("a failed step has a failure, and only a failed one")
        if (self.state == "skipped") != bool(self.skip_reason):
            raise ValueError("a skipped step has a skip_reason, and only a skipped one")
        return self

    @property
    def seconds(self) -> float:
        """How long the step took."""
        return (self.ended_at - self.started_at).total_seconds()


class StepCounts(Part):
    """What became of the steps: run now, taken from the cache, skipped by their `if`."""

    executed: int = 0
    cached: int = 0
    skipped: int = 0

    @classmethod
    def total(cls, counts: Iterable[StepCounts]) -> StepCounts:
        """The sum."""
        items = tuple(counts)
        return cls(
            executed=sum(item.executed for item in items),
            cached=sum(item.cached for item in items),
            skipped=sum(item.skipped for item in items),
        )


class StepReference(Part):
    """Where a step's result is kept, and how it came about in this run. ``index`` counts from 0."""

    index: int
    how: StepFate
    key: str
    """The artifact's, in the store."""


class WorkspaceResult(Record):
    """What became of one workspace."""

    schema_version: Literal[1] = 1
    title: str
    """What people call it, unique in its run: repository and path, with the branch where that is needed."""
    repository: str
    branch: str
    commit: str
    path: str = ""
    state: WorkspaceState
    steps: tuple[StepReference, ...] = ()
    """In the order of the steps."""
    diff: Blob | None = None
    """Of the last executed step; None if nothing was changed."""
    changeset_specs: tuple[int, ...] = ()
    """Numbers of the run's changeset specs that come from here."""
    diffstat: DiffStat = DiffStat()
    step_counts: StepCounts = StepCounts()
    seconds: float = 0.0
    failure: Failure | None = None


class RunManifest(Record):
    """What became of one run of a batch change. ``ended_at`` is None while it runs."""

    schema_version: Literal[1] = 1
    run_id: str
    name: str
    """The batch change's."""
    spec_digest: Digest
    """Of the batch spec's text."""
    started_at: Time
    ended_at: Time | None = None
    state: RunState
    workspaces: tuple[WorkspaceResult, ...] = ()
    step_counts: StepCounts = StepCounts()
    changeset_specs: int = 0
    """How many there are, imports included."""
    failure: Failure | None = None
    """Why the run as a whole failed; what failed in a workspace stands there."""

    @property
    def headline(self) -> str:
        """The run in one line."""
        states = Counter(result.state for result in self.workspaces)
        parts = [f"{states['completed']} of {len(self.workspaces)} workspaces completed"]
        parts += [f"{states[state]} {state}" for state in ("failed", "cancelled") if states[state]]
        steps = self.step_counts
        parts.append(f"steps: {steps.executed} run, {steps.cached} cached, {steps.skipped} skipped")
        parts.append(f"{self.changeset_specs} changeset specs")
        if self.state == "completed" and steps.cached and not steps.executed:
            parts.append("nothing new: no step had to run again")
        return "; ".join(parts)


_STEP_READERS: Mapping[int, Reader[StepResult]] = {1: StepResult.model_validate}
_WORKSPACE_READERS: Mapping[int, Reader[WorkspaceResult]] = {1: WorkspaceResult.model_validate}
_RUN_READERS: Mapping[int, Reader[RunManifest]] = {1: RunManifest.model_validate}


def read_step_result(raw: bytes) -> StepResult:
    """A stored step result of any version. Raises RecordError."""
    return read(raw, "step result", _STEP_READERS)


def read_workspace_result(raw: bytes) -> WorkspaceResult:
    """A stored workspace result of any version. Raises RecordError."""
    return read(raw, "workspace result", _WORKSPACE_READERS)


def read_run_manifest(raw: bytes) -> RunManifest:
    """A stored run manifest of any version. Raises RecordError."""
    return read(raw, "run manifest", _RUN_READERS)


def masked(environment: Mapping[str, str], secret_names: Collection[str]) -> dict[str, str]:
    """An environment as a record may show it: each secret's value as `${{ secrets.NAME }}`."""
    return {
        name: f"${{{{ secrets.{name} }}}}" if name in secret_names else value for name, value in environment.items()
    }
