"""What the steps of a workspace changed, read from their layer folders (form: ``blocks.runtime.Layers``).

A ``State`` is the sum of some layers relative to the base tree. It grows layer by layer, and what it costs is the
change, not the repository. Refuses nothing but paths that no tool could read; what git cannot hold (pipes, sockets,
devices) counts as not there, and is told apart only by ``State.untold``.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from flows import gitindex
from flows.untrusted import Folder, Found, LayerRefused, above, split

UPPER = "upper"
DELETED = "deleted"

_LARGEST_READ_BYTES = 64 << 20
"""An index of half a million files: what a step calls an index or a reflog, and is larger, counts as it is and is never
held in memory."""
_TELLING = re.compile(r"user\.|system\.posix_acl_")
"""Extended attributes that steps can set and see."""
_REFLOG_TIME = re.compile(rb"(?<=> )\d+ [+-]\d{4}(?=\t|$)", re.MULTILINE)

Kind = Literal["file", "link", "folder", "gone"]
Untold = Literal["nothing", "kept", "lost"]

_CLOCK_SECONDS = 0.02
"""How far the times that a file system gives may be behind the clock."""


@dataclass(slots=True)
class Entry:
    """What stands at a path of the workspace instead of what the base has there.

    ``gone``: the base's entry was removed. ``replaces``, for a folder: nothing of what the base has at this path shows
    through. ``mode`` is the permission bits; ``upper`` the folder that holds the content.
    """

    kind: Kind
    mode: int = 0
    owner: tuple[int, int] = (0, 0)
    size: int = 0
    upper: Path = Path()
    replaces: bool = False
    sha256: bytes | None = field(default=None, compare=False)
    """Of the content, once somebody asked for it: see ``state_digest``."""


@dataclass(frozen=True)
class State:
    """The changed paths of a workspace. Folders of the base that merely hold a change are left out.

    Where a path has an entry that is no folder, nothing has one beneath it.
    """

    base: Path
    entries: Mapping[bytes, Entry] = field(default_factory=lambda: MappingProxyType({}))
    times: Mapping[bytes, int] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """When what the layers have at a path was modified, in ns: of folders that merely hold a change, too."""
    is_touched: bool = False
    """Whether the last layer holds anything."""
    untold: Untold = "nothing"
    """What the last layer holds that a later step can see and ``state_digest`` does not tell; and if that is something,
    whether a packed layer keeps it."""

    def with_layer(self, layer: Path, since: float | None = None) -> State:
        """The state after one more layer. Raises LayerRefused.

        ``since``: when its step began, seconds since 1970; then ``untold`` is found out.
        """
        upper = layer / UPPER
        found: list[Found] = []
        with ExitStack() as stack:
            base = stack.enter_context(Folder(self.base))
            if upper.is_dir() and not upper.is_symlink():
                folder = stack.enter_context(Folder(upper))
                found = list(folder.scan())
            deleted = deleted_list(layer)
            entries = _Merge(self.entries, base).apply(deleted, found, upper)
            untold: Untold = "nothing"
            if found and since is not None:
                untold = _Look(self, base, folder, since - _CLOCK_SECONDS, time.time()).untold(found)
        times = dict(self.times) | {one.path: one.status.st_mtime_ns for one in found}
        return State(self.base, MappingProxyType(entries), MappingProxyType(times), bool(found or deleted), untold)


def merge(layers: Sequence[Path], base: Path) -> State:
    """The state after all ``layers``, bottom first, on the pristine tree ``base``. Raises LayerRefused."""
    state = State(base)
    for layer in layers:
        state = state.with_layer(layer)
    return state


def state_digest(state: State) -> str:
    """A name for what a later step can read: sha256 in hex, ``""`` when nothing is changed.

    Covers every changed path with its kind, permission bits, owner and content or link target, ignored files and the
    steps' own ``.git`` included, without times: those of a reflog and the stat data of an index are left out, too. They
    differ from run to run though the steps did the same. What else it leaves out a state has as ``untold``.
    Hashes each file once: states that grew from one another share what was hashed.
    """
    total = hashlib.sha256()
    paths = sorted(state.entries)
    with ExitStack() as stack:
        folders: dict[Path, Folder] = {}
        for path in paths:
            entry = state.entries[path]
            if entry.kind in ("file", "link") and entry.sha256 is None:
                if entry.upper not in folders:
                    folders[entry.upper] = stack.enter_context(Folder(entry.upper))
                entry.sha256 = _content_digest(folders[entry.upper], path, entry.kind)
            for part in _identity(path, entry):
                total.update(b"%d:" % len(part) + part)
    return total.hexdigest() if paths else ""


def hides_base(entries: Mapping[bytes, Entry], path: bytes) -> bool:
    """Whether a change of a folder that ``path`` lies in removed everything that the base has at ``path``."""
    changed = (entries[folder] for folder in above(path) if folder in entries)
    return any(entry.kind != "folder" or entry.replaces for entry in changed)


def deleted_list(layer: Path) -> list[bytes]:
    """The paths in the layer's ``deleted``, sorted; none if it has no such file. Raises LayerRefused."""
    try:
        fd = os.open(layer / DELETED, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        paths = [path for path in file.read().split(b"\0") if path]
    for path in paths:
        check_path(path)
    return sorted(set(paths))


def check_path(path: bytes) -> None:
    """Raises LayerRefused unless ``path`` stays beneath the workspace and is written in the one canonical way."""
    if any(name in (b"", b".", b"..") for name in path.split(b"/")):
        raise LayerRefused(path, "not a path beneath the workspace; the stored layer is damaged")


class _Merge:
    """One layer put on the entries below it."""

    def __init__(self, below: Mapping[bytes, Entry], base: Folder) -> None:
        self._result = dict(below)
        self._base = base

    def apply(self, removed: Sequence[bytes], found: Sequence[Found], upper: Path) -> dict[bytes, Entry]:
        listed = frozenset(removed)
        self._hide(listed | {one.path for one in found if one.opaque or one.kind != "folder"})
        for one in found:  # a folder comes before what it holds
            if one.kind == "folder":
                self._put_folder(one, upper, opaque=one.opaque or one.path in listed)
            elif one.kind in ("file", "link"):
                self._result[one.path] = _entry(one, upper)
            else:
                self._remove(one.path)
        for path in removed:
            if path not in self._result:
                self._remove(path)
        return self._result

    def _hide(self, hidden: Set[bytes]) -> None:
        """Forget what the layers below have at and beneath the ``hidden`` paths."""
        if hidden:
            below = self._result.items()
            self._result = {path: entry for path, entry in below if not _is_at_or_beneath(path, hidden)}

    def _put_folder(self, found: Found, upper: Path, *, opaque: bool) -> None:
        was, base = self._result.get(found.path), self._base_status(found.path)
        entry = _entry(found, upper)
        if was is not None and was.kind == "folder":
            entry.replaces = was.replaces
        else:
            entry.replaces = base is not None and (opaque or was is not None or not stat.S_ISDIR(base.st_mode))
        if base is not None and not entry.replaces and _same_folder(entry, base):
            self._result.pop(found.path, None)
        else:
            self._result[found.path] = entry

    def _remove(self, path: bytes) -> None:
        if self._base_status(path) is not None:
            self._result[path] = Entry("gone")

    def _base_status(self, path: bytes) -> os.stat_result | None:
        """What the base has at ``path``, unless a changed folder above hides it."""
        return None if hides_base(self._result, path) else self._base.status(path)


@dataclass(frozen=True)
class _Look:
    """At a layer that was written between ``since`` and ``until``, on the state ``below``."""

    below: State
    base: Folder
    upper: Folder
    since: float
    until: float

    def untold(self, found: Sequence[Found]) -> Untold:
        """Whether a later step can see more of the entries than their kind, mode, owner and content.

        Pipes and sockets; second names of a file; extended attributes; times that somebody set. The order of the times
        that a step's own writing left is nothing to rely on: it counts as told.
        """
        if any(map(self._is_lost, found)):
            return "lost"
        return "kept" if any(map(self._is_kept, found)) else "nothing"

    def _is_lost(self, found: Found) -> bool:
        if found.kind == "special":
            return not (stat.S_ISFIFO(found.status.st_mode) or stat.S_ISSOCK(found.status.st_mode))
        return found.kind in ("file", "folder") and any(map(_TELLING.match, self._attributes(found)))

    def _is_kept(self, found: Found) -> bool:
        if found.kind in ("whiteout", "special"):
            return found.kind == "special"
        status = found.status
        if found.kind == "file" and status.st_nlink > 1:
            return True
        return not self.since <= status.st_mtime <= self.until and not self._had_this_time(found)

    def _attributes(self, found: Found) -> list[str]:
        if found.kind == "folder":
            return os.listxattr(self.upper.folder(found.path))
        above, name = split(found.path)
        return os.listxattr(b"/proc/self/fd/%d/%s" % (self.upper.folder(above), name), follow_symlinks=False)

    def _had_this_time(self, found: Found) -> bool:
        """Whether it is what was there before, with its time: an overlay makes such copies to change something else."""
        path = found.path
        entry = self.below.entries.get(path)
        if path in self.below.times:
            time_below: int | None = self.below.times[path]
        else:
            status = self.base.status(path)
            time_below = status.st_mtime_ns if status else None
        if found.status.st_mtime_ns != time_below or found.kind == "link":
            return False
        if found.kind == "folder":
            return True
        with ExitStack() as stack:
            below = stack.enter_context(Folder(entry.upper)) if entry and entry.kind == "file" else self.base
            return _content_digest(below, path, "file") == _content_digest(self.upper, path, "file")


def _entry(found: Found, upper: Path) -> Entry:
    status = found.status
    kind: Kind = "file" if found.kind == "file" else "link" if found.kind == "link" else "folder"
    mode = 0o777 if kind == "link" else stat.S_IMODE(status.st_mode) & 0o777
    return Entry(kind, mode, (status.st_uid, status.st_gid), status.st_size if kind == "file" else 0, upper)


def _same_folder(entry: Entry, base: os.stat_result) -> bool:
    return (entry.mode, entry.owner) == (stat.S_IMODE(base.st_mode) & 0o777, (base.st_uid, base.st_gid))


def _is_at_or_beneath(path: bytes, places: Set[bytes]) -> bool:
    return path in places or any(folder in places for folder in above(path))


def _is_reflog(path: bytes) -> bool:
    return b"/.git/logs/" in b"/" + path + b"/"


def _identity(path: bytes, entry: Entry) -> tuple[bytes, ...]:
    about = f"{entry.kind} {entry.mode:o} {entry.owner[0]}:{entry.owner[1]} {entry.replaces:d}"
    return path, about.encode(), entry.sha256 or b""


def _content_digest(folder: Folder, path: bytes, kind: Kind) -> bytes:
    if kind == "link":
        return hashlib.sha256(folder.readlink(path)).digest()
    with open(folder.open(path), "rb") as file:
        if os.fstat(file.fileno()).st_size <= _LARGEST_READ_BYTES:
            if (b"/" + path).endswith(b"/.git/index"):
                return hashlib.sha256(gitindex.without_stat_data(file.read())).digest()
            if _is_reflog(path):
                return hashlib.sha256(_REFLOG_TIME.sub(b"", file.read())).digest()
        return hashlib.file_digest(file, "sha256").digest()
