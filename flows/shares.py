"""The share of a run's workspaces that one process runs, without Prefect: what they have in common, and their records.

A small run is one share; a large one has a share per shard, on any worker, and they meet in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from blocks.blobs import Blobs
from blocks.runtime import Runtime, RuntimeTrouble
from blocks.sources import AnySource
from blocks.store import ArtifactStore, StoreTrouble

from .afterwards import Afterwards
from .batches.changesets import BaseRepository, ChangesetSpec, build
from .batches.diff import DiffStat
from .batches.errors import BatchError
from .batches.mounts import MountError, resolve_mount
from .batches.plans import PlannedWorkspace
from .batches.records import Blob
from .batches.results import (
    Failure,
    StepCounts,
    StepFate,
    StepReference,
    StepResult,
    WorkspaceResult,
    WorkspaceState,
)
from .batches.spec import BatchSpec
from .batches.steps import Outside
from .batches.workspaces import Workspace
from .checkout import Checkouts
from .execution import Limits, Setting, WorkspaceRun
from .ledger import Ledger
from .leftovers import remove_leftovers
from .resolution import fetch
from .staging import stage_mounts
from .step_cache import StepCache, record_key, stored
from .step_runs import Bench


class Options(BaseModel):
    """How a batch change is run. What it does stands in the batch spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: str = Field(default="*", description="Glob: run only the repositories whose names match, to try things out.")
    only_workspaces: tuple[str, ...] = Field(
        default=(),
        description="Run only these workspaces, by their names as the table of a run shows them. If empty: all.",
    )
    workspaces_at_once: int = Field(default=4, ge=1, le=256, description="How many workspaces run at the same time.")
    workspaces_per_shard: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="With more workspaces than this, a run is spread over the workers, in shards of at most so many. "
        "None: by the size of the run, 100 to 250.",
    )
    fail_fast: bool = Field(default=False, description="Stop everything when the first workspace fails.")
    skip_errors: bool = Field(default=False, description="A workspace that fails does not make the run fail.")
    use_cache: bool = Field(default=True, description="Take the results of steps that ran before on the same inputs.")
    allow_ignored: bool = Field(default=False, description="Also run repositories that hold a .batchignore file.")
    allow_unsupported: bool = Field(
        default=False, description="Also run repositories whose code host cannot have changesets."
    )
    step_timeout_seconds: float | None = Field(
        default=None, gt=0, description="How long one step may take. None: as long as its workspace."
    )
    workspace_timeout_seconds: float | None = Field(
        default=3600.0,
        gt=0,
        description="How long one workspace may take, from its set-up to its last step. None: no limit.",
    )
    approval: bool = Field(
        default=False,
        description="Wait, once the changeset specs are built, until a person approves or rejects them in the "
        "dashboard: in the run's menu, Resume.",
    )
    approval_hours: float = Field(
        default=168.0, gt=0, le=8760, description="How long to wait for an approval; then the run fails."
    )


@dataclass(frozen=True)
class Surroundings:
    """The outside of a run: where repositories come from, where steps run, where results go."""

    repositories: AnySource
    runtime: Runtime
    store: ArtifactStore
    home: Path
    """The state folder of this machine: mirrors, checkouts, workspaces."""
    spec_folder: Path | None = None
    """Where `mount` paths are looked up; None: the spec can mount nothing."""
    outside: Outside = field(default_factory=Outside)


NEVER_BEGUN = Failure(reason="cancelled", message="Not begun: the run was stopped before.")


class Share:
    """Some workspaces of a run. A context manager: leaving it lets go of the checkouts; what was kept stays kept."""

    def __init__(self, run_id: str, spec: BatchSpec, options: Options, surroundings: Surroundings) -> None:
        self.run_id, self.spec, self.options = run_id, spec, options
        self.cancel = Event()
        self.ledger = Ledger(surroundings.store, run_id)
        self.results: dict[int, WorkspaceResult] = {}
        """What became of the workspaces so far, by number."""
        self._surroundings = surroundings
        self._planned: dict[int, PlannedWorkspace] = {}
        self._mirrors: Mapping[str, Path] = {}
        self._stack = ExitStack()
        self._setting: Setting | None = None
        self._changesets: dict[int, tuple[ChangesetSpec, ...]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def hand_over(self) -> None:
        """Stop, and keep nothing more: another process has begun to go on with this, as it took us for dead."""
        self.ledger.close()
        self.cancel.set()

    def title(self, number: int) -> str:
        """What people call workspace ``number``, counted from 1."""
        return self._planned[number].title

    @property
    def left(self) -> list[int]:
        """The numbers of the workspaces that are not done, in order."""
        done = self.done
        return [number for number in self._planned if number not in done]

    @property
    def done(self) -> dict[int, WorkspaceResult]:
        """The workspaces that are completed, by number."""
        return {number: result for number, result in self.results.items() if result.state == "completed"}

    def run_workspaces(self, run_one: Callable[[int], WorkspaceResult]) -> None:
        """Let ``run_one`` run every workspace that is left by its number, some at a time, each in its own thread.

        One that fails leaves the others alone, unless ``fail_fast``. Whatever is raised stops all of them.
        """
        with ThreadPoolExecutor(self.options.workspaces_at_once, thread_name_prefix="workspace") as pool:
            running = [pool.submit(copy_context().run, run_one, number) for number in self.left]
            try:
                for future in as_completed(running):
                    if future.result().state == "failed" and self.options.fail_fast:
                        self.cancel.set()
            except BaseException:
                self.cancel.set()  # the others end within seconds; the pool waits for them
                raise

    def run_workspace(self, number: int) -> WorkspaceResult:
        """Run one workspace without Prefect, and without another try after temporary errors."""
        if self.cancel.is_set():
            return self.leave_out(number)
        workspace, failure = self.open_workspace(number), None
        try:
            workspace.set_up()
            for index in range(len(self.spec.steps)):
                if workspace.done:
                    break
                workspace.run_step(index)
        except (BatchError, RuntimeTrouble, StoreTrouble) as error:
            failure = workspace.fail(error)
        finally:
            workspace.close()
        return self.collect(number, workspace, failure)

    def open_workspace(self, number: int) -> WorkspaceRun:
        """Begin with workspace ``number``, counted from 1."""
        assert self._setting is not None, "begin() comes first"
        return WorkspaceRun(self._setting, self._planned[number].workspace)

    def collect(self, number: int, ended: WorkspaceRun, failure: Failure | None = None) -> WorkspaceResult:
        """Build the workspace's changeset specs and keep its records. Raises the store's errors.

        ``failure`` is why it did not complete, where that is no step's. A changesetTemplate that does not render is
        the workspace's failure, and leaves its steps in the cache.
        """
        failure = failure or ended.failure
        if failure is None:
            try:
                self._changesets[number] = self._build_and_keep(number, ended)
            except BatchError as error:
                failure = Failure(reason="changesets", message=str(error))
        result = self._workspace_result(number, ended, failure)
        self.results[number] = result
        self.ledger.keep_workspace(number, result)
        return result

    def leave_out(self, number: int, failure: Failure = NEVER_BEGUN) -> WorkspaceResult:
        """Note a workspace that nobody has finished, and why."""
        workspace = self._planned[number].workspace
        result = WorkspaceResult(
            title=self.title(number),
            repository=workspace.repository,
            branch=workspace.branch,
            commit=workspace.commit,
            path=workspace.path,
            state=_workspace_state(failure),
            failure=failure,
        )
        self.results[number] = result
        self.ledger.keep_workspace(number, result)
        return result

    def _take(self, planned: Iterable[PlannedWorkspace]) -> None:
        """Take these workspaces on, with what an earlier attempt at the run has made of them."""
        self._planned = {each.number: each for each in planned}
        self.results = self.ledger.results(self._planned)

    def _fetch_what_is_left(self) -> None:
        """Have the commits of the workspaces that are left on this machine. Raises as ``resolve`` does."""
        self._mirrors = fetch(
            [self._planned[number].workspace for number in self.left],
            self._surroundings.repositories,
            self._surroundings.home / "mirrors",
            jobs=self.options.workspaces_at_once,
            cancel=self.cancel,
        )

    def _prepare(self, name: str) -> Setting:
        """Prepare what the workspaces share. ``name``: of this share, in the engine and on the disk.

        Raises MountError, RuntimeTrouble.
        """
        around = self._surroundings
        remove_leftovers(around.home, around.runtime.reap)
        checkouts = self._stack.enter_context(Checkouts(around.home / "checkouts"))
        self._stack.enter_context(around.runtime.sharing(len(self.left), self.options.workspaces_at_once))
        afterwards = self._stack.enter_context(Afterwards())
        blobs = Blobs(around.store)
        bench = Bench(
            run_id=name,
            home=around.home,
            runtime=around.runtime,
            blobs=blobs,
            checkouts=checkouts,
            mirrors=self._mirrors,
            mounts=stage_mounts(self.spec, mount_sources(self.spec, around.spec_folder), around.home / "mounts"),
            cancel=self.cancel,
            afterwards=afterwards.do,
        )
        return Setting(
            spec=self.spec,
            bench=bench,
            cache=StepCache(blobs, enabled=self.options.use_cache),
            outside=around.outside,
            limits=Limits(self.options.step_timeout_seconds, self.options.workspace_timeout_seconds),
        )

    def _build_and_keep(self, number: int, ended: WorkspaceRun) -> tuple[ChangesetSpec, ...]:
        """The changeset specs; and the outputs, so that they can be built again from the store alone."""
        last = ended.executed
        if last is None or last.diff is None or not last.diff.size_bytes:
            return ()
        built = self._build_changesets(ended.workspace, last.diff, ended.outputs)
        self.ledger.keep_outputs(number, last.outputs)
        return built

    def _build_changesets(
        self, workspace: Workspace, diff: Blob, outputs: Mapping[str, object]
    ) -> tuple[ChangesetSpec, ...]:
        repository = BaseRepository(
            id=workspace.repository,
            name=workspace.repository,
            base_ref=f"refs/heads/{workspace.branch}",
            base_rev=workspace.commit,
            file_matches=workspace.search_result_paths,
        )
        content = Blobs(self._surroundings.store).get(stored(diff))
        return build(self.spec, repository, path=workspace.path, outputs=outputs, diff=content)

    def _workspace_result(self, number: int, ended: WorkspaceRun, failure: Failure | None) -> WorkspaceResult:
        kept = self.ledger.keep_steps(number, [one for one in ended.results if one.index not in ended.cached])
        steps = tuple(_reference(result, kept) for result in ended.results)
        last, workspace = ended.executed, ended.workspace
        return WorkspaceResult(
            title=self.title(number),
            repository=workspace.repository,
            branch=workspace.branch,
            commit=workspace.commit,
            path=workspace.path,
            state=_workspace_state(failure),
            steps=steps,
            diff=last.diff if last and last.diff and last.diff.size_bytes else None,
            diffstat=last.diffstat if last else DiffStat(),
            step_counts=StepCounts(
                executed=sum(result.exit is not None and result.index not in ended.cached for result in ended.results),
                cached=sum(step.how == "cached" for step in steps),
                skipped=sum(step.how == "skipped" for step in steps),
            ),
            seconds=round(ended.seconds, 3),
            failure=failure,
        )


def mount_sources(spec: BatchSpec, folder: Path | None) -> dict[str, Path]:
    """The checked host path of everything that the steps mount, by the path as written. Raises MountError."""
    sources = {}
    for number, step in enumerate(spec.steps, 1):
        for mount in step.mounts:
            if folder is None:
                raise MountError(f"step {number} mounts {mount.path}, and the batch spec lies in no folder: name one")
            sources[mount.path] = resolve_mount(folder, mount.path, number)
    return sources


def state_of(results: Iterable[WorkspaceResult], *, skip_errors: bool) -> WorkspaceState:
    """What becomes of a run, or a part of it, whose workspaces came to this."""
    states = {result.state for result in results}
    if "failed" in states and not skip_errors:
        return "failed"
    return "cancelled" if "cancelled" in states else "completed"


def _reference(result: StepResult, kept: Mapping[int, str]) -> StepReference:
    """``kept``: the artifacts of the steps that were not in the cache."""
    if result.index not in kept:
        return StepReference(index=result.index, how="cached", key=record_key(result.cache_key))
    how: StepFate = "executed" if result.state == "completed" else result.state
    return StepReference(index=result.index, how=how, key=kept[result.index])


def _workspace_state(failure: Failure | None) -> WorkspaceState:
    if failure is None:
        return "completed"
    return "cancelled" if failure.reason == "cancelled" else "failed"
