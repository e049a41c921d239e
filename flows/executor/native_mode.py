"""What an instance reads of a native job: of each step the entries `pre`, `run`, `post`, as upstream's helper has them.

Upstream: cmd/batcheshelper/run/pre.go, post.go. No helper runs here, and no container only to evaluate an `if`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..batches import events
from ..batches.after_step_result import AfterStepResult
from ..batches.events import STDOUT, Status
from ..batches.execution_input import ExecutionInput
from ..batches.records import now
from ..batches.results import Failure
from ..step_runs import Watcher
from .input_run import Stage
from .job_log import JobLog, LogEntry, show_error
from .line_watcher import LineWatcher

KEY = "step.docker.step.{}.{}"


class NativeStory:
    """An ``input_run.Observer`` that writes the log entries of a native job."""

    def __init__(self, entries: JobLog, given: ExecutionInput) -> None:
        self._entries, self._given = entries, given
        self._running: dict[int, LogEntry] = {}
        self.failed_command = ""
        """The key and the exit code of what ended the job, in upstream's words."""

    def goes_on(self, first: int) -> None:
        entry = self._entries.open("step.docker.apply-diff", ["git", "apply", "-p0", "state.diff"])
        entry.say(f"the diff after step {first} was sent with the job")
        entry.close(0)

    def skipped(self, index: int, reason: str) -> None:
        entry = self._open(index, "pre")
        _write(entry, events.STEP_SKIPPED, "PROGRESS", {"step": index + 1})
        entry.say(reason)
        entry.close(0)

    def started(self, index: int, environment: dict[str, str]) -> None:
        entry = self._open(index, "pre")
        _write(entry, events.STEP, "STARTED", {"version": 2, "step": index, "env": environment})
        entry.close(0)
        self._running[index] = self._open(index, "run", self._given.spec.steps[index].container)

    def stream(self, index: int, name: str) -> Watcher:
        return LineWatcher(f"{name}: ", self._running[index].lines)

    def completed(self, index: int, key: str, result: AfterStepResult) -> None:
        self._running.pop(index).close(0)
        entry = self._open(index, "post")
        shown = {"version": 2, "step": index, "diff": result.encode()["diff"], "outputs": dict(result.outputs or {})}
        _write(entry, events.STEP, "SUCCESS", shown)
        self._keep(entry, key, result)

    def failed(self, index: int, failure: Failure, exit_code: int, stage: Stage) -> None:
        running = self._running.pop(index, None)
        after_the_run = failure.reason in ("outputs", "secret_in_diff") or exit_code == 0
        if running is None:
            entry, exit_code = self._open(index, "pre"), 1
        elif after_the_run:
            running.close(0)
            entry, exit_code = self._open(index, "post"), 1
        else:
            entry = running
        show_error(entry, failure.message)
        entry.close(exit_code)
        self.failed_command = f'running command "{entry.key}": command failed with exit code {exit_code}'

    def nothing_ran(self, key: str, result: AfterStepResult) -> None:
        """No step ran: ``result`` stands for the workspace as it was, or came with the job."""
        self._keep(self._open(result.step_index, "post"), key, result)

    def _keep(self, entry: LogEntry, key: str, result: AfterStepResult) -> None:
        entry.lines(f"{STDOUT}{events.result_line(key, result, now())}\n", keep=True)
        entry.close(0)

    def _open(self, index: int, part: str, *command: str) -> LogEntry:
        return self._entries.open(KEY.format(index, part), ["batchwright", part, str(index), *command])


def _write(entry: LogEntry, operation: str, status: Status, metadata: Mapping[str, Any]) -> None:
    entry.lines(f"{STDOUT}{events.event_line(operation, status, metadata, now())}\n", keep=True)
