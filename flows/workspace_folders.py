"""A workspace's folder on the host: a layer for each step, room for temporary files, and a lock that says who lives.

workspaces/<id>/               for nobody else: in a layer anybody may write, and a running step may make setuid files
workspaces/<id>/layers/<n>/    what step n changed (form: ``blocks.runtime.Layers``)
workspaces/<id>/spool/         streams, scripts, diffs on their way to the store
workspaces/<id>.lock           held as long as the workspace's process lives; names its lives, one per line
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from blocks.removal import remove_tree
from flows.batches.errors import TemporaryError
from flows.locks import FileLock

log = logging.getLogger(__name__)

_LOCK = ".lock"


class WorkspaceInUse(TemporaryError):
    """Another run works in the folder of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"workspace {self.name}: another run still works in its folder; try again when that has ended"


class WorkspaceFolder:
    """One workspace's folder, as long as it is used as a context manager: leaving it removes all of it.

    What an earlier, dead owner left under the same name is removed first. ``name`` is letters, digits, ``.``, ``_`` and
    ``-``. Raises WorkspaceInUse when its owner lives.
    """

    def __init__(self, workspaces: Path, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", name) or name.endswith(_LOCK):
            raise ValueError(f"not a name for a workspace's folder: {name!r}")
        self.path = workspaces / name
        self.life = uuid4().hex
        """What only this use of the folder is called, also in an engine: over when its lock is free."""
        self._lock = FileLock(workspaces / f"{name}{_LOCK}")

    def __enter__(self) -> WorkspaceFolder:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._lock.try_take():
            raise WorkspaceInUse(self.path.name)
        self._lock.note(self.life)
        remove_tree(self.path)
        self.path.mkdir(mode=0o700)
        self.spool.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    @property
    def spool(self) -> Path:
        """A folder for temporary files, on the file system of the layers."""
        return self.path / "spool"

    def layer(self, index: int) -> Path:
        """The folder for what step ``index`` changes; made when it is missing."""
        folder = self.path / "layers" / str(index)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def remove(self) -> None:
        """Remove all of it and let go. What cannot be removed is logged, and left to ``reap_workspaces``."""
        if remove_tree(self.path):
            self._lock.remove()
        self._lock.release()


def reap_workspaces(workspaces: Path, reap: Callable[[Collection[str]], object]) -> list[str]:
    """Remove the folders whose processes died, and return their names.

    ``reap`` is told which lives are over, and removes their containers: before the folders, which those may still
    have mounted. It is called in any case.
    """
    locks = [FileLock(path) for path in sorted(workspaces.glob(f"*{_LOCK}"))]
    dead = [lock for lock in locks if lock.try_take()]
    reaped = []
    try:
        reap({life for lock in dead for life in lock.notes()})
        for lock in dead:
            name = lock.path.name.removesuffix(_LOCK)
            if remove_tree(workspaces / name):
                lock.remove()
                reaped.append(name)
    finally:
        for lock in dead:
            lock.release()
    if reaped:
        log.info("removed the folders of %d dead workspaces", len(reaped))
    return reaped
