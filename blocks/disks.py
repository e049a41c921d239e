"""Whether a disk is nearly full, and who has to stop writing to it then.

What else needs it (stores, databases, the engine) must not wait for a step to end; and no step should end because
another one took all there was.
"""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType

_RESERVE_BYTES = 256 << 20
_RESERVE_FILES = 10_000
_RESERVE_SHARE = 0.01
"""Of a small disk, where the others would be much of it."""

_FILE_BYTES = 16 << 10
"""What a file counts for beside its content: file systems plan for one in so many bytes."""
_MEASURE_SECONDS = 2.0
_SETTLE_SECONDS = 10.0
"""How long the room that somebody took may need to be free again."""


def is_nearly_full(folder: Path, part: float = 1.0) -> bool:
    """Whether the file system of ``folder`` has no more than (this ``part`` of) the reserve, of room or of files."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    room = disk.f_bavail * disk.f_frsize <= part * min(_RESERVE_BYTES, _RESERVE_SHARE * disk.f_blocks * disk.f_frsize)
    # Some file systems make room for files as they need it, and say 0.
    files = disk.f_files > 0 and disk.f_favail <= part * min(_RESERVE_FILES, _RESERVE_SHARE * disk.f_files)
    return room or files


def used_bytes(folder: Path) -> int:
    """The room that a folder takes, with something for each file. Follows no link; a folder may change meanwhile."""
    size = _du(folder, "--block-size=1")
    return size + _FILE_BYTES * _du(folder, "--inodes") if size else size


def unnamed_bytes(processes: Iterable[int]) -> int:
    """The room that files take which these processes have open, and which have no name any more."""
    found = {}
    for process in processes:
        folder = f"/proc/{process}/fd"
        with suppress(OSError):  # it has ended, or is not ours to look at
            for name in os.listdir(folder):
                with suppress(OSError):  # it is closed again
                    status = os.stat(f"{folder}/{name}")
                    if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                        found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


class DiskUser:
    """Somebody who writes to a disk, beside others in this process. Use as a context manager."""

    def __init__(self, folder: Path, written_bytes: Callable[[], int]) -> None:
        """``folder`` is on the disk. ``written_bytes`` tells what is there because of this one; may take a while."""
        self._folder, self._written_bytes = folder, written_bytes
        self._among = _USERS.setdefault(os.stat(folder).st_dev, _Users())

    def __enter__(self) -> DiskUser:
        with self._among.lock:
            self._among.all.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        among = self._among
        with among.lock:
            among.all.remove(self)
            if among.chosen is self:
                among.chosen, among.next_at = None, time.monotonic() + _SETTLE_SECONDS
            if not among.all:
                among.next_at = 0.0  # who comes now finds the disk as it is

    def must_stop(self) -> bool:
        """Whether the disk is nearly full, and this one wrote the most to it. One at a time is told so.

        Who that is another thread finds out: nobody stops reading what a container writes meanwhile.
        """
        among = self._among
        if not is_nearly_full(self._folder):
            if among.chosen is self:
                with among.lock:
                    among.chosen = None  # there was room again before it was told
            return False
        with among.lock:
            if not among.all[1:]:
                among.chosen = self
            elif not (among.is_choosing or among.chosen) and time.monotonic() >= among.next_at:
                among.is_choosing = True
                Thread(target=among.choose, args=(list(among.all),), name="disk-users", daemon=True).start()
            return among.chosen is self


@dataclass
class _Users:
    """All who write to one disk."""

    all: list[DiskUser] = field(default_factory=list)
    chosen: DiskUser | None = None
    """Who has to stop."""
    is_choosing: bool = False
    next_at: float = 0.0
    """When the next one is chosen, if the disk is nearly full then."""
    lock: Lock = field(default_factory=Lock)

    def choose(self, users: Sequence[DiskUser]) -> None:
        """Choose the one of the ``users`` that wrote the most."""
        most: DiskUser | None = None
        try:
            most = max(users, key=lambda one: one._written_bytes())
        finally:
            with self.lock:
                self.is_choosing = False
                if most in self.all:  # else it has just ended by itself
                    self.chosen = most


_USERS: dict[int, _Users] = {}
"""By device."""


def _du(folder: Path, unit: str) -> int:
    try:
        done = subprocess.run(
            ["du", "--summarize", "--one-file-system", unit, "--", folder],
            capture_output=True,
            timeout=_MEASURE_SECONDS,
            check=False,  # what vanishes meanwhile makes it fail
        )
        return int(done.stdout.split()[0])
    except subprocess.TimeoutExpired:
        return 1 << 40  # more files than anybody else has
    except (OSError, IndexError, ValueError):
        return 0
