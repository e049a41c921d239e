"""What runs leave in the state folder: at once what killed processes left, in time what nobody uses any more."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from .checkout import Checkouts
from .mirror import prune_mirrors
from .scratch import sweep
from .staging import prune_mounts
from .workspace_folders import reap_workspaces

log = logging.getLogger(__name__)

KEPT_SECONDS = 14 * 24 * 3600.0
"""How long what no run uses is kept for the next one: checkouts, mirrors, copies of mounts."""
KEPT_ON_A_SHORT_DISK_SECONDS = 7 * 24 * 3600.0
"""Longer than any run works, and less than people forget."""
SHORT_SHARE, SHORT_BYTES = 0.1, 20 << 30
"""With less of the disk free than both, mirrors and copies go sooner, and checkouts from the longest unused on."""


def remove_leftovers(home: Path, reap: Callable[[Collection[str]], object], *folders: str) -> None:
    """Remove what nobody needs in the state folder ``home``, and with ``reap`` what the engine has of it.

    ``folders``: others in it with scratch folders. Containers go before the folders, which they may still have mounted.
    """
    reap_workspaces(home / "workspaces", reap)
    for folder in ("mirrors", "mounts", *folders):
        sweep(home / folder)
    remove_unused(home)


def remove_unused(home: Path) -> None:
    """Remove what no run used lately; when the disk is short, what none used for some days, and more checkouts."""
    home.mkdir(parents=True, exist_ok=True)
    seconds = KEPT_ON_A_SHORT_DISK_SECONDS if _lacking_bytes(home) > 0 else KEPT_SECONDS
    gone = prune_mirrors(home / "mirrors", older_than_seconds=seconds)
    gone += prune_mounts(home / "mounts", older_than_seconds=seconds)
    freed = Checkouts(home / "checkouts").prune(older_than_seconds=KEPT_SECONDS, to_free_bytes=_lacking_bytes(home))
    if gone or freed:
        log.info("removed what no run used lately: %d mirrors and mounts, %d MB of checkouts", gone, freed >> 20)


def _lacking_bytes(home: Path) -> int:
    """How much more should be free on the disk; less than 0 if there is enough."""
    disk = shutil.disk_usage(home)
    return min(int(disk.total * SHORT_SHARE), SHORT_BYTES) - disk.free
