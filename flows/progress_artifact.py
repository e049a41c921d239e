"""How far a run is, as a bar in the dashboard, brought up to date at a bounded rate."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from . import progress
from .markdown import code

log = logging.getLogger(__name__)

SECONDS_BETWEEN_UPDATES = 3.0
"""Each one is a request of some 30 ms; a thousand workspaces may end within seconds."""

_RUNNING_NAMED = 5


@contextmanager
def shown_as_artifact(key: str) -> Iterator[None]:
    """Show the progress of the run that this context starts, beside what shows it already."""
    before, artifact = progress.observer.get(), ProgressArtifact(key)

    def observe(event: progress.Event) -> None:
        before(event)
        artifact(event)

    token = progress.observer.set(observe)
    try:
        yield
    finally:
        progress.observer.reset(token)
        artifact.end()


class ProgressArtifact:
    """Takes the events of a run, from any thread. The dashboard is a view: what it misses is only logged."""

    def __init__(self, key: str) -> None:
        self._key, self._lock = key, Lock()
        self._id: UUID | None = None
        self._total, self._shown_at = 0, 0.0
        self._ended: dict[int, str] = {}
        """The state of each workspace that has ended; that of a shard sent out again ends once more."""
        self._running: dict[int, str] = {}

    def __call__(self, event: progress.Event) -> None:
        with self._lock:
            match event:
                case progress.WorkspacesFound(total):
                    self._total = total
                    self._show(at_once=True)
                case progress.WorkspaceStage(number, title, stage):
                    self._running[number] = f"{code(title)} {stage}"
                    self._show()
                case progress.WorkspaceEnded(number, result):
                    self._running.pop(number, None)
                    self._ended[number] = result.state
                    self._show(at_once=len(self._ended) == self._total)
                case _:
                    pass

    def end(self) -> None:
        """Show how far it came; nothing goes on."""
        with self._lock:
            self._running.clear()
            if self._total:
                self._show(at_once=True)

    @property
    def percent(self) -> float:
        """How much is done."""
        return round(100 * len(self._ended) / self._total, 1) if self._total else 0.0

    @property
    def sentence(self) -> str:
        """The same in words, in markdown."""
        counted = ", ".join(f"{count} {state}" for state, count in sorted(Counter(self._ended.values()).items()))
        running = list(self._running.values())
        named = ", ".join(running[:_RUNNING_NAMED])
        more = f" and {len(running) - _RUNNING_NAMED} more" if len(running) > _RUNNING_NAMED else ""
        return "; ".join(
            (
                f"{len(self._ended)} of {self._total} workspaces" + (f": {counted}" if counted else ""),
                *([f"now {named}{more}"] if running else []),
            )
        )

    def _show(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._shown_at < SECONDS_BETWEEN_UPDATES:
            return
        self._shown_at = now
        try:
            self._send()
        except (httpx.HTTPError, PrefectException) as error:
            log.debug("the dashboard does not see the progress: %s", error)

    def _send(self) -> None:
        if self._id is None:
            made = create_progress_artifact(self.percent, key=self._key, description=self.sentence)
            assert isinstance(made, UUID)  # a coroutine only where an event loop runs
            self._id = made
        else:
            update_progress_artifact(self._id, self.percent, description=self.sentence)
