"""Helps an engine on this machine to remove what it cannot: trees with more levels than it may have files open.

Docker holds a file open for every level that it goes down (Go's os.RemoveAll), and a step can dig deeper than that.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import docker

from blocks.removal import remove_tree

_TOO_DEEP = "too many open files"
_ONE_OF_A_KIND = re.compile(r"/[0-9a-f]{64}/diff")
"""An engine elsewhere may have the same folders; one of such a name on this machine is certainly the one."""


def is_too_deep(error: Exception) -> bool:
    """Whether an engine failed to remove something because of that."""
    return _TOO_DEEP in str(error)


def empty_container(api: docker.APIClient, container: str) -> None:
    """Empty the folder with what a stopped container wrote, if it is on this machine. Raises docker-py's errors."""
    found = api.inspect_container(container)
    folder = str(((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir") or "")
    if not found["State"]["Running"] and _ONE_OF_A_KIND.search(folder):
        _empty(Path(folder))


def empty_volume(api: docker.APIClient, volume: str) -> None:
    """Empty a volume that nobody uses, if it is on this machine. Raises docker-py's errors."""
    found: dict[str, Any] = api.inspect_volume(volume)
    folder = Path(str(found.get("Mountpoint") or ""))
    if folder.parent.name == volume:
        _empty(folder)


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for inside in folder.iterdir():
            remove_tree(inside)
