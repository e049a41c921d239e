"""Artifact stores as Prefect blocks: what every such block can do, and the one that keeps artifacts in a folder."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from prefect.filesystems import WritableFileSystem
from pydantic import Field, HttpUrl, field_validator

from blocks.folder import FolderStore
from blocks.store import ArtifactStore, Sink, Versioned

_RESULTS = "prefect"


class StoreBlock(WritableFileSystem, ABC):
    """An ``ArtifactStore`` whose settings Prefect keeps; also Prefect's result storage, below ``prefect/``.

    The block is nothing but its settings: Prefect copies, compares and pickles it.
    """

    @abstractmethod
    def store(self) -> ArtifactStore:
        """The store that these settings describe. Cheap; asks nobody."""

    @property
    def location(self) -> str:
        """Where the store is, in words for people."""
        return self.store().location

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write an artifact; with ``if_absent`` only if there is none, and False if there was."""
        return self.store().put(key, content, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> bool:
        """Like ``put`` with the content of a file, which may be larger than memory."""
        return self.store().put_file(key, path, if_absent=if_absent)

    def get(self, key: str) -> bytes:
        """The content of an artifact."""
        return self.store().get(key)

    def get_versioned(self, key: str) -> Versioned:
        """The content of an artifact, with the version that ``replace`` asks for."""
        return self.store().get_versioned(key)

    def replace(self, key: str, content: bytes, *, expected: str | None) -> str:
        """Write an artifact if it is still at the version ``expected``; returns the new version."""
        return self.store().replace(key, content, expected=expected)

    def copy_to(self, key: str, target: Sink) -> None:
        """Write the content of an artifact to ``target`` in pieces."""
        self.store().copy_to(key, target)

    def exists(self, key: str) -> bool:
        """Whether there is an artifact of this key."""
        return self.store().exists(key)

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with ``prefix``."""
        return self.store().list_keys(prefix)

    def check(self) -> None:
        """Raise, with one clear message, unless artifacts can be written and read here."""
        self.store().check()

    # Prefect's engine calls the plain verbs with `_sync=True` from synchronous flows and looks for `a...` twins in
    # asynchronous ones; the `async def` of the base class does not work (prefect._internal.compatibility.blocks).
    def read_path(self, path: str, *, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Read one of Prefect's results."""
        return self.get(f"{_RESULTS}/{path}")

    def write_path(self, path: str, content: bytes, *, _sync: bool = True) -> None:  # type: ignore[override]
        """Write one of Prefect's results."""
        self.put(f"{_RESULTS}/{path}", content)

    async def aread_path(self, path: str) -> bytes:
        """Read one of Prefect's results, from an asynchronous flow."""
        return await asyncio.to_thread(self.read_path, path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """Write one of Prefect's results, from an asynchronous flow."""
        await asyncio.to_thread(self.write_path, path, content)


class LocalArtifacts(StoreBlock):
    """
    Keep artifacts in a folder of this machine, or on a file system that all workers share.

    Example:
        Load a stored block and use it:
        ```python
        from blocks.artifacts import LocalArtifacts

        artifacts = LocalArtifacts.load("BLOCK_NAME")
        artifacts.put("notes/hello.txt", b"hello")
        ```
    """

    _block_type_name = "Local Artifacts"
    _block_type_slug = "local-artifacts"
    _description = "Keep the artifacts of batch changes in a folder."
    _documentation_url = HttpUrl("https://docs.prefect.io/v3/advanced/results")

    folder: Path = Field(
        description="The folder that holds the artifacts, absolute or beginning with ~. It is made when first used."
    )

    @field_validator("folder")
    @classmethod
    def _is_the_same_everywhere(cls, folder: Path) -> Path:
        if not folder.expanduser().is_absolute():
            raise ValueError(f"{str(folder)!r} depends on where a worker was started; give an absolute folder")
        return folder

    def store(self) -> ArtifactStore:
        """The folder as a store."""
        return FolderStore(self.folder.expanduser())
