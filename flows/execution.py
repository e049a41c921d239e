"""The steps of a workspace -> results, through the step cache. Knows no Prefect.

A ``WorkspaceRun`` is one workspace's life: ``set_up``, ``run_step`` for each step, ``close``. Every call may be
repeated after a temporary error: what was reached stays reached. A step begins again on a fresh layer, unless its
container has ended: then just what could not be stored is stored again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from blocks.blobs import Blob

from .batches.cache import StepInputs, step_key
from .batches.diff import changes, parse, statistics
from .batches.errors import PermanentError, TimeIsUp
from .batches.masking import Masker
from .batches.outputs import render_outputs
from .batches.records import Blob as BlobRecord
from .batches.records import now
from .batches.results import ExitRecord, Failure, RenderedRecord, StepResult, masked
from .batches.spec import BatchSpec
from .batches.steps import Outside, render, skip_reason
from .batches.template import StepContext, StepState
from .batches.workspaces import Workspace
from .failures import failure_of_error, failure_of_exit, refusal_failure, secret_failure
from .live_log import LiveLog
from .step_cache import StepCache, recorded, stored
from .step_runs import Bench, LayerOf, Plan, Ran, StepRunner, Watch, Watcher

log = logging.getLogger(__name__)


_LARGEST_TEXT_BYTES = 64 << 20
"""Of an output that a template asks for: it is held several times."""


_LONGEST_MESSAGE = 32 << 10


class TextTooLarge(PermanentError):
    """A template asks for an output that is too large for one."""

    def __init__(self, name: str, size_bytes: int) -> None:
        super().__init__(name, size_bytes)
        self.name, self.size_bytes = name, size_bytes

    def __str__(self) -> str:
        return (
            f"a template asks for a step's {self.name} of {self.size_bytes:,} bytes, and {_LARGEST_TEXT_BYTES:,} is "
            "the most; let the step print less, or write it to a file that the next step reads"
        )


@dataclass(frozen=True)
class Limits:
    """How long things may take. A workspace's time counts from its set-up to its last step. None: no limit."""

    step_seconds: float | None = None
    workspace_seconds: float | None = 3600.0


@dataclass(frozen=True)
class Setting:
    """What all workspaces of one run share."""

    spec: BatchSpec
    bench: Bench
    cache: StepCache
    outside: Outside = field(default_factory=Outside)
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def masker(self) -> Masker:
        """Hides every secret that any step may see: a later step can print what an earlier one wrote."""
        asked = {entry.name for step in self.spec.steps for entry in step.env if entry.value is None}
        known = asked & self.outside.secrets & self.outside.values.keys()
        return Masker({name: self.outside.values[name] for name in known})


@dataclass(frozen=True)
class _Reached:
    """Where a workspace stands after the steps so far."""

    previous: StepState = field(default_factory=StepState)
    outputs: Mapping[str, object] = field(default_factory=dict)
    state_digest: str = ""
    layers: tuple[LayerOf, ...] = ()


@dataclass(frozen=True)
class _Ended:
    """A step whose container has ended. ``ran`` is on this machine; the store may not have it yet."""

    plan: Plan
    ran: Ran
    failure: Failure | None
    started_at: datetime
    ended_at: datetime


class WorkspaceRun:
    """One workspace of one run. For one thread at a time."""

    def __init__(self, setting: Setting, workspace: Workspace) -> None:
        self.workspace = workspace
        self.show: Callable[[str], None] = log.info
        """Takes the steps' output as people watch it."""
        self.watch: Watch = self._show_live
        """Takes the steps' streams as they come; in place of ``show``."""
        self.begins: Callable[[Plan], None] = _ignore
        """Hears of each step that a container is about to run."""
        self.results: list[StepResult] = []
        self.cached: set[int] = set()
        self._setting = setting
        self._reached = _Reached()
        self._runner = StepRunner(setting.bench, workspace, setting.masker, lambda *stream: self.watch(*stream))
        self._began_at = time.monotonic()
        self._attempts = 0
        self._ended: _Ended | None = None

    def set_up(self) -> None:
        """Take what the step cache has, and prepare the checkout if something is left to run."""
        while not self.done and self._advance_without_running():
            pass
        if not self.done:
            self._runner.open(self._plan(len(self.results)).image, self.steps_left)

    def go_on_from(self, known: Sequence[StepResult], state: StepState, layer: Blob | None) -> None:
        """Begin behind steps whose results somebody else had: the last of ``known`` is what they came to.

        ``state`` is what templates see of it, ``layer`` what was changed (None: nothing). Before ``set_up``.
        """
        last = known[-1]
        layers = (LayerOf(last.index, layer),) if layer else ()
        self._reached = _Reached(state, last.outputs, last.state_digest or "", layers)
        self.results = list(known)

    def run_step(self, index: int) -> StepResult:
        """The result of step ``index``; the steps before have one. Runs a container only if the step cache has none.

        Raises TemplateError, the runtime's and the store's errors. A failed step is a result, and ends the workspace.
        """
        if index == len(self.results) and (self._ended or not self._advance_without_running()):
            self._ended = self._ended or self._execute(self._plan(index))
            self._take(self._ended)
        return self.results[index]

    def fail(self, error: BaseException) -> Failure:
        """Note that the workspace cannot go on because of ``error``. Returns what people are told."""
        told = self.failure
        if told is None:
            told = self._without_secrets(failure_of_error(error))
            if self.steps_left:
                index, time = len(self.results), now()
                self.results.append(
                    StepResult(index=index, state="failed", started_at=time, ended_at=time, failure=told)
                )
        return told

    def close(self) -> None:
        """Leave nothing behind. May be called more than once."""
        self._runner.close()

    @property
    def done(self) -> bool:
        """Whether every step has its result, or one has failed."""
        return self.failure is not None or self.steps_left == 0

    @property
    def steps_left(self) -> int:
        """How many steps have no result yet."""
        return len(self._setting.spec.steps) - len(self.results)

    @property
    def failure(self) -> Failure | None:
        """Why the workspace did not complete."""
        return self.results[-1].failure if self.results else None

    @property
    def is_cached(self) -> bool:
        """Whether all is known and something was taken from the cache: nothing new."""
        return self.done and bool(self.cached)

    @property
    def executed(self) -> StepResult | None:
        """The last step that ran, now or earlier: changeset specs are built from it."""
        return next((result for result in reversed(self.results) if result.state == "completed"), None)

    @property
    def outputs(self) -> Mapping[str, object]:
        """All outputs so far."""
        return self._reached.outputs

    @property
    def seconds(self) -> float:
        """Since the workspace began."""
        return time.monotonic() - self._began_at

    def _advance_without_running(self) -> bool:
        """Take the next step's result if it needs no container: it is skipped, or cached."""
        index = len(self.results)
        step = self._setting.spec.steps[index]
        if index in self.workspace.skipped_steps:
            return self._skip(index, f"if: {' '.join(step.condition.split())} is false for this repository")
        if skipped := skip_reason(step, index, self._context()):
            return self._skip(index, skipped.reason)
        found = self._setting.cache.find(self._plan(index).key)
        if found is None or not self._can_build_on(found):
            return False
        self.cached.add(index)
        self._complete(found.model_copy(update={"index": index}))
        return True

    def _can_build_on(self, found: StepResult) -> bool:
        """A change without its layer cannot be built on: it counts only if nothing comes after it."""
        return (
            self.steps_left == 1 or found.layer is not None or (found.state_digest or "") == self._reached.state_digest
        )

    def _plan(self, index: int) -> Plan:
        """What step ``index`` would run with now. Raises TemplateError and what the runtime says of the image."""
        bench, workspace = self._setting.bench, self.workspace
        rendered = render(self._setting.spec.steps[index], index, self._context(), self._setting.outside)
        image = bench.runtime.resolve_image(rendered.image, bench.cancel)
        inputs = StepInputs(
            base_commit=workspace.commit,
            path=workspace.path,
            sparse=workspace.only_fetch_workspace,
            state_digest=self._reached.state_digest,
            image_digest=image.digest,
            shell=image.shell,
            working_directory=f"/work/{workspace.path}".rstrip("/"),
            script=rendered.script,
            environment=rendered.environment,
            secret_names=rendered.secret_names,
            files={target: _text_digest(content) for target, content in rendered.files.items()},
            mounts={mount.mountpoint: bench.mounts[mount.path].digest for mount in rendered.mounts},
            runtime=bench.runtime.fingerprint(),
        )
        return Plan(
            rendered=rendered,
            image=image,
            key=step_key(inputs),
            state_digest=inputs.state_digest,
            working_directory=inputs.working_directory,
            file_digests=inputs.files,
            mount_digests=inputs.mounts,
        )

    def _execute(self, plan: Plan) -> _Ended:
        """Run the step's container, and tell how it ended."""
        self._attempts += 1
        self.begins(plan)
        started_at = now()
        limit, whole = self._time_left()
        if whole and limit is not None and limit <= 0:
            raise TimeIsUp(self._setting.limits.workspace_seconds or 0)
        before = parse(self._diff_so_far())
        ran = self._runner.run(plan, self._reached.layers, before, steps_left=self.steps_left, limit_seconds=limit)
        failure = None
        if not ran.exit.ok:
            shown = self._setting.limits.workspace_seconds if whole else limit
            failure = self._without_secrets(failure_of_exit(ran, plan, limit_seconds=shown, whole=whole))
        elif ran.leaked_secret:
            failure = secret_failure(ran.leaked_secret)
        elif ran.refusal:
            failure = self._without_secrets(refusal_failure(ran.refusal))
        return _Ended(plan, ran, failure, started_at, now())

    def _take(self, ended: _Ended) -> None:
        """Keep what the step left, and go on from it. Raises the store's errors; then it can be called again."""
        result = self._result(ended)
        if not ended.failure:
            self._setting.cache.keep(result)
        self._ended, self._attempts = None, 0
        if ended.failure:
            self.results.append(result)
        else:
            self._complete(result)

    def _show_live(self, index: int, stream: str) -> Watcher:
        return LiveLog(f"step {index + 1} {stream} | ", self.show)

    def _without_secrets(self, failure: Failure) -> Failure:
        message = self._setting.masker.mask_text(failure.message)
        if len(message) > _LONGEST_MESSAGE:  # it may quote what a step wrote
            half = _LONGEST_MESSAGE // 2
            left_out = f"\n(... {len(message) - 2 * half} characters left out ...)\n"
            message = message[:half] + left_out + message[-half:]
        return failure.model_copy(update={"message": message})

    def _diff_so_far(self) -> bytes:
        last = self.executed
        if last is None or last.diff is None or not last.diff.size_bytes:
            return b""
        return self._setting.bench.blobs.get(stored(last.diff))

    def _time_left(self) -> tuple[float | None, bool]:
        """How long the next step may take, and whether it is the workspace's limit that says so."""
        limits = self._setting.limits
        if limits.workspace_seconds is None:
            return limits.step_seconds, False
        left = limits.workspace_seconds - self.seconds
        if limits.step_seconds is not None and limits.step_seconds < left:
            return limits.step_seconds, False
        return left, True

    def _result(self, ended: _Ended) -> StepResult:
        plan, ran, failure = ended.plan, ended.ran, ended.failure
        change = [] if failure or ran.diff is None else [ran.diff, *([ran.layer] if ran.layer else [])]
        kept = self._setting.bench.blobs.put_files([ran.stdout, ran.stderr, *change])
        stdout, stderr, diff, layer = [*map(recorded, kept), None, None][:4]
        result = StepResult(
            index=plan.rendered.index,
            state="failed" if failure else "completed",
            failure=failure,
            rendered=self._rendered_record(plan),
            exit=ExitRecord(
                code=ran.exit.code,
                oom_killed=ran.exit.oom_killed,
                timed_out=ran.exit.timed_out,
                cancelled=ran.exit.cancelled,
                disk_full=ran.exit.disk_full,
            ),
            started_at=ended.started_at,
            ended_at=ended.ended_at,
            stdout=stdout,
            stderr=stderr,
            cache_key=plan.key,
            attempts=self._attempts,
        )
        if failure or ran.diff is None:
            return result
        files = parse(ran.diff.read_bytes())
        return result.model_copy(
            update={
                "diff": diff,
                "layer": layer,
                "state_digest": ran.state_digest or None,
                "changes": changes(files),
                "diffstat": statistics(files),
            }
        )

    def _rendered_record(self, plan: Plan) -> RenderedRecord:
        rendered, masker = plan.rendered, self._setting.masker
        shown = masked(rendered.environment, rendered.secret_names)
        return RenderedRecord(
            image=rendered.image,
            image_digest=plan.image.digest,
            shell=plan.image.shell,
            script=masker.mask_text(rendered.script),
            environment={name: masker.mask_text(value) for name, value in shown.items()},
            files=dict(plan.file_digests),
            mounts=dict(plan.mount_digests),
            working_directory=plan.working_directory,
        )

    def _skip(self, index: int, reason: str) -> bool:
        time = now()
        reason = self._setting.masker.mask_text(reason)
        self.results.append(
            StepResult(index=index, state="skipped", skip_reason=reason, started_at=time, ended_at=time)
        )
        return True

    def _complete(self, result: StepResult) -> None:
        """Go on from a completed step: its outputs, its state, its layer. Raises OutputError, TemplateError.

        Outputs are rendered anew, also of a cached result: they are a function of what the step left, and an edited
        `outputs` needs no container.
        """
        reached = self._reached
        step = self._state_of(result)
        outputs = render_outputs(
            self._setting.spec.steps[result.index].outputs, replace(self._context(), step=step), result.index
        )
        layers = reached.layers
        digest = result.state_digest or ""
        if digest != reached.state_digest:
            layers = (*layers, LayerOf(result.index, stored(result.layer) if result.layer else None))
        self._reached = _Reached(step, outputs, digest, layers)
        self.results.append(result.model_copy(update={"outputs": outputs}))

    def _context(self) -> StepContext:
        spec, workspace, reached = self._setting.spec, self.workspace, self._reached
        return StepContext(
            batch_change_name=spec.name,
            batch_change_description=spec.description,
            repository_name=workspace.repository,
            repository_branch=workspace.branch,
            search_result_paths=workspace.search_result_paths,
            path=workspace.path,
            outputs=reached.outputs,
            steps=replace(reached.previous, stdout="", stderr=""),
            previous_step=reached.previous,
        )

    def _state_of(self, result: StepResult) -> StepState:
        return StepState(
            modified=result.changes.modified,
            added=result.changes.added,
            deleted=result.changes.deleted,
            renamed=result.changes.renamed,
            stdout=self._text("stdout", result.stdout),
            stderr=self._text("stderr", result.stderr),
        )

    def _text(self, name: str, blob: BlobRecord | None) -> Callable[[], str]:
        """A stream as templates see it, read when one asks."""

        def read() -> str:
            if blob is None or not blob.size_bytes:
                return ""
            if blob.size_bytes > _LARGEST_TEXT_BYTES:
                raise TextTooLarge(name, blob.size_bytes)
            return self._setting.bench.blobs.get(stored(blob)).decode("utf-8", "surrogateescape")

        return read


def _ignore(_plan: Plan) -> None:
    """Nobody wants to hear."""


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
