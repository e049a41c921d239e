"""The event lines of `src batch exec`, in its order: for its command here, and for jobs that run src-cli.

Upstream: src-cli cmd/src/batch_exec.go, internal/batches/ui/json_lines.go, internal/batches/executor/run_steps.go.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from threading import RLock
from typing import Any

from ..batches import events
from ..batches.after_step_result import AfterStepResult
from ..batches.events import Status
from ..batches.records import now
from ..batches.results import Failure
from ..step_runs import Watcher
from .input_run import Stage
from .line_watcher import LineWatcher

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

Emit = Callable[[str, bool], None]
"""Takes one line without its newline, and whether it must be kept whatever its size: it carries a result."""


class EventStream:
    """An ``input_run.Observer`` that writes event lines. Safe to call from threads."""

    def __init__(self, emit: Emit, *, clock: Callable[[], datetime] = now) -> None:
        self._emit, self._clock = emit, clock
        self._lock = RLock()
        number = secrets.randbits(63)
        self._has_begun = False
        self._task = ""
        while number:
            number, digit = divmod(number, len(_ALPHABET))
            self._task = _ALPHABET[digit] + self._task

    def images(self, done: Iterable[int], total: int) -> None:
        """The images are made ready; ``done`` yields how many are, one by one. What it raises, ends that."""
        self._line(events.PREPARING_IMAGES, "STARTED", {})
        self._line(events.PREPARING_IMAGES, "PROGRESS", {"total": total})
        for count in done:
            self._line(events.PREPARING_IMAGES, "PROGRESS", {"done": count, "total": total})
        self._line(events.PREPARING_IMAGES, "SUCCESS", {})

    def begins(self) -> None:
        """The workspace begins; another try of that is no news."""
        if self._has_begun:
            return
        self._has_begun = True
        self._line(events.EXECUTING_TASK, "STARTED", {"taskID": self._task})

    def goes_on(self, first: int) -> None:
        self._line(events.SKIPPING_STEPS, "PROGRESS", {"taskID": self._task, "startStep": first + 1})

    def skipped(self, index: int, reason: str) -> None:
        self._line(events.STEP_SKIPPED, "PROGRESS", self._of(index))

    def started(self, index: int, environment: dict[str, str]) -> None:
        self._line(events.PREPARING_STEP, "STARTED", self._of(index))
        self._line(events.PREPARING_STEP, "SUCCESS", self._of(index))
        self._line(events.STEP, "STARTED", {**self._of(index), "env": environment})

    def stream(self, index: int, name: str) -> Watcher:
        return LineWatcher(
            f"{name}: ", lambda text: self._line(events.STEP, "PROGRESS", {**self._of(index), "out": text}, keep=False)
        )

    def completed(self, index: int, key: str, result: AfterStepResult) -> None:
        # The diff stands here as text whatever the results' version, as upstream has it.
        diff = result.diff.decode("utf-8", "surrogateescape")
        self._line(events.STEP, "SUCCESS", {**self._of(index), "diff": diff, "outputs": dict(result.outputs or {})})

    def failed(self, index: int, failure: Failure, exit_code: int, stage: Stage) -> None:
        if stage == "preparing":
            self._line(events.PREPARING_STEP, "STARTED", self._of(index))
            self._line(events.PREPARING_STEP, "FAILURE", {**self._of(index), "error": failure.message})
        if stage in ("preparing", "running"):
            told = {"exitCode": exit_code, "error": failure.message}
            self._line(events.STEP, "FAILURE", {**self._of(index), **told})

    def ended(self, results: Iterable[tuple[str, AfterStepResult]], failure: Failure | None) -> None:
        """The workspace has ended, with these results."""
        for key, result in results:
            with self._lock:
                self._emit(events.result_line(key, result, self._clock()), True)
        if failure is None:
            self._line(events.EXECUTING_TASK, "SUCCESS", {"taskID": self._task})
        else:
            self._line(events.EXECUTING_TASK, "FAILURE", {"taskID": self._task, "error": failure.message})

    def _of(self, index: int) -> dict[str, Any]:
        return {"taskID": self._task, "step": index + 1}

    def _line(self, operation: str, status: Status, metadata: Mapping[str, Any], *, keep: bool = True) -> None:
        with self._lock:
            self._emit(events.event_line(operation, status, metadata, self._clock()), keep)
