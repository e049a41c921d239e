"""Where artifacts are kept: the interface, its errors, and which keys are good. No Prefect, no boto3.

``FolderStore`` and ``BucketStore`` implement it; the blocks ``LocalArtifacts`` and ``S3Artifacts`` are these two with
their settings. ``Blobs`` puts content addressing on top.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# S3 allows 1024 bytes; the rest is room for a prefix. Folders allow 255 bytes a name.
_MAX_KEY_BYTES = 800
_MAX_NAME_BYTES = 255


class StoreTrouble(Exception):
    """The store could not do what was asked. ``temporary`` says whether another try may work."""

    temporary = False

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where, self.what = where, what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class StoreUnavailable(StoreTrouble):
    """The store does not answer or failed by itself, and went on doing so through our retries."""

    temporary = True


class StoreRefused(StoreTrouble):
    """The store will not do it: a wrong key or secret, a missing bucket, a read-only folder."""


class StoreFull(StoreTrouble):
    """There is no room left."""


class ArtifactMissing(StoreTrouble):
    """There is no artifact of this key."""

    def __init__(self, key: str, where: str) -> None:
        super().__init__(key, where)
        self.key, self.where, self.what = key, where, f"there is no artifact {key!r}"


class ArtifactCorrupt(StoreTrouble):
    """The content is not what was stored."""

    def __init__(self, key: str, where: str) -> None:
        super().__init__(key, where)
        self.key, self.where = key, where
        self.what = f"the content of {key!r} does not match its checksum; remove the artifact to have it made anew"


class ArtifactConflict(StoreTrouble):
    """Another writer was first: the artifact is not at the expected version."""

    def __init__(self, key: str, where: str) -> None:
        super().__init__(key, where)
        self.key, self.where, self.what = key, where, f"{key!r} was changed by another writer; read it again"


class KeyRefused(StoreTrouble, ValueError):
    """The key cannot be kept by every store."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(key, why)
        self.key, self.where, self.what = key, f"artifact key {key!r}", why


@dataclass(frozen=True)
class Versioned:
    """A document and the tag of its version, to be handed back to ``replace``; only its store understands it."""

    content: bytes
    version: str


class Sink(Protocol):
    """Where content is written to in pieces: a file open for writing bytes."""

    def write(self, content: bytes, /) -> object:
        """Write all of ``content``."""
        ...


class ArtifactStore(Protocol):
    """Bytes by key. Safe to use from many threads, processes and machines at once.

    An artifact is there whole or not at all. Every verb raises ``StoreUnavailable`` (temporary, after some retries),
    ``StoreRefused``, ``StoreFull`` or, for a bad key, ``KeyRefused``. A key may not also be the folder of another one.
    """

    @property
    def location(self) -> str:
        """Where the store is, in words for people: logs, errors, reports. Without secrets."""
        ...

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write an artifact over what is there. ``if_absent``: only if there is none, and False if there was."""
        ...

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> bool:
        """Like ``put`` with the content of a file, which may be larger than memory."""
        ...

    def get(self, key: str) -> bytes:
        """The content of an artifact. Raises ``ArtifactMissing``, ``ArtifactCorrupt``."""
        ...

    def get_versioned(self, key: str) -> Versioned:
        """Like ``get``, with the version that ``replace`` asks for."""
        ...

    def replace(self, key: str, content: bytes, *, expected: str | None) -> str:
        """Write if the artifact is still at the version ``expected`` (None: if there is none). Returns the new version.

        Raises ``ArtifactConflict``, with nothing written, if somebody else was first.
        """
        ...

    def copy_to(self, key: str, target: Sink) -> None:
        """Write the content to ``target`` in pieces. Raises like ``get``, and then ``target`` may have got a part."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an artifact of this key."""
        ...

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with ``prefix`` (a string, not a folder), in no promised order.

        Not called ``keys``: Prefect takes what has that for a mapping when it is passed as a parameter.
        """
        ...

    def check(self) -> None:
        """Raise, with one clear message, unless artifacts can be written and read here. To be called before a run."""
        ...


def checked_key(key: str) -> str:
    """Return ``key`` if every store can keep it, else raise ``KeyRefused``.

    A key is a relative path with forward slashes. Its first name must not begin with a dot: those are the stores' own.
    """
    names = key.split("/")
    if not all(names):
        raise KeyRefused(key, "a key has no empty names: no '/' at its ends, no '//'")
    if any(name in (".", "..") for name in names):
        raise KeyRefused(key, "'.' and '..' cannot be names in a key")
    if key.startswith("."):
        raise KeyRefused(key, "a key cannot begin with a dot")
    if "\\" in key:
        raise KeyRefused(key, "a key has no backslashes; some stores take them for slashes")
    # The usual key is plain: looking at each character's category would be the dearest part of a look-up.
    if not (key.isascii() and key.isprintable()) and any(unicodedata.category(one) in ("Cc", "Cs") for one in key):
        raise KeyRefused(key, "a key has no control characters and no lone surrogates")
    if len(key.encode()) > _MAX_KEY_BYTES or any(len(name.encode()) > _MAX_NAME_BYTES for name in names):
        raise KeyRefused(key, f"a key has at most {_MAX_KEY_BYTES} bytes, each name in it {_MAX_NAME_BYTES}")
    return key


def checked_prefix(prefix: str) -> str:
    """Return ``prefix`` if good keys can begin with it, else raise ``KeyRefused``."""
    folder, _, _ = prefix.rpartition("/")
    if folder or prefix.startswith("/"):
        checked_key(folder)
    return prefix
