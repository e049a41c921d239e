"""What an instance reads of a job that runs src-cli: one log entry with its event lines."""

from __future__ import annotations

from dataclasses import dataclass

from ..batches.events import STDOUT
from ..batches.jobs import INPUT, CliStep, JobRefused
from .durations import go_seconds
from .event_stream import EventStream
from .job_log import JobLog, show_error


@dataclass(frozen=True)
class ExecCommand:
    """`src batch exec` with its flags, as far as they matter here."""

    input: str = INPUT
    workspace_files: str = ""
    binary_diffs: bool = False
    as_image_user: bool = False
    timeout_seconds: float = 3600.0


def read_command(step: CliStep) -> ExecCommand:
    """What a step of src-cli asks for. Raises JobRefused for anything but `batch exec`, or a flag that is unknown."""
    if step.command[:2] != ["batch", "exec"]:
        raise JobRefused(f"step {step.key!r} runs `src {' '.join(step.command[:2])}`; only `src batch exec` can be run")
    words = iter(step.command[2:])
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in _FLAGS:
            raise JobRefused(
                f"step {step.key!r} runs `src batch exec` with {word!r}, which this executor does not know"
            )
        takes_value = _FLAGS[name]
        found[name] = value if equals else next(words, "") if takes_value else "true"
    try:
        timeout = go_seconds(found.get("timeout", "60m"))
    except ValueError as error:
        raise JobRefused(f"step {step.key!r}: -timeout {error}") from error
    return ExecCommand(
        input=found.get("f", INPUT),
        workspace_files=found.get("workspaceFiles", ""),
        binary_diffs=found.get("binaryDiffs", "false") in _TRUE,
        as_image_user=found.get("run-as-image-user", "false") in _TRUE,
        timeout_seconds=timeout,
    )


class CliStory(EventStream):
    """An ``input_run.Observer`` that writes event lines into one log entry.

    Instances before 4.3 give the step no key: upstream's executor then takes its index, which is 0.
    """

    def __init__(self, entries: JobLog, step: CliStep) -> None:
        self._entry = entries.open(f"step.src.{step.key or 0}", ["src", *step.command])
        super().__init__(self._write)

    @property
    def failed_command(self) -> str:
        """The key and the exit code of what ended the job, in upstream's words."""
        return f'running command "{self._entry.key}": command failed with exit code 1'

    def close(self, error: str, *, failed: bool) -> None:
        """The command has ended; ``error`` is what it says of that on its standard error."""
        show_error(self._entry, error)
        self._entry.close(1 if failed else 0)

    def _write(self, line: str, keep: bool) -> None:
        self._entry.lines(f"{STDOUT}{line}\n", keep=keep)


_FLAGS = {
    **{"f": True, "repo": True, "tmp": True, "workspaceFiles": True, "timeout": True},
    **{"sourcegraphVersion": True, "cache": True},  # of older versions
    **{"binaryDiffs": False, "run-as-image-user": False},
}
"""Each flag, and whether it takes a value."""
_TRUE = ("true", "1", "t", "T", "TRUE", "True")
