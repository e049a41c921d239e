"""Results of steps, found again by what they depend on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from blocks.blobs import Blob, Blobs
from blocks.folder import FolderStore
from blocks.store import ArtifactCorrupt, StoreUnavailable
from flows.batches.records import now
from flows.batches.results import StepResult
from flows.step_cache import StepCache, record_key, recorded, stored

KEY = "ab" * 32


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(FolderStore(tmp_path / "store"))


def result(**fields: object) -> StepResult:
    time = now()
    return StepResult.model_validate(
        {"index": 0, "state": "completed", "started_at": time, "ended_at": time, "cache_key": KEY, **fields}
    )


def test_what_was_kept_is_found(blobs: Blobs) -> None:
    kept = result(diff=recorded(blobs.put(b"diff")), stdout=recorded(blobs.put(b"")))

    key = StepCache(blobs).keep(kept)

    assert key == record_key(KEY) == f"steps/ab/{KEY}.json"
    assert StepCache(blobs).find(KEY) == kept
    assert StepCache(blobs).find("cd" * 32) is None


def test_the_newest_result_counts(blobs: Blobs) -> None:
    cache = StepCache(blobs)
    cache.keep(result(attempts=1))
    cache.keep(result(attempts=2))

    found = cache.find(KEY)

    assert found is not None
    assert found.attempts == 2


def test_a_cache_that_is_off_finds_nothing_and_keeps_what_is_new(blobs: Blobs) -> None:
    cache = StepCache(blobs, enabled=False)

    cache.keep(result())

    assert cache.find(KEY) is None
    assert StepCache(blobs).find(KEY) is not None


@pytest.mark.parametrize("part", ["diff", "layer", "stdout", "stderr"])
def test_a_result_whose_content_is_gone_is_not_found(blobs: Blobs, part: str) -> None:
    """Somebody may have tidied the store up."""
    gone = Blob.of(b"was never kept")
    StepCache(blobs).keep(result(**{part: recorded(gone)}))

    assert StepCache(blobs).find(KEY) is None


def test_an_empty_blob_needs_no_proof(blobs: Blobs) -> None:
    StepCache(blobs).keep(result(diff=recorded(Blob.of(b"")), stdout=recorded(Blob.of(b""))))

    assert StepCache(blobs).find(KEY) is not None


@pytest.mark.parametrize("remains", [b"", b"{", b'{"schema_version": 99}', b'{"schema_version": 1}'])
def test_a_record_that_cannot_be_read_is_made_again(
    blobs: Blobs, remains: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    blobs.store.put(record_key(KEY), remains)

    with caplog.at_level(logging.WARNING):
        assert StepCache(blobs).find(KEY) is None
    StepCache(blobs).keep(result())

    assert f"the cached result {KEY} is not used" in caplog.text
    assert StepCache(blobs).find(KEY) is not None


class Failing(FolderStore):
    """A store that cannot be read."""

    error: Exception

    def get(self, key: str) -> bytes:
        raise self.error


@pytest.fixture
def failing(tmp_path: Path) -> Failing:
    return Failing(tmp_path / "failing")


def test_a_corrupt_record_is_made_again(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "error", ArtifactCorrupt(KEY, "here"), raising=False)

    assert StepCache(Blobs(failing)).find(KEY) is None


def test_a_store_that_does_not_answer_is_no_miss(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running all steps again would be the worst answer to a store that is down for a minute."""
    monkeypatch.setattr(Failing, "error", StoreUnavailable("here", "no answer"), raising=False)

    with pytest.raises(StoreUnavailable):
        StepCache(Blobs(failing)).find(KEY)


def test_blobs_are_named_the_same_in_records_and_stores() -> None:
    blob = Blob.of(b"content")

    assert stored(recorded(blob)) == blob
