"""Temporary folders that die with their process: a later process can tell which ones are left over, and removes them.

A folder is locked while its maker lives. It needs no record of who made it, and works across the containers of a host.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.removal import remove_tree

_PREFIX = "new-"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, for us alone. Leaving removes it; renamed elsewhere before, it stays there."""
    path, lock = _make(parent)
    try:
        yield path
    finally:
        remove_tree(path)
        os.close(lock)


def discard_unused(path: Path, since: float, noted_at: Path | None = None) -> bool:
    """Remove a folder that nobody used ``since`` then (seconds since 1970); returns whether it is gone.

    The time of ``noted_at``, else its own, is that of its last use. Who notes one just now keeps it: the time is looked
    at again once the folder is out of everybody's way. Raises FileNotFoundError if it is gone already.
    """
    if (noted_at or path).stat().st_mtime >= since:
        return False
    with scratch_folder(path.parent) as scratch:
        moved = path.rename(scratch / path.name)
        if (noted_at or moved).stat().st_mtime < since:
            return True
        moved.rename(path)
        return False


def sweep(parent: Path) -> None:
    """Remove the scratch folders in ``parent`` that killed processes left."""
    for path in parent.glob(f"{_PREFIX}*"):
        lock = _locked(path)
        if lock is not None:
            remove_tree(path)
            os.close(lock)


def _make(parent: Path) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
        lock = _locked(path)
        if lock is None:
            continue  # a sweep was faster than our lock, and removes it
        if path.exists():
            return path, lock
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock until it is closed; None if somebody has it, or there is no folder."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
