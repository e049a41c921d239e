"""A folder of links to the files that layers hold, for git to look at: no copy, and nothing that git would ignore."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from flows.layers import Entry
from flows.untrusted import Folder, above, split

_MANY_FILES = 500
"""In a new folder: enough to ask git whether it ignores it, before there is a link to each of them."""


class WorkTree:
    """Fills the empty folder ``root``. A context manager; for one thread."""

    def __init__(self, root: Path) -> None:
        self._target = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._made: set[bytes] = set()
        self._uppers: dict[Path, Folder] = {}
        self._stack = ExitStack()
        self._stack.callback(os.close, self._target)

    def __enter__(self) -> WorkTree:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def fill(self, changed: Mapping[bytes, Entry], ignored: Callable[[Collection[bytes]], Collection[bytes]]) -> None:
        """Link every changed file. ``ignored`` says which folders git ignores: what is in those is left out.

        It is asked once, with all ignore files in place, and only when there is much to save (``node_modules``).
        """
        large = _large_folders(changed)
        if large:
            self._link(changed, [path for path in changed if split(path)[1] == b".gitignore"])
            for folder in large:
                self.make_folder(folder)
            left_out = set(ignored(large))
            self._link(changed, [path for path in changed if left_out.isdisjoint(above(path))])
        else:
            self._link(changed, changed)

    def make_folder(self, path: bytes) -> None:
        """Make a folder and those that it lies in, as far as they are missing."""
        for folder in (*above(path), path):
            if folder not in self._made:
                os.mkdir(folder, dir_fd=self._target)
                self._made.add(folder)

    def _link(self, changed: Mapping[bytes, Entry], paths: Iterable[bytes]) -> None:
        for path in paths:
            entry = changed[path]
            if entry.kind not in ("file", "link") or path in self._made:
                continue
            folder, _ = split(path)
            if folder:
                self.make_folder(folder)
            if entry.upper not in self._uppers:
                self._uppers[entry.upper] = self._stack.enter_context(Folder(entry.upper))
            _link_one(self._uppers[entry.upper], path, entry, self._target)
            self._made.add(path)


def _large_folders(changed: Mapping[bytes, Entry]) -> list[bytes]:
    """The new folders with so many files beneath that linking them costs more than a question. Often none."""
    files = [path for path, entry in changed.items() if entry.kind in ("file", "link")]
    if len(files) < _MANY_FILES:
        return []
    sizes = Counter(folder for path in files for folder in above(path))
    return sorted(folder for folder, size in sizes.items() if size >= _MANY_FILES and folder in changed)


def _link_one(upper: Folder, path: bytes, entry: Entry, target: int) -> None:
    if entry.kind == "link":
        os.symlink(upper.readlink(path), path, dir_fd=target)
        return
    folder, name = split(path)
    try:
        os.link(name, path, src_dir_fd=upper.folder(folder), dst_dir_fd=target, follow_symlinks=False)
    except OSError:  # another file system, too many links, not ours to link, immutable
        with open(upper.open(path), "rb") as source:
            mode = 0o700 if entry.mode & 0o100 else 0o600
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=target)
            with open(fd, "wb") as copy:
                shutil.copyfileobj(source, copy)
