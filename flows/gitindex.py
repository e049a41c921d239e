"""Git's index file (versions 2 and 3, SHA-1 names) as bytes: written, and read for what it says besides stat data.

An index that a step wrote is hostile input: whatever cannot be read is handed back as it is.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_HEADER = struct.Struct(">4sII")
_FLAGS_AT = 60  # after 40 bytes of stat data (the mode at 24 among them) and the object's name
_NAME_AT = 62
_EXTENDED = 0x4000
_SKIP_WORKTREE = 0x4000  # in the second, extended flags
_LONGEST_NAME = 0xFFF
_CHECKSUM_BYTES = 20


class IndexEntry(NamedTuple):
    """A path with what git tracks there. ``skip_worktree``: git takes it as present and unchanged, without looking."""

    path: bytes
    mode: int
    oid: str
    skip_worktree: bool = False


def written(entries: Iterable[IndexEntry]) -> bytes:
    """An index of ``entries`` without stat data: git reads every file before it believes it to be unchanged."""
    ordered = sorted(entries)
    body = bytearray(_HEADER.pack(b"DIRC", 3, len(ordered)))
    for entry in ordered:
        flags = min(len(entry.path), _LONGEST_NAME) | (_EXTENDED if entry.skip_worktree else 0)
        raw = struct.pack(">24xI12x20sH", entry.mode, bytes.fromhex(entry.oid), flags)
        if entry.skip_worktree:
            raw += struct.pack(">H", _SKIP_WORKTREE)
        raw += entry.path
        body += raw + bytes(8 - len(raw) % 8)
    return bytes(body) + hashlib.sha1(body).digest()


def with_modification_time(index: bytes, seconds: int) -> bytes:
    """The same index, for files that were all given this modification time. Raises ValueError for other versions."""
    changed = bytearray(index[:-_CHECKSUM_BYTES])
    time = struct.pack(">II", seconds, 0)
    for start, _, _ in _spans(index):
        changed[start + 8 : start + 16] = time
    return bytes(changed) + hashlib.sha1(changed).digest()


def without_stat_data(index: bytes) -> bytes:
    """What the index says about paths: equal for equal content, whenever and wherever the files were written.

    An index in another form (a split one, version 4, damaged) is given back as it is.
    """
    try:
        spans = list(_spans(index))
        end = spans[-1][2] if spans else _HEADER.size
        if not _has_only_caches(memoryview(index)[end:-_CHECKSUM_BYTES]):
            return index
    except (ValueError, struct.error):
        return index
    return b"".join(index[start + 24 : start + 28] + index[start + 40 : name_end + 1] for start, name_end, _ in spans)


def _spans(index: bytes) -> Iterator[tuple[int, int, int]]:
    """Of every entry: where it begins, where its name ends, where the next one begins. ValueError, struct.error."""
    signature, version, count = _HEADER.unpack_from(index)
    if signature != b"DIRC" or version not in (2, 3):
        raise ValueError(f"not an index of version 2 or 3: {signature!r} {version}")
    start = _HEADER.size
    for _ in range(count):
        (flags,) = struct.unpack_from(">H", index, start + _FLAGS_AT)
        name_at = start + _NAME_AT + (2 if flags & _EXTENDED else 0)
        name_end = index.index(b"\0", name_at)
        following = name_end + 8 - (name_end - start) % 8
        yield start, name_end, following
        start = following


def _has_only_caches(extensions: memoryview) -> bool:
    """Whether git may ignore all that follows the entries: by its rule, names that begin with a capital letter."""
    at = 0
    while at < len(extensions):
        name, size = struct.unpack_from(">4sI", extensions, at)
        if not name[:1].isupper():
            return False
        at += 8 + size
    return True
