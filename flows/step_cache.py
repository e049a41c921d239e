"""Results of steps in the artifact store, by what they depend on. Any worker finds what another one stored."""

from __future__ import annotations

import logging

from blocks.blobs import Blob, Blobs
from blocks.store import ArtifactCorrupt, ArtifactMissing

from .batches.records import Blob as BlobRecord
from .batches.records import RecordError
from .batches.results import StepResult, read_step_result

log = logging.getLogger(__name__)


class StepCache:
    """The completed steps of a store. ``enabled`` False finds nothing, and still keeps what is new."""

    def __init__(self, blobs: Blobs, *, enabled: bool = True) -> None:
        self._blobs, self._enabled = blobs, enabled

    def find(self, key: str) -> StepResult | None:
        """The result of a step with this key, if it and everything that it points to is there."""
        if not self._enabled:
            return None
        try:
            result = read_step_result(self._blobs.store.get(record_key(key)))
        except ArtifactMissing:
            return None
        except (RecordError, ArtifactCorrupt) as error:
            log.warning("the cached result %s is not used: %s", key, error)
            return None
        return result if all(map(self._blobs.exists, _blobs_of(result))) else None

    def keep(self, result: StepResult) -> str:
        """Store a completed step, replacing what may be there. Returns the artifact's key."""
        key = record_key(result.cache_key)
        self._blobs.store.put(key, result.encode())
        return key


def record_key(cache_key: str) -> str:
    """Where the store has the result of this cache key."""
    return f"steps/{cache_key[:2]}/{cache_key}.json"


def stored(blob: BlobRecord) -> Blob:
    """The blob of a record, as the store knows it."""
    return Blob(blob.digest, blob.size_bytes)


def recorded(blob: Blob) -> BlobRecord:
    """A blob of the store, as records know it."""
    return BlobRecord(digest=blob.digest, size_bytes=blob.size)


def _blobs_of(result: StepResult) -> list[Blob]:
    # An empty blob needs no proof; of a small result this saves most of the questions.
    blobs = (result.diff, result.layer, result.stdout, result.stderr)
    return [stored(blob) for blob in blobs if blob is not None and blob.size_bytes]
