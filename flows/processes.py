"""Processes that outlive the command that starts them: started as nobody's child, known again later, ended.

A process is known by its id and its birth, for the system gives the ids of dead processes to others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .batches.errors import TemporaryError
from .locks import FileLock

_LOG_LINES = 15

# A child of ours would stay a zombie until we end. And no shell: what that starts in the background ignores SIGINT,
# with which Prefect's worker tells itself to end.
_LAUNCH = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
with open(sys.argv[1], "wb") as log:
    streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
    print(subprocess.Popen(sys.argv[2:], start_new_session=True, **streams).pid)
"""

Progress = Callable[[float], None]
"""Called about once a second while we wait, with the seconds waited so far."""


@dataclass(frozen=True)
class Process:
    """A process that we started, now or in another command."""

    pid: int
    birth: str
    """When it was born, in the system's own words."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this id now."""
        return cls(pid, _birth(pid) or "")

    def is_alive(self) -> bool:
        """Whether it still runs; a later process of the same id is not taken for it."""
        return _birth(self.pid) == self.birth

    def end(self, grace_seconds: float) -> None:
        """Ask it to end, wait, then insist. Each signal is sent only while the process is still ours."""
        _end_all([self], grace_seconds)

    def end_after_children(self, grace_seconds: float) -> None:
        """End what it has started, then itself. It is held meanwhile: it starts nothing new, and kills nobody."""
        if not self.is_alive():
            return
        os.kill(self.pid, signal.SIGSTOP)
        try:
            _end_all(_children(self.pid), grace_seconds)
        finally:
            self.end(grace_seconds)


def start(command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path) -> Process:
    """Start a command in ``folder``, in a session of its own, as nobody's child; ``log`` takes what it says.

    The log of the life before stays beside it, with ``.old`` at its end: it may tell why that one ended.
    """
    if log.exists():
        log.replace(f"{log}.old")
    launched = subprocess.run(
        (sys.executable, "-I", "-S", "-c", _LAUNCH, str(log), *command),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return Process.of(int(launched.stdout))


def log_end(log: Path) -> str:
    """The last lines of a log, and where all of it is."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([*lines[-_LOG_LINES:], f"(the log: {log})"])


class Patience:
    """A limit on the waiting, and the one who wants to hear of it."""

    def __init__(self, seconds: float, progress: Progress | None = None) -> None:
        self.seconds = seconds
        self._begin = time.monotonic()
        self._told = 0
        self._progress = progress

    def is_over(self) -> bool:
        """Sleep a moment, tell once a second; true when the time is up."""
        time.sleep(0.1)
        waited = time.monotonic() - self._begin
        if self._progress and int(waited) > self._told:
            self._told = int(waited)
            self._progress(waited)
        return waited > self.seconds


@contextmanager
def one_at_a_time(path: Path, patience: Patience, trouble: TemporaryError) -> Iterator[None]:
    """Hold the lock file at ``path``; when others hold it for too long, raise ``trouble``."""
    lock = FileLock(path)
    while not lock.try_take():
        if patience.is_over():
            raise trouble
    try:
        yield
    finally:
        lock.release()


def _birth(pid: int) -> str | None:
    """When a process was born. None: there is none."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(("ps", "-o", "lstart=", "-p", str(pid)), capture_output=True, text=True, check=False)
        return listed.stdout.strip() or None
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


def _end_all(family: Sequence[Process], grace_seconds: float) -> None:
    for ending in (signal.SIGTERM, signal.SIGKILL):
        for member in family:
            if member.is_alive():
                os.kill(member.pid, ending)
                os.kill(member.pid, signal.SIGCONT)  # one that is held hears nothing
        deadline = time.monotonic() + grace_seconds
        while any(member.is_alive() for member in family):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def _children(parent: int) -> list[Process]:
    return [Process.of(pid) for pid, its_parent in _parents() if its_parent == parent]


def _parents() -> Iterator[tuple[int, int]]:
    """Every process of this machine, and its parent."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(("ps", "-A", "-o", "pid=,ppid="), capture_output=True, text=True, check=True)
        yield from ((int(pid), int(parent)) for pid, parent in map(str.split, listed.stdout.splitlines()))
        return
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])
