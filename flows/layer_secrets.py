"""The secrets in what a step left: a layer with one is not stored, and a diff with one is not published."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from .batches.masking import Masker, find_in_stream
from .layers import UPPER, deleted_list
from .untrusted import Folder, Found

_LOOSE_OBJECT = re.compile(rb"(?:^|/)objects/[0-9a-f]{2}/[0-9a-f]{38}$")
_MOST_INFLATED_BYTES = 256 << 20
"""Of one git object: a few bytes may be gigabytes."""


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
            content = cast("BinaryIO", _Inflated(file)) if _LOOSE_OBJECT.search(one.path) else file
            return find_in_stream(masker, content)
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
