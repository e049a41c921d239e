"""Removing a folder whatever a step left in it: read-only, root-owned, immutable, deeper than any path may be.

Never follows a link; refuses a folder that something is mounted in.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

# <linux/fs.h>: _IOR('f', 1, long) and _IOW('f', 2, long), for the flags that chattr calls i and a.
_LONG_BYTES = struct.calcsize("l")
_GET_FLAGS = 0x80006601 | _LONG_BYTES << 16
_SET_FLAGS = 0x40006602 | _LONG_BYTES << 16
_IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove_tree(path: Path) -> bool:
    """Remove the file or folder at ``path`` and all beneath it. Returns whether it is gone, also if it never was there.

    What cannot be removed (another user's files when we are not root) is logged and stays; the rest goes.
    """
    mounts = _mounts_in(path)
    if mounts:
        log.warning("%s is not removed: %s is mounted in it; unmount that", path, mounts[0])
        return False
    try:
        above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True
    try:
        return _Removal().remove(path.name, above)
    finally:
        os.close(above)


class _Removal:
    """Goes down and up with a single descriptor: no tree is too deep, no path too long."""

    def __init__(self) -> None:
        self._complete = True

    def remove(self, name: str, above: int) -> bool:
        try:
            if stat.S_ISDIR(os.lstat(name, dir_fd=above).st_mode):
                self._empty(name, above)
                self._try(os.rmdir, name, above)
            else:
                self._try(os.unlink, name, above)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._note(name, error)
        return self._complete

    def _empty(self, top: str, above: int) -> None:
        fd = _enter(top, above)
        way: list[tuple[str, tuple[int, int]]] = []  # from the top to here: a name, and the folder that it stands in
        try:
            waiting = [self._remove_files(fd)]  # for each of them, and the top: folders not yet looked into
            while waiting:
                if waiting[-1]:
                    name, here = waiting[-1].pop(), _identity(fd)
                    try:
                        fd = _moved(fd, _enter(name, fd))
                    except OSError as error:
                        self._note(name, error)
                        continue
                    way.append((name, here))
                    waiting.append(self._remove_files(fd))
                    continue
                waiting.pop()
                if way:
                    name, here = way.pop()
                    fd = _moved(fd, os.open("..", _FOLDER, dir_fd=fd))
                    if _identity(fd) != here:
                        raise OSError(errno.ESTALE, "it was moved while it was being removed")
                    self._try(os.rmdir, name, fd)
        finally:
            os.close(fd)

    def _remove_files(self, fd: int) -> list[str]:
        """Remove what is no folder; the names of the folders."""
        with os.scandir(fd) as entries:
            inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in inside:
            if not is_folder:
                self._try(os.unlink, name, fd)
        return [name for name, is_folder in inside if is_folder]

    def _try(self, remove: Callable[..., None], name: str, fd: int) -> None:
        try:
            try:
                remove(name, dir_fd=fd)
            except PermissionError:
                _unlock(name, fd)
                remove(name, dir_fd=fd)
        except OSError as error:
            self._note(name, error)

    def _note(self, name: str, error: OSError) -> None:
        if self._complete:  # the first one is enough: a folder that keeps one file keeps all folders above
            log.warning("%r cannot be removed and stays: %s", name, error.strerror)
        self._complete = False


def _enter(name: str, fd: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=fd)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=fd)  # ours, but closed even to us; certainly a folder, or open had said so
        return os.open(name, _FOLDER, dir_fd=fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _moved(fd: int, to: int) -> int:
    os.close(fd)
    return to


def _unlock(name: str, folder: int) -> None:
    """Take away what keeps an entry from being removed: flags on it and its folder, a read-only folder."""
    _clear_flags(folder)
    with suppress(OSError):
        os.fchmod(folder, 0o700)
    if stat.S_IFMT(os.lstat(name, dir_fd=folder).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
        with suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            try:
                _clear_flags(fd)
            finally:
                os.close(fd)


def _clear_flags(fd: int) -> None:
    with suppress(OSError):  # a file system without such flags, or not ours to change
        (flags,) = struct.unpack_from("i", fcntl.ioctl(fd, _GET_FLAGS, bytes(_LONG_BYTES)))
        if flags & _IMMUTABLE_OR_APPEND_ONLY:
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags & ~_IMMUTABLE_OR_APPEND_ONLY))


def _mounts_in(path: Path) -> list[str]:
    """Mount points at or beneath ``path``, where the system can tell."""
    try:
        table = Path("/proc/self/mountinfo").read_bytes()
    except FileNotFoundError:
        return []
    place = os.fsencode(path.parent.resolve() / path.name)
    points = (_unescaped(line.split()[4]) for line in table.splitlines())
    return [os.fsdecode(point) for point in points if point == place or point.startswith(place + b"/")]


def _unescaped(point: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point)
