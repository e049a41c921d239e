"""What an instance keeps of an execution, step by step: log entries of src-cli's mode or the native one, old or new.

Upstream has a reader for each (`batch_spec_workspace_resolver` 1 and 2); here all come to the same stories.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from . import events
from .after_step_result import AfterStepResult
from .errors import PermanentError
from .events import Event, read_events
from .records import RecordError

_NATIVE_KEY = re.compile(r"step\.(?:docker|kubernetes)\.step\.(\d+)\.(pre|run|post)")
_CLI_KEYS = ("step.src.0", "step.src.batch-exec")


class RecordUnknown(PermanentError):
    """The text is no record of an execution."""


@dataclass(frozen=True)
class StepStory:
    """What became of one step, counted from 0. ``output`` holds lines with `stdout: ` or `stderr: ` in front."""

    index: int
    state: Literal["started", "completed", "failed", "skipped", "cached"] = "started"
    environment: Mapping[str, str | None] = field(default_factory=dict)
    output: str = ""
    exit_code: int | None = None
    error: str = ""
    key: str = ""
    result: AfterStepResult | None = None


def read_stories(text: str) -> tuple[StepStory, ...]:
    """The steps of a record, in their order: a JSON list of log entries, or the event lines of `src batch exec`.

    Raises RecordUnknown, RecordError (a result that is damaged).
    """
    if text.lstrip().startswith("["):
        return from_entries(_entries(text))
    found = tuple(read_events(text))
    if not found:
        raise RecordUnknown("this is no JSON list of log entries, and has no event lines of `src batch exec`")
    return _ordered(_from_events({}, found))


def from_entries(entries: Sequence[Mapping[str, Any]]) -> tuple[StepStory, ...]:
    """The steps that these log entries tell of. Raises RecordError."""
    stories: dict[int, StepStory] = {}
    for entry in entries:
        key, out = str(entry.get("key", "")), str(entry.get("out") or "")
        if key in _CLI_KEYS:
            stories = _from_events(stories, read_events(out))
        elif native := _NATIVE_KEY.fullmatch(key):
            index = int(native[1])
            story = stories.get(index, StepStory(index))
            stories[index] = _from_native(story, native[2], out, entry.get("exitCode"))
    return _ordered(stories)


def _entries(text: str) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordUnknown(f"the log entries are not JSON: {error}") from error
    if not all(isinstance(entry, dict) for entry in found):
        raise RecordUnknown("a log entry is no JSON object")
    return list(found)


def _from_native(story: StepStory, part: str, out: str, exit_code: Any) -> StepStory:
    code = exit_code if isinstance(exit_code, int) else None
    if part == "run":
        ended = {} if code is None else {"exit_code": code}
        return replace(story, output=out, state="failed" if code else story.state, **ended)  # type: ignore[arg-type]
    for event in read_events(out):
        if event.operation == events.STEP_SKIPPED:
            story = replace(story, state="skipped")
        elif event.operation == events.STEP:
            story = _with_step_event(story, event)
        elif event.operation == events.STEP_RESULT:
            story = _with_result(story, event)
    if code:
        error = "\n".join(line for line in out.splitlines() if not line.startswith("stdout: {"))
        story = replace(story, state="failed", error=story.error or error)
    return story


def _from_events(stories: Mapping[int, StepStory], found: Iterable[Event]) -> dict[int, StepStory]:
    known = dict(stories)

    def story_of(index: int) -> StepStory:
        return known.get(index, StepStory(index))

    for event in found:
        if event.operation == events.STEP_RESULT:
            index = event.result.step_index
            known[index] = _with_result(story_of(index), event)
        elif event.operation == events.SKIPPING_STEPS:
            for index in range(_number(event, "startStep") - 1):
                known[index] = replace(story_of(index), state="cached")
        elif event.operation in (events.STEP_SKIPPED, events.STEP, events.PREPARING_STEP):
            index = _number(event, "step") - 1
            if event.operation == events.STEP_SKIPPED:
                known[index] = replace(story_of(index), state="skipped")
            else:
                known[index] = _with_step_event(story_of(index), event)
    return known


def _with_step_event(story: StepStory, event: Event) -> StepStory:
    told = event.metadata
    if event.status == "FAILURE":
        code = told.get("exitCode")
        story = replace(story, state="failed", error=str(told.get("error", "")))
        return replace(story, exit_code=code) if isinstance(code, int) else story
    if event.operation == events.PREPARING_STEP:
        return story
    if event.status == "STARTED" and isinstance(told.get("env"), dict):
        story = replace(story, environment=told["env"])
    if event.status == "SUCCESS":
        story = replace(story, state="completed", exit_code=0)
    return replace(story, output=story.output + str(told.get("out", "")))


def _with_result(story: StepStory, event: Event) -> StepStory:
    result = event.result
    state: Literal["completed", "skipped", "cached"] = "skipped" if result.skipped else "completed"
    if story.state == "cached":
        state = "cached"
    return replace(story, state=state, key=str(event.metadata.get("key", "")), result=result)


def _number(event: Event, name: str) -> int:
    value = event.metadata.get(name, 0)
    if not isinstance(value, int):
        raise RecordError(f"an event's {name} is no number")
    return value


def _ordered(stories: Mapping[int, StepStory]) -> tuple[StepStory, ...]:
    return tuple(stories[index] for index in sorted(stories))
