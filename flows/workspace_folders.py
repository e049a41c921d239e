"""A workspace's folder on the host: a layer for each step, room for temporary files, and a lock that says who lives.

workspaces/<id>/               for nobody else: in a layer anybody may write, and a running step may make setuid files
workspaces/<id>/layers/<n>/    what step n changed (form: ``blocks.runtime.Layers``)
workspaces/<id>/spool/         streams, scripts, diffs on their way to the store
workspaces/<id>.lock           held as long as the workspace's process lives
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import TracebackType

from flows.batches.errors import TemporaryError
from flows.locks import FileLock
from flows.removal import remove_tree

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
        self._lock = FileLock(workspaces / f"{name}{_LOCK}")

    def __enter__(self) -> WorkspaceFolder:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._lock.try_take():
            raise WorkspaceInUse(self.path.name)
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


def reap_workspaces(workspaces: Path) -> list[str]:
    """Remove the folders whose processes died, and return their names. Stop their containers before this."""
    reaped = []
    for lock_file in sorted(workspaces.glob(f"*{_LOCK}")):
        lock = FileLock(lock_file)
        if lock.try_take():
            name = lock_file.name.removesuffix(_LOCK)
            if remove_tree(workspaces / name):
                lock.remove()
                reaped.append(name)
            lock.release()
    if reaped:
        log.info("removed the folders of %d dead workspaces", len(reaped))
    return reaped
