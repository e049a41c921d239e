"""A lock that dies with its process: flock on a file, for threads and processes alike.

It needs no record of who holds it, and works across the containers of a host, where process ids mean nothing.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """One holder's view of the lock file at ``path``. The file is made when it is missing, its folder is not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def share(self) -> None:
        """Hold the lock together with others who share it. Waits; gives up an exclusive hold for a moment."""
        self._acquire(fcntl.LOCK_SH)

    def take(self) -> None:
        """Hold the lock alone. Waits; gives up a shared hold for a moment."""
        self._acquire(fcntl.LOCK_EX)

    def try_take(self) -> bool:
        """Hold the lock alone, if nobody holds it now."""
        try:
            self._acquire(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def remove(self) -> None:
        """Remove the file and let go. Only for who holds it alone; waiters notice and make a new one."""
        self.path.unlink(missing_ok=True)
        self.release()

    def note(self, line: str) -> None:
        """Add a line to the file, for who takes the lock after us. Only while held alone."""
        os.pwrite(self.fileno(), f"{line}\n".encode(), os.fstat(self.fileno()).st_size)

    def notes(self) -> list[str]:
        """The lines that were noted. Only while held."""
        return os.pread(self.fileno(), os.fstat(self.fileno()).st_size, 0).decode(errors="replace").split()

    def fileno(self) -> int:
        """For a child process that inherits the hold: it lasts until both have ended. Only while held."""
        assert self._fd is not None
        return self._fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _acquire(self, operation: int) -> None:
        while True:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self._fd, operation)
            if self._is_current(self._fd):
                return
            self.release()

    def _is_current(self, fd: int) -> bool:
        """Whether the path still names the file that we locked: its last holder may have removed it."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path))
        except FileNotFoundError:
            return False
