"""The tracked changesets of a batch change, in the artifact store: one document each, so that runs rarely meet.

changesets/<batch change>/<identity>.json    TrackedChangeset, written by conditional puts only
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, unquote

from blocks.store import ArtifactMissing, ArtifactStore

from ..batches.errors import PermanentError
from ..batches.tracked import TrackedChangeset, identity, read_tracked_changeset


class NothingTracked(PermanentError):
    """The store has no changesets of this batch change."""

    def __init__(self, batch_change: str, where: str) -> None:
        super().__init__(batch_change, where)
        self.batch_change, self.where = batch_change, where

    def __str__(self) -> str:
        return (
            f"no changeset of a batch change {self.batch_change!r} was ever published from this store ({self.where}); "
            "`batchwright publish RUN` does it"
        )


class Document:
    """One tracked changeset on its way: what it is now, and at which version."""

    def __init__(self, store: ArtifactStore, key: str, content: TrackedChangeset | None, version: str | None) -> None:
        self._store, self.key, self.content, self._version = store, key, content, version

    def write(self, content: TrackedChangeset) -> None:
        """Write, unless nothing changed. Raises ArtifactConflict if somebody else wrote since we read."""
        if content != self.content:
            self._version = self._store.replace(self.key, content.encode(), expected=self._version)
            self.content = content


class Tracking:
    """All tracked changesets of one batch change."""

    def __init__(self, store: ArtifactStore, batch_change: str) -> None:
        self.store, self.batch_change = store, batch_change
        self.folder = f"changesets/{quote(batch_change, safe='').replace('.', '%2E')}/"

    def key(self, repository: str, branch: str) -> str:
        """The artifact key of a changeset's document."""
        return f"{self.folder}{identity(self.batch_change, repository, branch)}.json"

    @classmethod
    def of_all(cls, store: ArtifactStore) -> list[Tracking]:
        """The tracked changesets of every batch change that the store has some of, by name."""
        folders = {key.split("/")[1] for key in store.list_keys("changesets/")}
        return [cls(store, unquote(folder)) for folder in sorted(folders)]

    def open(self, key: str) -> Document:
        """A document as it is now; one without content if there is none. Raises RecordError, the store's errors."""
        try:
            found = self.store.get_versioned(key)
        except ArtifactMissing:
            return Document(self.store, key, None, None)
        return Document(self.store, key, read_tracked_changeset(found.content), found.version)

    def documents(self) -> list[str]:
        """The keys of all documents, in a fixed order."""
        return sorted(self.store.list_keys(self.folder))

    def changesets(self) -> Iterator[tuple[str, TrackedChangeset]]:
        """Every tracked changeset with its key, one after the other."""
        for key in self.documents():
            if (content := self.open(key).content) is not None:
                yield key, content
