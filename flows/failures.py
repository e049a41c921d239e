"""Why something did not complete: from exits and errors to what the records and the people are told."""

from __future__ import annotations

import re
from pathlib import Path

from blocks.runtime import ContainerRefused, ImageRefused, ImageUnavailable, PullStopped
from blocks.store import StoreFull

from .batches.errors import PermanentError, Stopped, TemplateError, TemporaryError, TimeIsUp
from .batches.outputs import OutputError
from .batches.results import Failure
from .batches.steps import ImageNameError
from .step_runs import Plan, Ran

_DISK_FULL = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)

# Colours and cursor movements go; what is left of control characters could still steer a terminal, and a NUL is
# nothing that a database keeps in a text.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_CONTROLS = re.compile(r"[^\t\n\x20-\x7e\xa0-\U0010ffff]")

RETRIES = 3
"""Of a stage that met a temporary error. A step's own failure is never repeated."""

TAIL_BYTES = 4096
"""How much of a failed step's output stands in its message."""


def is_temporary(error: BaseException) -> bool:
    """Whether another try may work. True for TemporaryError and the blocks' own errors that say so."""
    return isinstance(error, TemporaryError) or bool(getattr(error, "temporary", False))


def failure_of_error(error: BaseException) -> Failure:
    """What a record says about an error that ended a workspace."""
    if isinstance(error, (Stopped, PullStopped)):
        return Failure(reason="cancelled", message=str(error))
    if isinstance(error, TimeIsUp):
        limit = go_duration(error.seconds)
        return Failure(reason="timed_out", message=f"Timeout reached. Execution took longer than {limit}.")
    if isinstance(error, (ImageRefused, ImageUnavailable, ImageNameError)):
        return Failure(reason="image", message=str(error))
    if isinstance(error, StoreFull) or says_disk_full(str(error)):
        return Failure(reason="disk_full", message=str(error))
    if isinstance(error, OutputError) or (isinstance(error, TemplateError) and ".outputs." in error.field):
        return Failure(reason="outputs", message=str(error))
    if isinstance(error, (PermanentError, ContainerRefused)):
        return Failure(reason="step_failed", message=str(error))
    return Failure(reason="infrastructure", message=str(error) or type(error).__name__)


def says_disk_full(text: str) -> bool:
    """Whether an error's message is that of a full disk, whoever met it."""
    return bool(_DISK_FULL.search(text))


def failure_of_exit(ran: Ran, plan: Plan, *, limit_seconds: float | None, whole: bool) -> Failure:
    """Why a step's container did not do. ``whole``: the time limit was the workspace's, not the step's.

    Upstream: src-cli internal/batches/executor/run_steps.go, stepFailedErr.
    """
    exit = ran.exit
    if exit.cancelled:
        return Failure(reason="cancelled", message="Cancelled: the step's container was stopped and removed.")
    told = _told(ran, plan)
    if exit.timed_out:
        scope = "" if whole else " by this step"
        limit = go_duration(limit_seconds or 0)
        return Failure(reason="timed_out", message=f"{told}Timeout reached{scope}. Execution took longer than {limit}.")
    if exit.oom_killed:
        return Failure(
            reason="out_of_memory",
            message=f"{told}Out of memory: the engine killed the step (exit code {exit.code}); raise the memory limit.",
        )
    if exit.disk_full:
        return Failure(
            reason="disk_full",
            message=f"{told}The worker's disk is nearly full: the step was ended before it took the rest; free some "
            "space where workspaces are kept, or let the step write less.",
        )
    if any(says_disk_full(_tail(stream)) for stream in (ran.stdout, ran.stderr)):
        return Failure(
            reason="disk_full",
            message=f"{told}A disk is full: the step says so (exit code {exit.code}); free some space where the engine "
            "and the worker keep their data, or let the step write less.",
        )
    return Failure(reason="step_failed", message=f"{told}Command failed with exit code {exit.code}.")


def secret_failure(name: str) -> Failure:
    """A diff that would publish a secret."""
    return Failure(
        reason="secret_in_diff",
        message=f"the diff contains the value of the secret {name}: nothing of it is kept; do not write it to a file",
    )


def refusal_failure(reason: str) -> Failure:
    """A step that ended well, and left what cannot be taken: ``reason`` says what, and what to do."""
    return Failure(reason="step_failed", message=f"what the step left cannot be kept: {reason}")


def go_duration(seconds: float) -> str:
    """A duration as Go prints it: 100ms, 1.5s, 2m0s, 1h0m0s."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    shown = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{hours}h{minutes}m{shown}s" if hours else f"{minutes}m{shown}s" if minutes else f"{shown}s"


def _told(ran: Ran, plan: Plan) -> str:
    first, *more = plan.rendered.script.strip("\n").split("\n")
    text = f"run: {first}"
    if more:
        text += f"\n\t(... and {len(more)} more lines)"
    text += f"\ncontainer: {plan.rendered.image}\n"
    for title, path in (("standard out", ran.stdout), ("standard error", ran.stderr)):
        if tail := _tail(path):
            text += f"\n{title}:\n" + "".join(f"\t{line}\n" for line in tail.split("\n"))
    return text + "\n"


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = _plain(file.read().decode("utf-8", "replace"))
    return f"(... {size - TAIL_BYTES} bytes before)\n{text}" if size > TAIL_BYTES else text


def _plain(text: str) -> str:
    lines = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("\ufffd", lines).strip()
