"""One layer as one file for the store, and back: a gzipped tar of ``upper/...`` and the list ``deleted``.

The same layer always gives the same bytes. Kept are files, links, hard links within the layer, folders, their
permission bits, owners and times in whole seconds, and pipes and sockets, since they hide what is below them; devices,
setuid bits and extended attributes are not. What else hides the layers below (whiteouts, opaque folders) stands in
``deleted``.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

from blocks.removal import remove_tree
from flows.layers import DELETED, UPPER, check_path, deleted_list
from flows.untrusted import Folder, Found, LayerRefused, split

_SOCKET = "socket"
"""A tar knows no sockets: a pipe with this as its target stands for one."""

_ENTRY_BYTES = 1024
"""What an entry counts for beside its content: a million empty files are not nothing."""


def pack(layer: Path, out: BinaryIO, *, limit_bytes: int | None = None) -> bool:
    """Write the layer to ``out``. False, and nothing written, if it holds more than ``limit_bytes`` uncompressed.

    Raises LayerRefused.
    """
    with ExitStack() as stack:
        upper: Folder | None = None
        found: list[Found] = []
        if (layer / UPPER).is_dir():
            upper = stack.enter_context(Folder(layer / UPPER))
            found = list(upper.scan())
        if limit_bytes is not None and _bytes(found) > limit_bytes:
            return False
        tar = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=out, mtime=0))
        _add_deleted(tar, layer, found)
        if upper is not None:
            _add_entries(tar, upper, found)
        tar.write(bytes(2 * tarfile.BLOCKSIZE))
    return True


def unpack(source: BinaryIO, layer: Path) -> None:
    """Make the folder ``layer`` the layer that was packed, whatever it held before.

    Takes nothing that would lie outside of it, and never writes through a link. Owners are restored when we are root.
    Raises LayerRefused for what ``pack`` did not write.
    """
    remove_tree(layer / UPPER)
    remove_tree(layer / DELETED)
    (layer / UPPER).mkdir(parents=True)
    (layer / UPPER).chmod(0o777)
    try:
        with (
            tarfile.open(fileobj=source, mode="r|gz", encoding="utf-8", errors="surrogateescape") as tar,
            Folder(layer / UPPER) as upper,
            Folder(layer / UPPER) as other,
        ):
            _Unpacking(tar, layer, upper, other).run()
    except (tarfile.TarError, zlib.error, EOFError, FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise LayerRefused(
            b"", f"the stored layer is damaged ({error}); remove the step's result from the store"
        ) from error


def _bytes(found: Sequence[Found]) -> int:
    return sum(_ENTRY_BYTES + (one.status.st_size if one.kind == "file" else 0) for one in found)


def _add_deleted(tar: gzip.GzipFile, layer: Path, found: Sequence[Found]) -> None:
    hidden = {one.path for one in found if one.opaque or _is_device(one)}
    content = b"".join(path + b"\0" for path in sorted(hidden.union(deleted_list(layer))))
    if content:
        info = tarfile.TarInfo(DELETED)
        info.size = len(content)
        _add(tar, info, BytesIO(content))


def _add_entries(tar: gzip.GzipFile, upper: Folder, found: Sequence[Found]) -> None:
    linked: dict[tuple[int, int], str] = {}
    for one in found:
        if _is_device(one):
            continue
        info, status = _info(one), one.status
        if one.kind == "link":
            info.type, info.linkname = tarfile.SYMTYPE, _text(upper.readlink(one.path))
        elif one.kind == "special":
            info.type, info.linkname = tarfile.FIFOTYPE, _SOCKET if stat.S_ISSOCK(status.st_mode) else ""
        elif one.kind == "folder":
            info.type = tarfile.DIRTYPE
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in linked:
            info.type, info.linkname = tarfile.LNKTYPE, linked[status.st_dev, status.st_ino]
        else:
            if status.st_nlink > 1:
                linked[status.st_dev, status.st_ino] = info.name
            info.size = status.st_size
            with open(upper.open(one.path), "rb") as file:
                _add(tar, info, file)
            continue
        _add(tar, info, BytesIO())


def _add(tar: gzip.GzipFile, info: tarfile.TarInfo, content: IO[bytes]) -> None:
    """One member. Not by TarFile, which keeps all that it wrote in memory: a layer may hold a million files."""
    tar.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    shutil.copyfileobj(content, tar)
    tar.write(bytes(-info.size % tarfile.BLOCKSIZE))


def _is_device(found: Found) -> bool:
    return stat.S_ISCHR(found.status.st_mode) or stat.S_ISBLK(found.status.st_mode)


def _info(found: Found) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"{UPPER}/{_text(found.path)}")
    info.mode = stat.S_IMODE(found.status.st_mode) & 0o777
    info.uid, info.gid = found.status.st_uid, found.status.st_gid
    info.mtime = int(found.status.st_mtime)
    return info


class _Unpacking:
    """Puts the members of one archive into an empty folder."""

    def __init__(self, tar: tarfile.TarFile, layer: Path, upper: Folder, other: Folder) -> None:
        self._tar, self._layer, self._upper, self._other = tar, layer, upper, other
        self._folders: list[tuple[bytes, tarfile.TarInfo]] = []
        self._may_give_away = os.geteuid() == 0

    def run(self) -> None:
        while (member := self._tar.next()) is not None:
            self._tar.members.clear()  # type: ignore[attr-defined]  # else it keeps what may be a million members
            if member.name == DELETED and member.type == tarfile.REGTYPE:
                (self._layer / DELETED).write_bytes(self._content(member).read())
                deleted_list(self._layer)  # refuses paths that lead elsewhere
            else:
                self._put(_path(member.name), member)
        for path, member in reversed(self._folders):  # only now: a read-only folder could not be filled
            self._set_status(self._upper.folder(path), member)

    def _put(self, path: bytes, member: tarfile.TarInfo) -> None:
        above, name = split(path)
        folder = self._upper.folder(above)
        if member.type == tarfile.DIRTYPE:
            os.mkdir(name, 0o700, dir_fd=folder)
            self._folders.append((path, member))
        elif member.type == tarfile.SYMTYPE:
            os.symlink(_raw(member.linkname), name, dir_fd=folder)
            self._set_owner_and_time(name, folder, member)
        elif member.type == tarfile.FIFOTYPE:
            kind = stat.S_IFSOCK if member.linkname == _SOCKET else stat.S_IFIFO
            os.mknod(name, kind | 0o600, dir_fd=folder)
            os.chmod(name, member.mode & 0o777, dir_fd=folder)
            self._set_owner_and_time(name, folder, member)
        elif member.type == tarfile.LNKTYPE:
            first, first_name = split(_path(member.linkname))
            there = self._other.folder(first)
            os.link(first_name, name, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
        elif member.type == tarfile.REGTYPE:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            with open(fd, "wb") as file:
                shutil.copyfileobj(self._content(member), file)
                file.flush()
                self._set_status(fd, member)
        else:
            raise LayerRefused(path, f"the stored layer is damaged: it holds a member of type {member.type!r}")

    def _content(self, member: tarfile.TarInfo) -> IO[bytes]:
        content = self._tar.extractfile(member)
        assert content is not None  # a regular file
        return content

    def _set_status(self, fd: int, member: tarfile.TarInfo) -> None:
        if self._may_give_away:
            os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o777)
        os.utime(fd, (member.mtime, member.mtime))

    def _set_owner_and_time(self, name: bytes, folder: int, member: tarfile.TarInfo) -> None:
        if self._may_give_away:
            os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
        os.utime(name, (member.mtime, member.mtime), dir_fd=folder, follow_symlinks=False)


def _path(name: str) -> bytes:
    """The path beneath ``upper`` that a member's name means."""
    top, _, path = _raw(name).partition(b"/")
    if top != UPPER.encode():
        raise LayerRefused(_raw(name), "the stored layer is damaged: not a name that a layer has")
    check_path(path)
    return path


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
