"""Runs what an instance asks for: one workspace's steps, told step by step to an observer. Knows no queue, no Prefect.

It is what `src batch exec` does, on the same machinery as every other workspace here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from blocks.blobs import Blob
from blocks.runtime import RuntimeTrouble
from blocks.store import StoreTrouble

from ..batches.after_step_result import AfterStepResult, ChangedFiles
from ..batches.diff import Changes, changes, parse, statistics
from ..batches.errors import BatchError, TemplateError
from ..batches.execution_input import ExecutionInput
from ..batches.outputs import OutputError
from ..batches.records import Blob as BlobRecord
from ..batches.records import now
from ..batches.results import Failure, StepResult
from ..batches.results import masked as without_values
from ..batches.steps import Outside
from ..batches.template import StepState
from ..execution import Limits, Setting, WorkspaceRun
from ..layers import merge, state_digest
from ..packing import pack
from ..scratch import scratch_folder
from ..step_cache import StepCache, recorded, stored
from ..step_runs import Bench, Plan, Watcher
from .bounded_text import HeadAndTail
from .diff_layer import make_layer
from .mount_metadata import mount_metadata

STREAM_BYTES = 8 * 1024 * 1024
"""How much of a stream a result holds. Longer ones are cut in the middle: results travel in log entries."""

_TROUBLE = (BatchError, RuntimeTrouble, StoreTrouble)


Stage = Literal["condition", "image", "preparing", "running"]
"""How far a step got: its `if`, its image, its templates, its container with what comes after it."""


class Observer(Protocol):
    """Hears what becomes of the steps, which count from 0."""

    def goes_on(self, first: int) -> None:
        """The steps before ``first`` have a result already."""

    def skipped(self, index: int, reason: str) -> None:
        """The step's condition is not true."""

    def started(self, index: int, environment: dict[str, str]) -> None:
        """The step is prepared, and runs with this environment (secrets are masked)."""

    def stream(self, index: int, name: str) -> Watcher:
        """Takes the step's "stdout" or "stderr"."""

    def completed(self, index: int, key: str, result: AfterStepResult) -> None:
        """The step has ended well; ``key`` is upstream's key of its result."""

    def failed(self, index: int, failure: Failure, exit_code: int, stage: Stage) -> None:
        """The step has failed; ``exit_code`` is -1 where no container ended."""


@dataclass(frozen=True)
class Conditions:
    """Beside what is asked for: how to run it. ``files`` is the folder that `mount` paths are looked up in."""

    outside: Outside = field(default_factory=Outside)
    limits: Limits = field(default_factory=Limits)
    files: Path | None = None
    result_version: int = 2
    """Of the results: 1 holds diffs as text, 2 as bytes."""
    heeds_skipped_steps: bool = False
    """Whether the instance's word that a step is skipped is taken; otherwise its condition is evaluated."""


class InputRun:
    """One workspace from its set-up to its last step. For one thread at a time; close it.

    Every call may be repeated after a temporary error, as with ``WorkspaceRun``.
    """

    def __init__(
        self, given: ExecutionInput, bench: Bench, cache: StepCache, conditions: Conditions, observer: Observer
    ) -> None:
        self.given = given
        self._bench, self._conditions, self._observer = bench, conditions, observer
        workspace = given.workspace
        if not conditions.heeds_skipped_steps:
            workspace = workspace.model_copy(update={"skipped_steps": ()})
        self._setting = Setting(given.spec, bench, cache, conditions.outside, conditions.limits)
        self._run = WorkspaceRun(self._setting, workspace)
        self._run.watch = observer.stream
        self._run.begins = self._begins
        self._begun: set[int] = set()
        self._told: set[int] = set()
        self._is_seeded = False

    def set_up(self) -> None:
        """Take up the cached result that was sent, and what our own cache has; check out if something is to run."""
        self._seed()
        try:
            if self.given.first_step < len(self.given.spec.steps):
                self._run.set_up()
        except TemplateError as error:
            self.fail(error)

    def run_step(self, index: int) -> StepResult:
        """The result of step ``index``, and the observer has heard of it. Raises temporary errors only.

        What cannot be tried again is a failed step.
        """
        try:
            result = self._run.run_step(index)
        except _TROUBLE as error:
            if getattr(error, "temporary", False) or index >= len(self.given.spec.steps):
                raise
            self.fail(error)
            result = self._run.results[-1]
        self._tell(result)
        return result

    def run_all(self) -> None:
        """Set up and run every step, without another try after temporary errors: those are failures too."""
        try:
            self.set_up()
            for index in range(self.given.first_step, len(self.given.spec.steps)):
                if self.run_step(index).failure is not None:
                    return
        except _TROUBLE as error:
            self.fail(error)

    def fail(self, error: BaseException) -> Failure:
        """Note that the workspace cannot go on. Returns what people are told."""
        index = len(self._run.results)
        failure = self._run.fail(error)
        if index < len(self._run.results):
            self._told.add(index)
            self._observer.failed(index, failure, -1, _stage_of(error, begun=index in self._begun))
        return failure

    def results(self) -> Iterator[tuple[str, AfterStepResult]]:
        """The results that the instance should keep, with their keys, as far as the steps got.

        The cached result that was sent is among them only if no other step ran. Raises the store's errors.
        """
        fresh = [result for result in self._run.results if self._is_fresh(result)]
        if not fresh and self.given.cached is not None:
            yield self.key(self.given.cached.step_index), self.given.cached
        for result in fresh:
            yield self.key(result.index), self.after_step(result)

    def nothing_ran(self) -> tuple[str, AfterStepResult] | None:
        """What stands for a workspace all of whose steps were skipped: an instance takes no job without a result."""
        results = self._run.results
        if self.failure is not None or len(results) < len(self.given.spec.steps) or self._run.executed is not None:
            return None
        last = len(results) - 1
        skipped = AfterStepResult(
            version=self._conditions.result_version, step_index=last, diff_or_nil=b"", outputs={}, skipped=True
        )
        return self.key(last), skipped

    def key(self, index: int) -> str:
        """Upstream's key of the result of step ``index``."""
        outer = [f"{name}={value}" for name, value in self._conditions.outside.values.items()]
        steps, files = self.given.spec.steps[: index + 1], self._conditions.files
        return self.given.key(index, outer, mount_metadata(steps, files) if files else ())

    def after_step(self, result: StepResult) -> AfterStepResult:
        """A completed step as upstream keeps it."""
        return AfterStepResult(
            version=self._conditions.result_version,
            changed_files=_changed_files(result.changes),
            stdout=self._text(result.stdout),
            stderr=self._text(result.stderr),
            step_index=result.index,
            diff_or_nil=self._bench.blobs.get(stored(result.diff)) if result.diff else b"",
            outputs=dict(result.outputs),
        )

    @property
    def failure(self) -> Failure | None:
        """Why the workspace did not complete."""
        return self._run.failure

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self._run.done

    def watched_by(self, show: Callable[[str], None]) -> None:
        """Let ``show`` take what people watch in the dashboard."""
        self._run.show = show

    def close(self) -> None:
        """Leave nothing behind."""
        self._run.close()

    def _seed(self) -> None:
        cached = self.given.cached
        if cached is None or self._is_seeded:
            return
        first = self.given.first_step
        layer, digest = self._layer(cached.diff) if cached.diff and first < len(self.given.spec.steps) else (None, "")
        known = [_placeholder(index) for index in range(cached.step_index)]
        known.append(self._known(cached, digest))
        # Of the diff, not as sent: native results of upstream's lack the lists.
        changed = changes(cached.diff)
        state = StepState(
            modified=changed.modified,
            added=changed.added,
            deleted=changed.deleted,
            renamed=changed.renamed,
            stdout=cached.stdout,
            stderr=cached.stderr,
        )
        self._run.go_on_from(known, state, layer)
        self._is_seeded = True
        if first < len(self.given.spec.steps):
            self._observer.goes_on(first)

    def _layer(self, diff: bytes) -> tuple[Blob, str]:
        """The diff as a layer in the store, and the digest of the workspace with it."""
        bench, workspace = self._bench, self.given.workspace
        checkout = bench.checkouts.get(
            bench.mirrors[workspace.repository],
            workspace.commit,
            workspace.branch,
            sparse_path=workspace.path if workspace.only_fetch_workspace else "",
        )
        folder = bench.home / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder) as scratch:
            make_layer(diff, checkout, scratch / "layer")
            with (scratch / "packed").open("wb") as file:
                pack(scratch / "layer", file)
            digest = state_digest(merge([scratch / "layer"], checkout.tree))
            return bench.blobs.put_file(scratch / "packed"), digest

    def _known(self, cached: AfterStepResult, digest: str) -> StepResult:
        blobs, files, time = self._bench.blobs, parse(cached.diff), now()
        return StepResult(
            index=cached.step_index,
            state="completed",
            started_at=time,
            ended_at=time,
            stdout=recorded(blobs.put(cached.stdout.encode("utf-8", "surrogatepass"))),
            stderr=recorded(blobs.put(cached.stderr.encode("utf-8", "surrogatepass"))),
            diff=recorded(blobs.put(cached.diff)),
            state_digest=digest or None,
            changes=changes(files),
            diffstat=statistics(files),
            outputs=dict(cached.outputs or {}),
        )

    def _begins(self, plan: Plan) -> None:
        index = plan.rendered.index
        if index not in self._begun:  # another try after trouble is no news
            self._begun.add(index)
            shown = without_values(plan.rendered.environment, plan.rendered.secret_names)
            mask = self._setting.masker.mask_text
            self._observer.started(index, {name: mask(value) for name, value in shown.items()})

    def _tell(self, result: StepResult) -> None:
        index = result.index
        if index in self._told:
            return
        self._told.add(index)
        if result.state == "skipped":
            self._observer.skipped(index, result.skip_reason)
            return
        if index not in self._begun:
            self._replay(result)
        if result.failure is None:
            self._observer.completed(index, self.key(index), self.after_step(result))
        else:
            code = result.exit.code if result.exit else -1
            self._observer.failed(index, result.failure, code, "running")

    def _replay(self, result: StepResult) -> None:
        """Tell of a step whose result was in our cache as if it ran now."""
        self._observer.started(result.index, dict(result.rendered.environment) if result.rendered else {})
        for name, blob in (("stdout", result.stdout), ("stderr", result.stderr)):
            with closing(self._observer.stream(result.index, name)) as stream:
                if blob is not None and blob.size_bytes:
                    self._bench.blobs.copy_to(stored(blob), stream)

    def _is_fresh(self, result: StepResult) -> bool:
        return result.state == "completed" and result.index >= self.given.first_step

    def _text(self, blob: BlobRecord | None) -> str:
        if blob is None or not blob.size_bytes:
            return ""
        ends = HeadAndTail(STREAM_BYTES // 2)
        self._bench.blobs.copy_to(stored(blob), ends)
        return ends.content().decode("utf-8", "surrogateescape")


def _placeholder(index: int) -> StepResult:
    time = now()
    reason = "the instance has the result of a later step"
    return StepResult(index=index, state="skipped", skip_reason=reason, started_at=time, ended_at=time)


def _changed_files(found: Changes) -> ChangedFiles:
    def listed(paths: Sequence[str]) -> list[str] | None:
        return list(paths) or None  # Go's nil list: upstream appends to nothing

    return ChangedFiles(
        modified=listed(found.modified),
        added=listed(found.added),
        deleted=listed(found.deleted),
        renamed=listed(found.renamed),
    )


def _stage_of(error: BaseException, *, begun: bool) -> Stage:
    if isinstance(error, OutputError) or begun:
        return "running"
    if not isinstance(error, TemplateError):
        return "image"
    field = error.field.partition(".")[2].partition(".")[2]
    if field in ("if", "container"):
        return "condition" if field == "if" else "image"
    return "running" if field.startswith("outputs.") else "preparing"
