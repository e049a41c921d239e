"""What happens while a batch change runs, as events for whoever shows it. Shows nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from .batches.results import RunManifest, WorkspaceResult


@dataclass(frozen=True)
class WorkspacesFound:
    """The workspaces are known."""

    total: int


@dataclass(frozen=True)
class WorkspaceStage:
    """Workspace ``number``, counted from 1, has begun with something: its set-up, a step, its diff."""

    number: int
    title: str
    stage: str


@dataclass(frozen=True)
class WorkspaceEnded:
    """Workspace ``number`` is done, well or not."""

    number: int
    result: WorkspaceResult


@dataclass(frozen=True)
class RunEnded:
    """All is done, well or not, and kept."""

    manifest: RunManifest


@dataclass(frozen=True)
class RunStopped:
    """Somebody stopped the run, and nothing of it goes on."""


Event = WorkspacesFound | WorkspaceStage | WorkspaceEnded | RunEnded | RunStopped
Observer = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The observer for whom nothing needs to be shown."""


observer: ContextVar[Observer] = ContextVar("batchwright_observer", default=ignore)
"""Who watches the flow run that this context starts. A flow's parameters are data; a callback cannot be one."""
