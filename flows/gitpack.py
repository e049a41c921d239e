"""New git objects, written as one pack: two files, where each object would be a file and mostly a folder of its own.

Form: git's Documentation/gitformat-pack.txt, pack version 2, index version 2.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from bisect import bisect_right
from pathlib import Path
from typing import Literal

Kind = Literal["tree", "blob"]

_KINDS = {"tree": 2, "blob": 3}


class NewObjects:
    """Objects for one repository, a few MB of them at a time. Remembers which ones it has written."""

    def __init__(self) -> None:
        self._written: set[bytes] = set()
        self._waiting: dict[bytes, bytes] = {}
        """Id -> the object as a pack holds it."""

    def add(self, kind: Kind, content: bytes) -> str:
        """Note an object for the next ``write``; its id."""
        name = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content).digest()
        if name not in self._written and name not in self._waiting:
            self._waiting[name] = _header(_KINDS[kind], len(content)) + zlib.compress(content, 1)
        return name.hex()

    def write(self, git_dir: Path) -> None:
        """Write what was added since the last time to the repository. Running git processes find it when they ask."""
        if not self._waiting:
            return
        names = sorted(self._waiting)
        offsets, content = [], bytearray(struct.pack(">4sII", b"PACK", 2, len(names)))
        for name in names:
            offsets.append(len(content))
            content += self._waiting[name]
        content += (checksum := hashlib.sha1(content).digest())
        firsts = [name[0] for name in names]
        index = b"".join(
            [
                b"\xfftOc\0\0\0\2",
                struct.pack(">256I", *(bisect_right(firsts, byte) for byte in range(256))),
                *names,
                *(struct.pack(">I", zlib.crc32(self._waiting[name])) for name in names),
                struct.pack(f">{len(names)}I", *offsets),
                checksum,
            ]
        )
        folder = git_dir / "objects" / "pack"
        folder.mkdir(exist_ok=True)
        file = folder / f"pack-{checksum.hex()}.pack"
        file.write_bytes(content)
        file.with_suffix(".idx").write_bytes(index + hashlib.sha1(index).digest())  # last: git looks for it
        self._written.update(names)
        self._waiting.clear()


def _header(kind: int, size: int) -> bytes:
    """Kind and size of an object: four bits of the size, then seven at a time; the highest bit: more follow."""
    byte, size = kind << 4 | size & 0xF, size >> 4
    encoded = bytearray()
    while size:
        encoded.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    encoded.append(byte)
    return bytes(encoded)
