"""The product's flows with an engine that runs no container, for scale.py: what is left is what a run costs besides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from blocks.docker_runtime import DockerRuntime
from blocks.runtime import Image, Room, WorkspaceMode
from flows.batch_change import batch_change
from flows.workspace_shard import workspace_shard
from tests.fakes import FakeRuntime

__all__ = ["NoEngine", "batch_change", "workspace_shard"]


class NoEngine(FakeRuntime):
    """Understands scripts of a few words, and remembers nothing: its memory must not grow with the run."""

    @contextmanager
    def open_room(self, *arguments: Any, **more: Any) -> Iterator[Room]:
        with super().open_room(*arguments, **more) as room:
            yield room
        self.ran.clear()
        self.scripts.clear()


_NO_ENGINE = NoEngine()


def _resolve_image(_self: DockerRuntime, reference: str, cancel: Event | None = None) -> Image:
    return _NO_ENGINE.resolve_image(reference, cancel)


def _workspace_mode(_self: DockerRuntime, folder: Path) -> tuple[WorkspaceMode, str]:
    return _NO_ENGINE.workspace_mode(folder)


# The flows' parameter is a DockerRuntime, in the deployment as in the code: only what it does is another.
DockerRuntime.resolve_image = _resolve_image  # type: ignore[method-assign]
DockerRuntime.workspace_mode = _workspace_mode  # type: ignore[method-assign]
DockerRuntime.open_room = lambda _self, *args, **more: _NO_ENGINE.open_room(*args, **more)  # type: ignore
DockerRuntime.sharing = lambda _self, rooms, at_once: _NO_ENGINE.sharing(rooms, at_once)  # type: ignore
DockerRuntime.fingerprint = lambda _self: _NO_ENGINE.fingerprint()  # type: ignore
DockerRuntime.reap = lambda _self, run=None: _NO_ENGINE.reap()  # type: ignore
