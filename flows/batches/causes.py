"""Why the workspaces of a run failed, put together by cause: hundreds of failures are a few things to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .results import FailureReason, RunManifest, WorkspaceResult

_RETRY = "then press Retry: only what has no result runs again"

_WHAT_IS_WRONG: Mapping[FailureReason, tuple[str, str]] = {
    "step_failed": (
        "failed",
        "Read its output. If the script is wrong, edit the batch spec and run that: earlier steps are not repeated. If "
        f"something outside was (a server, a secret), mend it, {_RETRY}.",
    ),
    "timed_out": (
        "took too long",
        "Raise the limit (the options step_timeout_seconds, workspace_timeout_seconds) or let the step do less; a run "
        "keeps its options, so use *Copy to new run*. What has a result is not repeated there either.",
    ),
    "out_of_memory": ("ran out of memory", f"Raise the memory of the engine's block, {_RETRY}."),
    "cancelled": ("was cancelled", "Retry goes on where it stopped; finished steps are kept."),
    "image": ("has no image", f"Check the image's name and the engine's registry credentials, {_RETRY}."),
    "disk_full": ("found a disk full", f"Make room where the engine and the worker keep their data, {_RETRY}."),
    "secret_in_diff": ("would publish a secret", "Change the script: it writes a secret's value into a file."),
    "outputs": ("has outputs that cannot be rendered", "Mend `outputs` in the batch spec and run it; no step repeats."),
    "changesets": (
        "makes no changeset spec",
        "Mend the changesetTemplate (or transformChanges) in the batch spec and run it; no step is repeated.",
    ),
    "infrastructure": (
        "met trouble around it",
        "The script is not to blame: the engine, the network, git or the store was, through several tries. When it "
        f"works again (`batchwright doctor` on the worker), {_RETRY.removeprefix('then ')}.",
    ),
}

_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{12,}\b|\d+")
"""What differs between two failures of the same cause: addresses, ids, counts."""


@dataclass(frozen=True)
class Cause:
    """Workspaces that failed for the same reason. ``step`` counts from 1; None if no step did."""

    reason: FailureReason
    step: int | None
    message: str
    """Of the first of the workspaces, in full."""
    workspaces: tuple[WorkspaceResult, ...]

    @property
    def title(self) -> str:
        """The cause in a few words."""
        what = f"Step {self.step}" if self.step else "The workspace"
        return f"{what} {_WHAT_IS_WRONG[self.reason][0]}: {last_line(self.message)}"

    @property
    def advice(self) -> str:
        """What to do, in markdown."""
        return _WHAT_IS_WRONG[self.reason][1]


def causes(results: Iterable[WorkspaceResult]) -> list[Cause]:
    """The causes of what did not complete, those of most workspaces first; what was only cancelled comes last."""
    found: dict[tuple[FailureReason, int | None, str], list[WorkspaceResult]] = {}
    for result in results:
        if result.failure:
            key = (result.failure.reason, _failed_step(result), _signature(result))
            found.setdefault(key, []).append(result)
    listed = [
        Cause(reason, step, _message(together[0]), tuple(together)) for (reason, step, _), together in found.items()
    ]
    return sorted(listed, key=lambda cause: (cause.reason == "cancelled", -len(cause.workspaces)))


def what_to_do(manifest: RunManifest) -> str:
    """The next thing to do about a run, in one sentence; "" if there is nothing."""
    if manifest.failure and manifest.state == "failed":
        return "The run as a whole could not end; what it says is below."
    if any(result.state == "failed" for result in manifest.workspaces):
        return "Below are the causes, each with what to do. Workspaces that completed are never repeated."
    if manifest.state == "cancelled":
        return f"The run was stopped. Kept: {kept(manifest)}. Retry goes on from there."
    return ""


def kept(manifest: RunManifest) -> str:
    """What a run that was stopped need not do again."""
    completed = sum(result.state == "completed" for result in manifest.workspaces)
    finished = sum(step.how in ("executed", "cached") for result in manifest.workspaces for step in result.steps)
    return f"{completed} of {len(manifest.workspaces)} workspaces, {finished} finished steps"


def last_line(text: str) -> str:
    """The line that says most: the last one of a failure's message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _failed_step(result: WorkspaceResult) -> int | None:
    last = result.steps[-1] if result.steps else None
    return last.index + 1 if last and last.how == "failed" else None


def _message(result: WorkspaceResult) -> str:
    assert result.failure is not None
    return result.failure.message


def _signature(result: WorkspaceResult) -> str:
    """What the messages of one cause have in common: the last line, but for the workspace's names and for numbers.

    Of a step that failed the number is its exit code, and tells causes apart.
    """
    line = last_line(_message(result))
    if result.failure is not None and result.failure.reason == "step_failed":
        return line
    for name in (result.title, result.repository):
        line = line.replace(name, "…")
    return _VARYING.sub("0", line)
