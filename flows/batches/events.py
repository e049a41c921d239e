"""Upstream's event lines: what `src batch exec` writes to standard output, one JSON object per line.

Upstream: lib/batches/json_logs.go. An instance takes the results of steps from these lines: nothing may alter them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from . import gojson
from .after_step_result import AfterStepResult
from .records import RecordError

Status = Literal["STARTED", "PROGRESS", "SUCCESS", "FAILURE"]

PREPARING_IMAGES = "PREPARING_DOCKER_IMAGES"
EXECUTING_TASK = "EXECUTING_TASK"
SKIPPING_STEPS = "TASK_SKIPPING_STEPS"
STEP_SKIPPED = "TASK_STEP_SKIPPED"
PREPARING_STEP = "TASK_PREPARING_STEP"
STEP = "TASK_STEP"
STEP_RESULT = "CACHE_AFTER_STEP_RESULT"

OPERATIONS = frozenset(
    {
        *("PARSING_BATCH_SPEC", "RESOLVING_NAMESPACE", PREPARING_IMAGES, "DETERMINING_WORKSPACE_TYPE"),
        *("DETERMINING_WORKSPACES", "CHECKING_CACHE", "EXECUTING_TASKS", "LOG_FILE_KEPT", "UPLOADING_CHANGESET_SPECS"),
        *("CREATING_BATCH_SPEC", "APPLYING_BATCH_SPEC", "BATCH_SPEC_EXECUTION", EXECUTING_TASK),
        *("TASK_BUILD_CHANGESET_SPECS", SKIPPING_STEPS, STEP_SKIPPED, PREPARING_STEP, STEP, STEP_RESULT),
        "DOCKER_WATCH_DOG",
    }
)
"""All that readers know: a line with another operation is dropped."""

STDOUT, STDERR = "stdout: ", "stderr: "
"""What executors put before each line of a program."""


@dataclass(frozen=True)
class Event:
    """One line, as read."""

    operation: str
    status: str
    metadata: Mapping[str, Any]
    timestamp: str = ""

    @property
    def result(self) -> AfterStepResult:
        """The result that a CACHE_AFTER_STEP_RESULT holds. Raises RecordError."""
        value = self.metadata.get("value")
        if not isinstance(value, dict):
            raise RecordError("the event has no result")
        return AfterStepResult.decode(value)


def event_line(operation: str, status: Status, metadata: Mapping[str, Any], at: datetime) -> str:
    """One event as upstream writes it, without a newline. What is empty in ``metadata`` is left out.

    The order of ``metadata`` is kept, and of everything below it the keys are sorted, as Go does.
    """
    shown = {name: gojson.in_key_order(value) for name, value in metadata.items() if value not in _EMPTY}
    return _line(operation, status, shown, at)


def result_line(key: str, result: AfterStepResult, at: datetime) -> str:
    """The event that keeps a step's result under ``key``."""
    value = result.encode() | {"outputs": gojson.in_key_order(result.outputs)}
    return _line(STEP_RESULT, "SUCCESS", {"key": key, "value": value}, at)


def read_events(text: str) -> Iterator[Event]:
    """The events in a program's output, with or without the executor's prefixes; other lines are passed over."""
    for line in text.split("\n"):
        if not line.startswith(STDERR) and (event := _read(line.removeprefix(STDOUT))):
            yield event


def go_time(seconds: int, nanoseconds: int = 0) -> str:
    """A point in time (since 1970, UTC) as Go writes it: RFC 3339, as many decimals as it needs."""
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction}Z"


_EMPTY: tuple[object, ...] = ("", 0, None, {}, [], b"")


def _line(operation: str, status: Status, metadata: Mapping[str, Any], at: datetime) -> str:
    milliseconds = at.microsecond // 1000
    return gojson.marshal(
        {
            "operation": operation,
            "timestamp": go_time(int(at.replace(microsecond=0).timestamp()), milliseconds * 1_000_000),
            "status": status,
            "metadata": dict(metadata),
        }
    )


def _read(line: str) -> Event | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("operation") not in OPERATIONS:
        return None
    metadata = found.get("metadata")
    return Event(
        found["operation"],
        str(found.get("status", "")),
        metadata if isinstance(metadata, dict) else {},
        str(found.get("timestamp", "")),
    )
