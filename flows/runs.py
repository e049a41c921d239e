"""One run of a batch change, without Prefect: what its workspaces share, and the records that it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import TracebackType

from pydantic import BaseModel, ConfigDict, Field

from blocks.blobs import Blobs
from blocks.runtime import Runtime, RuntimeTrouble
from blocks.sources import AnySource
from blocks.store import ArtifactStore, StoreTrouble

from .afterwards import Afterwards
from .batches.changesets import BaseRepository, ChangesetSpec, build, check_duplicates, import_specs
from .batches.diff import DiffStat
from .batches.errors import BatchError, ChangesetError, ResolutionError
from .batches.mounts import MountError, resolve_mount
from .batches.records import now
from .batches.results import (
    Failure,
    RunManifest,
    StepCounts,
    StepFate,
    StepReference,
    StepResult,
    WorkspaceResult,
    WorkspaceState,
)
from .batches.spec import BatchSpec
from .batches.steps import Outside
from .batches.workspaces import titles
from .checkout import Checkouts
from .execution import Limits, Setting, WorkspaceRun
from .failures import failure_of_error
from .ledger import Ledger
from .resolution import Resolution, resolve
from .scratch import sweep
from .staging import stage_mounts
from .step_cache import StepCache, record_key, stored
from .step_runs import Bench
from .workspace_folders import reap_workspaces

NAME_CHARACTERS = 60
"""Of a batch change's name, in the ids of its runs."""


class Options(BaseModel):
    """How a batch change is run. What it does stands in the batch spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: str = Field(default="*", description="Glob: run only the repositories whose names match, to try things out.")
    workspaces_at_once: int = Field(default=4, ge=1, le=256, description="How many workspaces run at the same time.")
    fail_fast: bool = Field(default=False, description="Stop everything when the first workspace fails.")
    skip_errors: bool = Field(default=False, description="A workspace that fails does not make the run fail.")
    use_cache: bool = Field(default=True, description="Take the results of steps that ran before on the same inputs.")
    allow_ignored: bool = Field(default=False, description="Also run repositories that hold a .batchignore file.")
    allow_unsupported: bool = Field(
        default=False, description="Also run repositories whose code host cannot have changesets."
    )
    step_timeout_seconds: float | None = Field(default=None, gt=0, description="How long one step may take.")
    workspace_timeout_seconds: float | None = Field(
        default=3600.0, gt=0, description="How long one workspace may take, from its set-up to its last step."
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


class BatchRun:
    """One run. A context manager: leaving it lets go of the checkouts; what was kept stays in the ledger."""

    def __init__(self, run_id: str, text: str, spec: BatchSpec, options: Options, surroundings: Surroundings) -> None:
        self.run_id, self.spec, self.options = run_id, spec, options
        self.cancel = Event()
        self.ledger = Ledger(surroundings.store, run_id)
        self.resolution = Resolution()
        self._titles: list[str] = []
        self._text, self._surroundings = text, surroundings
        self._stack = ExitStack()
        self._setting: Setting | None = None
        self._results: dict[int, WorkspaceResult] = {}
        self._changesets: dict[int, tuple[ChangesetSpec, ...]] = {}
        self._manifest = RunManifest(
            run_id=run_id,
            name=spec.name,
            spec_digest=hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
            started_at=now(),
            state="running",
        )

    def __enter__(self) -> BatchRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is not None and self._setting is not None:
                self._note_the_end(error)
        finally:
            self._stack.__exit__(kind, error, at)

    def find_workspaces(self) -> Resolution:
        """Resolve `on` and `workspaces`. Raises ResolutionError, also when there is nothing to do, and git's errors."""
        self.resolution = resolve(
            self.spec,
            self._surroundings.repositories,
            self._surroundings.home / "mirrors",
            text=self._text,
            allow_ignored=self.options.allow_ignored,
            allow_unsupported=self.options.allow_unsupported,
            only=self.options.only,
            jobs=self.options.workspaces_at_once,
            cancel=self.cancel,
        )
        if not (self.resolution.workspaces or self.spec.import_changesets):
            raise ResolutionError((self._why_nothing_is_found(),))
        self._titles = titles(self.resolution.workspaces)
        return self.resolution

    def title(self, number: int) -> str:
        """What people call workspace ``number``, counted from 1."""
        return self._titles[number - 1]

    def begin(self) -> None:
        """Prepare what the workspaces share, and note that the run begins; if that is not possible, keep nothing.

        Raises MountError, RuntimeTrouble, the store's errors.
        """
        around = self._surroundings
        self._remove_leftovers()
        checkouts = self._stack.enter_context(Checkouts(around.home / "checkouts"))
        workspaces = len(self.resolution.workspaces)
        self._stack.enter_context(around.runtime.sharing(workspaces, self.options.workspaces_at_once))
        afterwards = self._stack.enter_context(Afterwards())
        blobs = Blobs(around.store)
        bench = Bench(
            run_id=self.run_id,
            home=around.home,
            runtime=around.runtime,
            blobs=blobs,
            checkouts=checkouts,
            mirrors=self.resolution.mirrors,
            mounts=stage_mounts(self.spec, mount_sources(self.spec, around.spec_folder), around.home / "mounts"),
            cancel=self.cancel,
            afterwards=afterwards.do,
        )
        setting = Setting(
            spec=self.spec,
            bench=bench,
            cache=StepCache(blobs, enabled=self.options.use_cache),
            outside=around.outside,
            limits=Limits(self.options.step_timeout_seconds, self.options.workspace_timeout_seconds),
        )
        self.ledger.begin(self._manifest, self._text, only=self.options.only, needs_approval=self.options.approval)
        self._setting = setting

    def run_workspaces(self, run_one: Callable[[int], WorkspaceResult]) -> None:
        """Let ``run_one`` run every workspace by its number, some at a time, each in its own thread.

        One that fails leaves the others alone, unless ``fail_fast``. Whatever is raised stops all of them.
        """
        numbers = range(1, len(self.resolution.workspaces) + 1)
        with ThreadPoolExecutor(self.options.workspaces_at_once, thread_name_prefix="workspace") as pool:
            running = [pool.submit(copy_context().run, run_one, number) for number in numbers]
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
        return WorkspaceRun(self._setting, self.resolution.workspaces[number - 1])

    def collect(self, number: int, ended: WorkspaceRun, failure: Failure | None = None) -> WorkspaceResult:
        """Build the workspace's changeset specs and keep its records. Raises the store's errors.

        ``failure`` is why it did not complete, where that is no step's. A changesetTemplate that does not render is
        the workspace's failure, and leaves its steps in the cache.
        """
        failure = failure or ended.failure
        if failure is None:
            try:
                self._changesets[number] = self._build_changesets(ended)
            except BatchError as error:
                failure = Failure(reason="changesets", message=str(error))
        result = self._workspace_result(number, ended, failure)
        self._results[number] = result
        self.ledger.keep_workspace(number, result)
        return result

    def leave_out(self, number: int) -> WorkspaceResult:
        """Note a workspace that was never begun, because the run was stopped."""
        workspace = self.resolution.workspaces[number - 1]
        result = WorkspaceResult(
            title=self.title(number),
            repository=workspace.repository,
            branch=workspace.branch,
            commit=workspace.commit,
            path=workspace.path,
            state="cancelled",
            failure=Failure(reason="cancelled", message="Not begun: the run was stopped before."),
        )
        self._results[number] = result
        self.ledger.keep_workspace(number, result)
        return result

    def finish(self) -> RunManifest:
        """Number the changeset specs, keep them and the manifest. Raises the store's errors."""
        specs, results, problem = self._number_changesets()
        if problem is None:
            self.ledger.keep_changesets(specs)
        manifest = self._manifest.model_copy(
            update={
                "ended_at": now(),
                "state": "failed" if problem else self._state(results),
                "workspaces": results,
                "step_counts": StepCounts.total(result.step_counts for result in results),
                "failure": problem,
                "changeset_specs": 0 if problem else len(specs),
            }
        )
        self.ledger.keep_manifest(manifest)
        return manifest

    def _remove_leftovers(self) -> None:
        """What killed processes left. Containers go before the folders, which they may still have mounted."""
        home = self._surroundings.home
        reap_workspaces(home / "workspaces", self._surroundings.runtime.reap)
        Checkouts(home / "checkouts").prune()
        for folder in ("mirrors", "mounts"):
            sweep(home / folder)

    def _why_nothing_is_found(self) -> str:
        left_out = [
            f"{name} is left out: {reason}" for name, reason in (*self.resolution.ignored, *self.resolution.skipped)
        ]
        if self.options.only != Options().only:
            left_out.append(f"only {self.options.only!r} is asked for")
        return "\n".join(
            (
                "the batch spec matches nothing that it could run on; check its `on`, `workspaces` and `if`",
                *(f"  * {reason}" for reason in left_out),
            )
        )

    def _state(self, results: Sequence[WorkspaceResult]) -> WorkspaceState:
        states = {result.state for result in results}
        if "failed" in states and not self.options.skip_errors:
            return "failed"
        return "cancelled" if "cancelled" in states else "completed"

    def _note_the_end(self, error: BaseException) -> None:
        """The manifest of a run that was stopped. The store itself may be what failed: then it stays as it was."""
        by_us = isinstance(error, Exception)
        failure = failure_of_error(error) if by_us else Failure(reason="cancelled", message="The run was stopped.")
        stopped = self._manifest.model_copy(
            update={
                "ended_at": now(),
                "state": "failed" if by_us else "cancelled",
                "workspaces": tuple(self._results[number] for number in sorted(self._results)),
                "step_counts": StepCounts.total(result.step_counts for result in self._results.values()),
                "failure": failure,
            }
        )
        with suppress(StoreTrouble):
            self.ledger.keep_manifest(stopped)

    def _number_changesets(self) -> tuple[list[ChangesetSpec], tuple[WorkspaceResult, ...], Failure | None]:
        specs: list[ChangesetSpec] = []
        results = []
        for number in sorted(self._results):
            own = self._changesets.get(number, ())
            numbers = tuple(range(len(specs) + 1, len(specs) + 1 + len(own)))
            results.append(self._results[number].model_copy(update={"changeset_specs": numbers}))
            specs.extend(own)
        try:
            check_duplicates(specs)
            specs.extend(import_specs(self.spec.import_changesets, self.resolution.imports))
        except ChangesetError as error:
            results = [result.model_copy(update={"changeset_specs": ()}) for result in results]
            return [], tuple(results), Failure(reason="changesets", message=str(error))
        return specs, tuple(results), None

    def _build_changesets(self, ended: WorkspaceRun) -> tuple[ChangesetSpec, ...]:
        last = ended.executed
        if last is None or last.diff is None or not last.diff.size_bytes:
            return ()
        workspace = ended.workspace
        repository = BaseRepository(
            id=workspace.repository,
            name=workspace.repository,
            base_ref=f"refs/heads/{workspace.branch}",
            base_rev=workspace.commit,
            file_matches=workspace.search_result_paths,
        )
        diff = Blobs(self._surroundings.store).get(stored(last.diff))
        return build(self.spec, repository, path=workspace.path, outputs=ended.outputs, diff=diff)

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


def run_id_of(name: str, flow_run_id: str) -> str:
    """What a run is called in the store, good in keys and file names: the same for every attempt of one flow run.

    Of the flow run's id it takes the end. Prefect's ids are UUIDs of version 7: they begin with the time, and two runs
    of one minute begin alike.
    """
    return f"{name.lstrip('.-_')[:NAME_CHARACTERS] or 'run'}-{flow_run_id[-12:]}"
