"""Whether a disk is nearly full. What else needs it (stores, databases, the engine) must not wait for a step to end."""

from __future__ import annotations

import os
from pathlib import Path

_RESERVE_BYTES = 256 << 20
_RESERVE_FILES = 10_000
_RESERVE_SHARE = 0.01
"""Of a small disk, where the others would be much of it."""


def is_nearly_full(folder: Path) -> bool:
    """Whether the file system of ``folder`` has no more than the reserve, of room or of files."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    room = disk.f_bavail * disk.f_frsize <= min(_RESERVE_BYTES, _RESERVE_SHARE * disk.f_blocks * disk.f_frsize)
    # Some file systems make room for files as they need it, and say 0.
    files = disk.f_files > 0 and disk.f_favail <= min(_RESERVE_FILES, _RESERVE_SHARE * disk.f_files)
    return room or files
