"""The secrets in what a step left: a layer with one is not stored, and a diff with one is not published."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from .batches.masking import Masker, find_in_stream
from .layers import UPPER, deleted_list
from .untrusted import Folder, Found

_LOOSE_OBJECT = re.compile(rb"(?:^|/)objects/[0-9a-f]{2}/[0-9a-f]{38}$")
_PACK = re.compile(rb"(?:^|/)objects/pack/[^/]*$")
_MOST_INFLATED_BYTES = 256 << 20
"""Of one git object, or pack: a few bytes may be gigabytes."""
_PIECE_BYTES = 1 << 16
_OFFSET_DELTA, _REFERENCE_DELTA = 6, 7


def secrets_in_layer(masker: Masker, layer: Path) -> dict[bytes, str]:
    """The paths of a layer that hold a secret, in their name or content, with its name; ignored files among them.

    A packed layer names also what it removes, and what no diff holds: pipes and sockets.
    """
    if not masker:
        return {}
    found = {path: masker.find(path) for path in deleted_list(layer)}
    with Folder(layer / UPPER) as folder:
        found |= {one.path: masker.find(one.path) or _secret_in(masker, one, folder) for one in folder.scan()}
    return {path: name for path, name in found.items() if name}


def _secret_in(masker: Masker, one: Found, folder: Folder) -> str | None:
    if one.kind == "link":
        return masker.find(folder.readlink(one.path))
    if one.kind == "file":
        with open(folder.open(one.path), "rb") as file:
            if found := find_in_stream(masker, file):
                return found
            file.seek(0)
            if _LOOSE_OBJECT.search(one.path):
                return find_in_stream(masker, cast("BinaryIO", _Inflated(file)))
            if _PACK.search(one.path):
                return find_in_stream(masker, cast("BinaryIO", _Pack(file)))
    return None


class _Inflated:
    """The content of a git object, where git keeps it in a file of its own; what is none of these counts as empty."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._inflate, self._left = file, zlib.decompressobj(), _MOST_INFLATED_BYTES

    def read(self, size: int) -> bytes:
        try:
            while not self._inflate.eof and self._left > 0:
                compressed = self._inflate.unconsumed_tail or self._file.read(size)
                if found := self._inflate.decompress(compressed, size):
                    self._left -= len(found)
                    return found
                if not compressed:
                    break
        except zlib.error:
            pass
        return b""


class _Pack:
    """What is in a pack of git, one object after the other; of a delta the bytes that it adds. Else empty.

    Form: git help gitformat-pack.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rest = file, b""
        self._pieces = self._contents()

    def read(self, size: int) -> bytes:
        return next(self._pieces, b"")

    def _contents(self) -> Iterator[bytes]:
        left = _MOST_INFLATED_BYTES
        try:
            header = self._take(12)
            for _ in range(int.from_bytes(header[8:], "big") if header.startswith(b"PACK") else 0):
                self._skip_header()
                for piece in self._inflated():
                    yield piece
                    left -= len(piece)
                    if left < 0:
                        return
        except (zlib.error, EOFError):
            return

    def _skip_header(self) -> None:
        kind = self._take_number() >> 4 & 7
        if kind == _OFFSET_DELTA:
            self._take_number()
        elif kind == _REFERENCE_DELTA:
            self._take(20)

    def _take_number(self) -> int:
        """The first byte of a number whose last byte is the first one below 128."""
        first = byte = self._take(1)[0]
        while byte & 0x80:
            byte = self._take(1)[0]
        return first

    def _take(self, size: int) -> bytes:
        if len(self._rest) < size:
            self._rest += self._file.read(_PIECE_BYTES)
        if len(self._rest) < size:
            raise EOFError
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _inflated(self) -> Iterator[bytes]:
        inflate = zlib.decompressobj()
        while not inflate.eof:
            compressed = inflate.unconsumed_tail or self._rest or self._file.read(_PIECE_BYTES)
            self._rest = b""
            if not compressed:
                raise EOFError
            if piece := inflate.decompress(compressed, _PIECE_BYTES):
                yield piece
        self._rest = inflate.unused_data
