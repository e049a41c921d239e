"""Content-addressed blobs on any artifact store: named by their SHA-256, written once, verified when read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blocks.store import ArtifactCorrupt, ArtifactStore, Sink

# Below this, a conditional write is cheaper than asking first.
_ASK_FIRST_BYTES = 64 * 1024
_WRITERS = 32


@dataclass(frozen=True)
class Blob:
    """A blob's name: the SHA-256 of its content in lower-case hex, and its size in bytes."""

    digest: str
    size: int

    def __post_init__(self) -> None:
        # Digests come back from stored records, and become a part of a path.
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError(f"{self.digest!r} is not a SHA-256 in lower-case hex")

    @property
    def key(self) -> str:
        """Where the blob lies in a store."""
        return f"blobs/sha256/{self.digest[:2]}/{self.digest}"

    @classmethod
    def of(cls, content: bytes) -> Blob:
        """The name of ``content``."""
        return cls(hashlib.sha256(content).hexdigest(), len(content))

    @classmethod
    def of_file(cls, path: Path) -> Blob:
        """The name of a file's content, read in pieces."""
        with path.open("rb") as file:
            return cls(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


@dataclass(frozen=True)
class Blobs:
    """The blobs of a store. Raises what the store raises; reading raises ``ArtifactCorrupt`` for a changed blob.

    A blob that was found corrupt here is written again by the next ``put`` of the same content, here.
    """

    store: ArtifactStore
    _corrupt: set[Blob] = field(default_factory=set, repr=False, compare=False)
    _writers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_WRITERS, thread_name_prefix="blobs"), repr=False, compare=False
    )

    def put(self, content: bytes) -> Blob:
        """Keep ``content``, if it is not there already."""
        blob = Blob.of(content)
        if self._wanted(blob):
            self.store.put(blob.key, content, if_absent=blob not in self._corrupt)
            self._corrupt.discard(blob)
        return blob

    def put_file(self, path: Path) -> Blob:
        """Keep the content of a file, which may be larger than memory and must not change meanwhile."""
        blob = Blob.of_file(path)
        if self._wanted(blob):
            self.store.put_file(blob.key, path, if_absent=blob not in self._corrupt)
            self._corrupt.discard(blob)
        return blob

    def put_files(self, paths: Sequence[Path]) -> list[Blob]:
        """Keep the contents of several files, side by side: most of it is waiting, for a disk or a server."""
        return list(self._writers.map(self.put_file, paths))

    def get(self, blob: Blob) -> bytes:
        """The content of a blob."""
        with self._reading(blob):
            content = self.store.get(blob.key)
            self._verify(blob, Blob.of(content))
        return content

    def copy_to(self, blob: Blob, target: Sink) -> None:
        """Write a blob to ``target`` in pieces. If it raises, what ``target`` has got must not be used."""
        hashing = _HashingSink(target)
        with self._reading(blob):
            self.store.copy_to(blob.key, hashing)
            self._verify(blob, hashing.blob())

    def exists(self, blob: Blob) -> bool:
        """Whether the blob is there."""
        return self.store.exists(blob.key)

    def _wanted(self, blob: Blob) -> bool:
        return blob in self._corrupt or blob.size <= _ASK_FIRST_BYTES or not self.store.exists(blob.key)

    def _verify(self, blob: Blob, found: Blob) -> None:
        if found != blob:
            raise ArtifactCorrupt(blob.key, self.store.location)

    @contextmanager
    def _reading(self, blob: Blob) -> Iterator[None]:
        try:
            yield
        except ArtifactCorrupt:
            self._corrupt.add(blob)
            raise


class _HashingSink:
    """Passes content on and takes its name meanwhile."""

    def __init__(self, target: Sink) -> None:
        self._target, self._digest, self._size = target, hashlib.sha256(), 0

    def write(self, content: bytes, /) -> None:
        self._target.write(content)
        self._digest.update(content)
        self._size += len(content)

    def blob(self) -> Blob:
        return Blob(self._digest.hexdigest(), self._size)
