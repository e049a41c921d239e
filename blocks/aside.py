"""A corner of a workspace's folder for what is in the way: renamed, not removed. It goes with the workspace's folder.

Renaming always works at once, whatever a step left: read-only, a million files, deeper than any path may be.
"""

from __future__ import annotations

import itertools
from pathlib import Path


class Aside:
    """For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the workspace's own."""
        self._folder = folder / "aside"
        self._numbers = itertools.count()

    def place(self) -> Path:
        """A path where nothing is."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        while (path := self._folder / str(next(self._numbers))).exists():
            pass
        return path

    def empty(self, folder: Path) -> None:
        """Move everything out of ``folder``."""
        for entry in list(folder.iterdir()):
            entry.rename(self.place())
