"""Workspaces for tests: edit a folder as a step would, get the layer that a runtime would leave.

`Overlaid` mounts a real overlay; `Compared` copies and compares, as the copy mode of a runtime does.
"""

from __future__ import annotations

import ctypes
import filecmp
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_OPTIONS = "redirect_dir=off,metacopy=off,index=off"


class Overlaid:
    """Layers as an overlay makes them: whiteouts and opaque folders."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder, self.layers = base, folder, list[Path]()

    @contextmanager
    def step(self) -> Iterator[Path]:
        """The workspace's content, to be edited; leaving makes a layer of the edits."""
        layer = self.folder / "layers" / str(len(self.layers))
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True)
        (layer / "upper").chmod(0o777)
        with self._mounted(f"upperdir={layer / 'upper'},workdir={layer / 'work'},") as merged:
            yield merged
        self.layers.append(layer)

    @contextmanager
    def content(self) -> Iterator[Path]:
        """The workspace's content as it is now, to be read."""
        (self.folder / "nothing").mkdir(parents=True, exist_ok=True)
        with self._mounted("", [self.folder / "nothing"]) as merged:
            yield merged

    @contextmanager
    def _mounted(self, options: str, more: list[Path] | None = None) -> Iterator[Path]:
        merged = self.folder / "merged"
        merged.mkdir(parents=True, exist_ok=True)
        lowers = [*(more or []), *(layer / "upper" for layer in reversed(self.layers)), self.base]
        data = f"{_OPTIONS},{options}lowerdir={':'.join(map(str, lowers))}"
        if _libc.mount(b"overlay", os.fsencode(merged), b"overlay", 0, data.encode()):
            raise OSError(ctypes.get_errno(), f"mount {data}")
        try:
            yield merged
        finally:
            if _libc.umount2(os.fsencode(merged), 0):
                raise OSError(ctypes.get_errno(), f"umount {merged}")


class Compared:
    """Layers as the comparison of two copies makes them: changed files, and a list of what is gone."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder, self.layers = base, folder, list[Path]()
        self._now = folder / "now"
        copy_tree(base, self._now)

    @contextmanager
    def step(self) -> Iterator[Path]:
        before = self.folder / "before"
        copy_tree(self._now, before)
        yield self._now
        layer = self.folder / "layers" / str(len(self.layers))
        (layer / "upper").mkdir(parents=True)
        deleted = _compare(os.fsencode(before), os.fsencode(self._now), os.fsencode(layer / "upper"), b"")
        (layer / "deleted").write_bytes(b"".join(path + b"\0" for path in deleted))
        shutil.rmtree(os.fsencode(before))
        self.layers.append(layer)

    @contextmanager
    def content(self) -> Iterator[Path]:
        yield self._now


def can_mount_overlays(folder: Path) -> bool:
    for name in ("base", "workspace"):
        (folder / name).mkdir()
    try:
        with Overlaid(folder / "base", folder / "workspace").step():
            return True
    except OSError:
        return False


def copy_tree(source: Path, target: Path) -> None:
    """A copy with links, pipes, modes and times."""
    shutil.copytree(os.fsencode(source), os.fsencode(target), symlinks=True, copy_function=_copy_one)


def _copy_one(source: bytes, target: bytes) -> None:
    if stat.S_ISFIFO(os.lstat(source).st_mode):
        os.mkfifo(target)
    elif os.path.islink(source):
        os.symlink(os.readlink(source), target)
    else:
        shutil.copy2(source, target)


def _compare(before: bytes, after: bytes, upper: bytes, folder: bytes) -> list[bytes]:
    """Copy to ``upper`` what differs in ``after``; return what only ``before`` has, or has as another kind."""
    here = before + b"/" + folder
    old = set(os.listdir(here)) if os.path.isdir(here) and not os.path.islink(here.rstrip(b"/")) else set()
    new = set(os.listdir(after + b"/" + folder))
    gone = [folder + name for name in sorted(old - new)]
    for name in sorted(new):
        path = folder + name
        now = os.lstat(after + b"/" + path)
        was = os.lstat(before + b"/" + path) if name in old else None
        if was is not None and stat.S_IFMT(was.st_mode) != stat.S_IFMT(now.st_mode):
            gone.append(path)
            was = None
        if stat.S_ISDIR(now.st_mode):
            if was is None or was.st_mode != now.st_mode:
                os.makedirs(upper + b"/" + path, exist_ok=True)
                os.chmod(upper + b"/" + path, stat.S_IMODE(now.st_mode))
            gone += _compare(before if was else b"/nonexistent", after, upper, path + b"/")
        elif was is None or not _same(before + b"/" + path, after + b"/" + path, was, now):
            os.makedirs(os.path.dirname(upper + b"/" + path), exist_ok=True)
            _copy_one(after + b"/" + path, upper + b"/" + path)
    return gone


def _same(old: bytes, new: bytes, was: os.stat_result, now: os.stat_result) -> bool:
    if (was.st_mode, was.st_mtime_ns) != (now.st_mode, now.st_mtime_ns):
        return False
    if stat.S_ISLNK(now.st_mode):
        return os.readlink(old) == os.readlink(new)
    return not stat.S_ISREG(now.st_mode) or filecmp.cmp(os.fsdecode(old), os.fsdecode(new), shallow=False)
