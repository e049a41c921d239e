"""A workspace's content where it cannot be mounted: listed from base and layers, packed to be sent to the engine."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blocks.overlays import DELETED, UPPER
from blocks.runtime import Layers, ReadOnlyFile

_CHUNK_BYTES = 1 << 20
_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True)
class Node:
    """What stands at a path. ``source``: where on this host; for a file its content, for a link its target."""

    kind: Literal["file", "link", "folder"]
    source: bytes
    executable: bool = False


Tree = Mapping[bytes, Node]
"""By path below /work; the folder itself is not in it."""


def merged(layers: Layers) -> Tree:
    """The workspace as its next step shall see it. Special files are not there."""
    tree: dict[bytes, Node] = {path: node for path, node in _walk(layers.base) if node}
    for layer in layers.layers:
        found = list(_walk(layer / UPPER)) if (layer / UPPER).is_dir() else []
        hidden = _deleted(layer) | {path for path, node in found if _hides(node)}
        tree = {path: node for path, node in tree.items() if not hidden or not is_at_or_below(path, hidden)}
        tree |= {path: node for path, node in found if node}
    return tree


def is_at_or_below(path: bytes, places: Collection[bytes]) -> bool:
    """Whether ``path`` or a folder above it is one of ``places``."""
    while path not in places:
        path, slash, _ = path.rpartition(b"/")
        if not slash:
            return False
    return True


def pack(tree: Tree, prefix: bytes) -> Iterator[bytes]:
    """``tree`` as the members of a tar archive, in pieces; any user may read and write what it holds."""
    yield _header(prefix, tarfile.DIRTYPE, 0o777)
    for path in sorted(tree):  # a folder before what it holds
        node = tree[path]
        name = prefix + b"/" + path
        if node.kind == "folder":
            yield _header(name, tarfile.DIRTYPE, 0o777)
        elif node.kind == "link":
            yield _header(name, tarfile.SYMTYPE, 0o777, link=os.readlink(node.source))
        else:
            yield from _file(name, node.source, 0o777 if node.executable else 0o666)


def folders_above(paths: Iterable[bytes]) -> set[bytes]:
    """All folders that the paths lie in, without the workspace itself."""
    folders: set[bytes] = set()
    for path in paths:
        while path := path.rpartition(b"/")[0]:
            folders.add(path)
    return folders


def pack_files(files: Iterable[tuple[bytes, ReadOnlyFile]]) -> Iterator[bytes]:
    """Files and folders by their place in the container, as members of a tar archive: nobody may write to them."""
    for place, file in files:
        yield from _read_only(place.strip(b"/"), os.fsencode(file.source.resolve()))


def end_of_archive() -> bytes:
    """What comes after the last member."""
    return bytes(2 * tarfile.BLOCKSIZE)


def _walk(root: Path) -> Iterator[tuple[bytes, Node | None]]:
    """Everything below ``root``; None for what no workspace holds: whiteouts, pipes, devices."""
    top = os.fsencode(root)
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(top, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                node = _node(entry)
                if node and node.kind == "folder":
                    pending.append(path)
                yield path, node


def _node(entry: os.DirEntry[bytes]) -> Node | None:
    if entry.is_symlink():
        return Node("link", entry.path)
    if entry.is_dir():
        return Node("folder", entry.path)
    mode = entry.stat(follow_symlinks=False).st_mode
    return Node("file", entry.path, executable=bool(mode & stat.S_IXUSR)) if stat.S_ISREG(mode) else None


def _hides(node: Node | None) -> bool:
    """Whether nothing below the layer shows through at this path."""
    if node is None or node.kind != "folder":
        return True
    try:
        return os.getxattr(node.source, _OPAQUE) == b"y"
    except OSError:  # it has none, or nobody here may set one
        return False


def _deleted(layer: Path) -> set[bytes]:
    try:
        return {path for path in (layer / DELETED).read_bytes().split(b"\0") if path}
    except FileNotFoundError:
        return set()


def _read_only(name: bytes, source: bytes) -> Iterator[bytes]:
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        yield _header(name, tarfile.SYMTYPE, 0o777, link=os.readlink(source))
    elif stat.S_ISDIR(status.st_mode):
        yield _header(name, tarfile.DIRTYPE, 0o755)
        for inside in sorted(os.listdir(source)):
            yield from _read_only(name + b"/" + inside, os.path.join(source, inside))
    else:
        yield from _file(name, source, 0o555 if status.st_mode & 0o111 else 0o444)


def _file(name: bytes, source: bytes, mode: int) -> Iterator[bytes]:
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        size = left = status.st_size
        yield _header(name, tarfile.REGTYPE, mode, size=size, seconds=int(status.st_mtime))
        while left:
            piece = file.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise OSError(f"{os.fsdecode(source)} became shorter while it was read")
            left -= len(piece)
            yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


def _header(name: bytes, kind: bytes, mode: int, *, size: int = 0, link: bytes = b"", seconds: int = 0) -> bytes:
    info = tarfile.TarInfo(os.fsdecode(name))
    info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, size, os.fsdecode(link), seconds
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
