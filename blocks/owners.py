"""Who made a container or volume, written so that others can tell for certain whether its process is dead."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_UNKNOWN = "0"


@dataclass(frozen=True)
class Owner:
    """A process: on which host, since which boot, in which pid namespace, which pid, begun when (clock ticks)."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.namespace}/{self.pid}/{self.started}"


def current_owner() -> Owner:
    """This process."""
    return _owner(os.getpid())


@cache
def _owner(pid: int) -> Owner:
    """Of this process, which keeps its namespace and its begin; a fork has another pid."""
    return Owner(_host(), _boot(), _namespace(), pid, _started(pid))


def parse_owner(text: str) -> Owner | None:
    """The owner that ``str`` made this text of; None if it is anything else."""
    parts = text.split("/")
    if len(parts) != 5 or not parts[3].isdecimal():
        return None
    return Owner(parts[0], parts[1], parts[2], int(parts[3]), parts[4])


def certainly_dead(owner: Owner) -> bool | None:
    """Whether the process is gone.

    None where that cannot be seen from here: another host or pid namespace, or a system that hides its processes.
    """
    if owner.host != _host():
        return None
    if owner.boot != _boot():
        return True
    if owner.namespace != _namespace():
        return None
    if not _runs(owner.pid):
        return True
    started = _started(owner.pid)
    return None if started == _UNKNOWN else started != owner.started


@cache
def _host() -> str:
    """Machines made from one image may share a machine id, containers a host name: together they tell hosts apart.

    The firmware's id tells apart even copies of a whole machine; only root can read it.
    """
    machine = _read("/etc/machine-id") or f"{uuid.getnode():x}"
    firmware = _read("/sys/class/dmi/id/product_uuid")
    return hashlib.sha256(f"{machine} {platform.node()} {firmware}".encode()).hexdigest()[:16]


@cache
def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id") or "unknown"


def _namespace() -> str:
    """Two containers of one host share its boot id, and have the same pids for different processes."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return "0"


def _started(pid: int) -> str:
    fields = _status(pid)
    return fields[19] if len(fields) > 19 else _UNKNOWN


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _status(pid)[:1] not in (["Z"], ["X"])  # dead, though its parent has not asked for its exit code yet


def _status(pid: int) -> list[str]:
    """proc(5)'s stat from field 3, the state, on; field 2, the name, may hold spaces and brackets. Linux only."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
