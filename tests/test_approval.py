"""What people approve of, without the people: they are in tests/test_browser.py."""

from __future__ import annotations

from pathlib import Path

from blocks.folder import FolderStore
from flows.approval import digest_of
from flows.batches.changesets import ChangesetSpec, Commit
from flows.batches.records import now
from flows.batches.results import RunManifest
from flows.batches.spec import Author
from flows.ledger import Ledger


def kept(folder: Path, *titles: str, diff: bytes = b"diff") -> tuple[Ledger, RunManifest]:
    """A run that proposes changesets with these titles."""
    ledger = Ledger(FolderStore(folder), "run-1")
    ledger.keep_changesets(
        [
            ChangesetSpec(
                repository="r",
                repository_id="r",
                head_ref=f"refs/heads/{number}",
                title=title,
                commit=Commit(message="m", diff=diff, author=Author(name="n", email="e@example.com")),
            )
            for number, title in enumerate(titles)
        ]
    )
    manifest = RunManifest(
        run_id="run-1",
        name="n",
        spec_digest="0" * 64,
        started_at=now(),
        ended_at=now(),
        state="completed",
        changeset_specs=len(titles),
    )
    return ledger, manifest


def test_what_is_approved_is_every_changeset_spec_to_the_letter(tmp_path: Path) -> None:
    first = digest_of(*kept(tmp_path / "1", "A", "B"))

    assert digest_of(*kept(tmp_path / "2", "A", "B")) == first
    assert digest_of(*kept(tmp_path / "3", "A", "C")) != first
    assert digest_of(*kept(tmp_path / "4", "A")) != first
    assert digest_of(*kept(tmp_path / "5", "A", "B", diff=b"diff2")) != first


def test_what_an_earlier_attempt_proposed_more_counts_for_nothing(tmp_path: Path) -> None:
    kept(tmp_path, "A", "B", "C")

    assert digest_of(*kept(tmp_path, "A", "B")) == digest_of(*kept(tmp_path / "fresh", "A", "B"))
