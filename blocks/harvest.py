"""What a step changed in a copied workspace: the engine's archive of it, compared with what it was before.

Trusts nothing in the archive: no name leads outside of the layer, no link is followed, no special file is made.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tarfile
from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from blocks.copied_trees import Node, Tree, folders_above, is_at_or_below
from blocks.overlays import DELETED, UPPER, check_size, open_mode
from blocks.runtime import LONGEST_PATH, ContainerRefused, RuntimeUnavailable, excess, shown_path

_CHUNK_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class ChunkReader:
    """The file that ``tarfile`` wants, over pieces of bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer at the end."""
        parts, missing = [], size
        while missing:
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    break
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)


@dataclass(frozen=True)
class Left:
    """What a step left in the copy that no layer keeps."""

    odd: Set[bytes]
    """The paths whose permissions or times are not as they would be sent."""
    special: Set[bytes]
    """Pipes, sockets, devices."""


def harvest(
    archive: Iterable[bytes], before: Tree, layer: Path, covered: Collection[bytes], *, limit_bytes: int = sys.maxsize
) -> Left:
    """Write what differs from ``before`` to ``layer``, in the form of ``blocks.runtime.Layers``.

    ``archive``: a tar of /work. ``covered``: paths that files were put at; they count as unchanged.
    Raises RuntimeUnavailable if the archive cannot be what an engine sends, ContainerRefused if more than
    ``limit_bytes`` were changed, or a hard link leads to a covered path.
    """
    (layer / UPPER).mkdir()
    (layer / UPPER).chmod(0o777)
    upper = _Upper(layer / UPPER)
    try:
        with tarfile.open(  # a stream: nothing is sought, nothing kept
            fileobj=cast(IO[bytes], ChunkReader(archive)), mode="r|", encoding="utf-8", errors="surrogateescape"
        ) as members:
            kept: list[tarfile.TarInfo] = vars(members)["members"]  # tarfile would keep them all
            comparison = _Comparison(members, before, upper, covered, limit_bytes)
            for member in members:
                comparison.take(member)
                kept.clear()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f"cannot keep the workspace in {layer}: {error.strerror}"
            raise RuntimeUnavailable(f"{where}; free some space there, or let the step write less") from error
        raise RuntimeUnavailable(f"cannot read the workspace back from the engine: {error}") from error
    except tarfile.TarError as error:
        raise RuntimeUnavailable(f"cannot read the workspace back from the engine: {error}") from error
    finally:
        upper.close()
    gone = comparison.gone()
    if gone:
        (layer / DELETED).write_bytes(b"".join(path + b"\0" for path in gone))
    return Left(comparison.odd, comparison.special)


class _Comparison:
    def __init__(
        self, members: tarfile.TarFile, before: Tree, upper: _Upper, covered: Collection[bytes], limit_bytes: int
    ) -> None:
        self._members, self._before, self._upper, self._covered = members, before, upper, covered
        self._limit_bytes, self._changed_bytes = limit_bytes, 0
        self._new_entries = self._new_path_bytes = 0
        # Folders that only lead to a covered path, and were not there: nobody's change.
        self._ways = folders_above(covered) - before.keys()
        self._seen: dict[bytes, Node] = {}
        """Of a link ``source`` is the target itself."""
        self.special: set[bytes] = set()
        self.odd: set[bytes] = set()

    def take(self, member: tarfile.TarInfo) -> None:
        path = _path(member.name)
        if not path or is_at_or_below(path, self._covered):
            return
        was = self._before.get(path)
        if was is None:
            self._new_entries += 1
            self._new_path_bytes += len(path)
            if problem := excess(self._new_entries, self._new_path_bytes):
                raise ContainerRefused(f"what the step left cannot be kept: {problem}")
        if not member.issym() and member.mode != open_mode(member.mode | (stat.S_IFDIR if member.isdir() else 0)):
            self.odd.add(path)
        if member.isdir():
            self._take_folder(path, was)
        elif member.issym():
            self._take_link(path, os.fsencode(member.linkname), was)
        elif member.islnk():
            self._take_hard_link(path, _path(member.linkname), was)
        elif member.isreg():
            content = self._members.extractfile(member)
            if content is not None:
                self._take_file(path, content, member.size, was, executable=bool(member.mode & stat.S_IXUSR))
            if was is not None and int(os.stat(self._seen[path].source).st_mtime) != int(member.mtime):
                self.odd.add(path)
        else:
            self.special.add(path)

    def gone(self) -> list[bytes]:
        """What was there before, is not any more, and whose folder still is; sorted."""
        gone: set[bytes] = set()
        for path in sorted(self._before):
            above = path.rpartition(b"/")[0]
            if path not in self._seen and not is_at_or_below(path, self._covered):
                hidden = above and (is_at_or_below(above, gone) or self._kind(above) in ("file", "link"))
                if not hidden:
                    gone.add(path)
        return sorted(gone)

    def _kind(self, path: bytes) -> str:
        return self._seen[path].kind if path in self._seen else ""

    def _take_folder(self, path: bytes, was: Node | None) -> None:
        self._seen[path] = Node("folder", b"")
        if path not in self._ways and (was is None or was.kind != "folder"):
            self._upper.folder(path)

    def _take_link(self, path: bytes, target: bytes, was: Node | None) -> None:
        self._seen[path] = Node("link", target)
        if was is None or was.kind != "link" or os.readlink(was.source) != target:
            self._upper.link(path, target)

    def _take_hard_link(self, path: bytes, first: bytes, was: Node | None) -> None:
        """A second name of what came before: something of its own with the same content."""
        if is_at_or_below(first, self._covered):
            link = f"{os.fsdecode(path)!r} is a hard link to {os.fsdecode(first)!r}"
            raise ContainerRefused(f"{link}, which the step is only shown; let it copy that")
        one = self._seen.get(first)
        if first in self.special:
            self.special.add(path)
            return
        if one is None or one.kind == "folder":
            raise tarfile.ReadError(f"a hard link to {first!r}, which is no file before it")
        if one.kind == "link":
            self._take_link(path, one.source, was)
            return
        with open(one.source, "rb") as content:
            self._take_file(path, content, os.fstat(content.fileno()).st_size, was, executable=one.executable)

    def _take_file(self, path: bytes, content: IO[bytes], size: int, was: Node | None, *, executable: bool) -> None:
        if was is None or was.kind != "file" or was.executable != executable or os.stat(was.source).st_size != size:
            self._changed_bytes += size
            check_size(self._changed_bytes, self._limit_bytes)
            source = self._upper.file(path, _pieces(content), executable=executable)
        else:
            source = self._take_if_changed(path, content, was)
        self._seen[path] = Node("file", source, executable)

    def _take_if_changed(self, path: bytes, content: IO[bytes], was: Node) -> bytes:
        """Write the file unless its content is what it was; returns where its content is on this host."""
        same = 0
        with open(was.source, "rb") as old:
            for piece in _pieces(content):
                if piece != old.read(len(piece)):
                    old.seek(0)
                    pieces = _chained(_pieces(old, same), piece, content)
                    return self._upper.file(path, pieces, executable=was.executable)
                same += len(piece)
        return was.source


class _Upper:
    """Writes below one folder and nowhere else: each folder on the way is opened from the one above, never a link.

    Stays where it was last: an engine sends what is in a folder together, and the way to it may be long.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._top = os.fsencode(root), os.open(root, _FOLDER)
        self._at, self._fd = b"", os.dup(self._top)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._top)

    def folder(self, path: bytes) -> int:
        """A descriptor of the folder at ``path``, made if need be; valid until the next call."""
        if path != self._at and not path.startswith(self._at + b"/" if self._at else b""):
            self._go(b"", os.dup(self._top))
        for name in filter(None, path[len(self._at) :].split(b"/")):
            try:
                below = os.open(name, _FOLDER, dir_fd=self._fd)
            except FileNotFoundError:
                os.mkdir(name, dir_fd=self._fd)
                below = os.open(name, _FOLDER, dir_fd=self._fd)
                os.fchmod(below, 0o777)
            self._go(os.path.join(self._at, name), below)
        return self._fd

    def link(self, path: bytes, target: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        os.symlink(target, name, dir_fd=self.folder(above))

    def file(self, path: bytes, pieces: Iterable[bytes], *, executable: bool) -> bytes:
        """Write a new file, holes where there are only zeros; returns where it is."""
        above, _, name = path.rpartition(b"/")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(name, flags, 0o600, dir_fd=self.folder(above)), "wb") as file:
            for piece in pieces:
                if piece.count(0) == len(piece):
                    file.seek(len(piece), os.SEEK_CUR)
                else:
                    file.write(piece)
            file.truncate(file.tell())
            os.fchmod(file.fileno(), open_mode(stat.S_IXUSR if executable else 0))
        return os.path.join(self._root, path)

    def _go(self, path: bytes, fd: int) -> None:
        os.close(self._fd)
        self._at, self._fd = path, fd


def _path(name: str) -> bytes:
    """A member's path below /work; empty for /work itself. Podman leaves the first name, that of the folder, empty."""
    folder, *names = os.fsencode(name).rstrip(b"/").split(b"/")
    if folder not in (b"", b"work") or any(part in (b"", b".", b"..") for part in names):
        raise tarfile.ReadError(f"a member named {name!r}")
    path = b"/".join(names)
    if len(path) > LONGEST_PATH:
        raise ContainerRefused(
            f"{shown_path(path)}: its path has over {LONGEST_PATH} bytes; remove it at the end of the step"
        )
    return path


def _pieces(file: IO[bytes], limit: int | None = None) -> Iterator[bytes]:
    left = limit
    while piece := file.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)):
        yield piece
        if left is not None:
            left -= len(piece)


def _chained(before: Iterator[bytes], piece: bytes, after: IO[bytes]) -> Iterator[bytes]:
    yield from before
    yield piece
    yield from _pieces(after)
