"""Reading folders that a step could write to: no link is ever followed, whatever stands where.

Paths are bytes, relative to the folder, with ``/`` between names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal

from blocks.runtime import LONGEST_PATH, MOST_ENTRIES, excess, shown_path
from flows.batches.errors import PermanentError

Kind = Literal["file", "link", "folder", "whiteout", "special"]

# Not the user.overlay.* of mounts with userxattr, which we never make: a step could set those itself.
_OPAQUE = "trusted.overlay.opaque"
_REDIRECT = "trusted.overlay.redirect"


class LayerRefused(PermanentError):
    """A step left something that cannot be kept. ``path`` is where, ``reason`` says what and what to do.

    ``path`` is empty where it is no single one.
    """

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        where = f"{shown_path(self.path)}: " if self.path else ""
        return where + self.reason


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a folder. ``opaque``: a folder of an overlay that hides what is below it."""

    path: bytes
    kind: Kind
    status: os.stat_result
    opaque: bool = False


class Folder:
    """A folder that is only read, and only beneath itself. A context manager; for one thread at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._at, self._fd = b"", self._root

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._go(b"", self._root)
        os.close(self._root)

    def folder(self, path: bytes) -> int:
        """A descriptor of the folder at ``path``, valid until the next call.

        Raises FileNotFoundError or NotADirectoryError if there is no such folder, or a link on the way.
        """
        if path == self._at:
            return self._fd
        if self._at and not path.startswith(self._at + b"/"):
            self._go(b"", self._root)
        for name in path[len(self._at) :].split(b"/"):
            if name:
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._fd)
                self._go(join(self._at, name), fd)
        return self._fd

    def status(self, path: bytes) -> os.stat_result | None:
        """lstat of ``path``; None if it is not there or stands below something that is no folder."""
        above, name = split(path)
        try:
            return os.lstat(name, dir_fd=self.folder(above)) if name else os.fstat(self._root)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, path: bytes) -> int:
        """A descriptor for reading the file at ``path``; the caller closes it. Raises OSError (ELOOP for a link)."""
        above, name = split(path)
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.folder(above))

    def readlink(self, path: bytes) -> bytes:
        above, name = split(path)
        return os.readlink(name, dir_fd=self.folder(above))

    def scan(self) -> Iterator[Found]:
        """Everything beneath, a folder before what it holds, names in byte order; without the folder itself.

        Raises LayerRefused for a path of more than LONGEST_PATH bytes, more than MOST_ENTRIES or MOST_PATH_BYTES, a
        folder we may not read, and a layer that an overlay with redirect_dir=on made.
        """
        pending = [Found(b"", "folder", os.fstat(self._root))]
        entries = path_bytes = 0
        while pending:
            found = pending.pop()
            if found.kind == "folder":
                found, inside = self._look_into(found)
                pending.extend(reversed(inside))
                entries += len(inside)
                path_bytes += sum(len(one.path) for one in inside)
                _check_amount(entries, path_bytes)
            if found.path:
                yield found

    def _look_into(self, found: Found) -> tuple[Found, list[Found]]:
        if len(found.path) > LONGEST_PATH:
            raise LayerRefused(found.path, f"its path has over {LONGEST_PATH} bytes; remove it at the end of the step")
        try:
            fd = self.folder(found.path)
            attributes = set(os.listxattr(fd))
            names = _names(fd)
            _check_amount(len(names), 0)
            inside = [_found(join(found.path, name), os.lstat(name, dir_fd=fd)) for name in names]
        except PermissionError as error:
            hint = "the worker may not read it: run the worker as root, or use workspace mode copy"
            raise LayerRefused(found.path, hint) from error
        if _REDIRECT in attributes:
            raise LayerRefused(found.path, "the overlay was mounted with redirect_dir=on; mount with redirect_dir=off")
        opaque = _OPAQUE in attributes and os.getxattr(fd, _OPAQUE) == b"y"
        return Found(found.path, "folder", found.status, opaque), inside

    def _go(self, path: bytes, fd: int) -> None:
        if self._fd != self._root:
            os.close(self._fd)
        self._at, self._fd = path, fd


def join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def split(path: bytes) -> tuple[bytes, bytes]:
    """The folder of a path, and its name there."""
    above, _, name = path.rpartition(b"/")
    return above, name


def above(path: bytes) -> Iterator[bytes]:
    """The folders that ``path`` lies in, from the top, without the root."""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def _check_amount(entries: int, path_bytes: int) -> None:
    if problem := excess(entries, path_bytes):
        raise LayerRefused(b"", problem)


def _names(fd: int) -> list[bytes]:
    """The names in a folder; of very many, one more than there may be."""
    with os.scandir(fd) as entries:
        return sorted(os.fsencode(entry.name) for entry in islice(entries, MOST_ENTRIES + 1))


def _found(path: bytes, status: os.stat_result) -> Found:
    return Found(path, _kind(status), status)


def _kind(status: os.stat_result) -> Kind:
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFREG:
            return "file"
        case stat.S_IFLNK:
            return "link"
        case stat.S_IFDIR:
            return "folder"
        case stat.S_IFCHR if status.st_rdev == 0:
            return "whiteout"
    return "special"
