"""What a run leaves in the store, and how runs are found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.folder import FolderStore
from flows.batches.changesets import ChangesetSpec, Commit
from flows.batches.errors import PermanentError
from flows.batches.records import RecordError, now
from flows.batches.results import Failure, RunManifest, StepReference, StepResult, WorkspaceResult
from flows.batches.spec import Author
from flows.ledger import LATEST, Ledger, RunUnknown, encoded, find_run

MANIFEST = RunManifest(run_id="change-1", name="change", spec_digest="0" * 64, started_at=now(), state="running")
ENDED = MANIFEST.model_copy(update={"ended_at": now(), "state": "completed"})


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def workspace(title: str, *steps: StepReference) -> WorkspaceResult:
    return WorkspaceResult(
        title=title, repository=title, branch="main", commit="1" * 40, state="completed", steps=tuple(steps)
    )


def changeset(number: int, diff: bytes = b"diff --git a a\n") -> ChangesetSpec:
    return ChangesetSpec(
        repository="acme/a",
        repository_id="acme/a",
        base_rev="1" * 40,
        base_ref="refs/heads/main",
        head_ref=f"refs/heads/b{number}",
        title="T",
        body="",
        commit=Commit("M", diff, Author(name="Ada", email="ada@acme.example")),
    )


def begun(store: FolderStore, run_id: str) -> Ledger:
    ledger = Ledger(store, run_id)
    ledger.begin(MANIFEST.model_copy(update={"run_id": run_id}), "name: change\n")
    return ledger


def test_a_run_that_has_begun_can_be_read(store: FolderStore) -> None:
    ledger = begun(store, "change-1")

    assert ledger.manifest() == MANIFEST
    assert store.get("runs/change-1/spec.yaml") == b"name: change\n"


def test_a_spec_that_is_not_utf_8_is_kept_byte_by_byte(store: FolderStore) -> None:
    Ledger(store, "change-1").begin(MANIFEST, b"name: \xff\n".decode("utf-8", "surrogateescape"))

    assert store.get("runs/change-1/spec.yaml") == b"name: \xff\n"


def test_a_running_run_has_its_ended_workspaces_in_the_order_of_their_numbers(store: FolderStore) -> None:
    ledger = begun(store, "change-1")
    for number in (10, 2, 1):
        ledger.keep_workspace(number, workspace(f"acme/{number}"))

    assert [result.title for result in ledger.manifest().workspaces] == ["acme/1", "acme/2", "acme/10"]


def test_an_ended_run_is_what_its_manifest_says(store: FolderStore) -> None:
    ledger = begun(store, "change-1")
    ledger.keep_workspace(1, workspace("acme/1"))

    ledger.keep_manifest(ENDED)

    assert ledger.manifest() == ENDED


def test_steps_are_read_wherever_they_were_kept(store: FolderStore) -> None:
    """A step from the cache lies outside of the run."""
    ledger = begun(store, "change-1")
    time = now()
    failed = StepResult(
        index=1, state="failed", started_at=time, ended_at=time, failure=Failure(reason="step_failed", message="x")
    )
    cached = StepResult(index=0, state="completed", started_at=time, ended_at=time, cache_key="ab")
    store.put("steps/ab/ab.json", cached.encode())
    (key,) = ledger.keep_steps(3, [failed]).values()

    read = ledger.steps(
        workspace(
            "acme/a",
            StepReference(index=0, how="cached", key="steps/ab/ab.json"),
            StepReference(index=1, how="failed", key=key),
        )
    )

    assert key == "runs/change-1/steps/3-2.json"
    assert [(reference.how, result) for reference, result in read] == [("cached", cached), ("failed", failed)]


def test_changesets_are_numbered_and_have_their_patch(store: FolderStore) -> None:
    ledger = begun(store, "change-1")
    imported = ChangesetSpec(repository="acme/a", repository_id="acme/a", external_id="7")

    ledger.keep_changesets([changeset(1, b"diff --git \xff \xff\n"), imported])

    assert json.loads(store.get("runs/change-1/changesets/1.json"))["headRef"] == "refs/heads/b1"
    assert store.get("runs/change-1/changesets/1.patch") == b"diff --git \xff \xff\n"
    assert json.loads(store.get("runs/change-1/changesets/2.json")) == {"baseRepository": "acme/a", "externalID": "7"}
    assert not store.exists("runs/change-1/changesets/2.patch")


def test_what_an_earlier_attempt_had_more_is_not_the_runs(store: FolderStore) -> None:
    """A retried flow run keeps its id; changesets that it no longer makes stay in the store."""
    ledger = begun(store, "change-1")
    ledger.keep_changesets([changeset(number) for number in range(1, 12)])
    ledger.keep_changesets([changeset(number) for number in range(1, 11)])

    keys = ledger.changeset_keys(ENDED.model_copy(update={"changeset_specs": 10}))

    names = [key.rsplit("/", 1)[1] for key in keys]
    assert names == [f"{number}.{kind}" for number in range(1, 11) for kind in ("json", "patch")]


def test_a_changeset_spec_reads_well_and_is_json_whatever_its_texts() -> None:
    text = b"".join(encoded(ChangesetSpec(repository="a", repository_id="a", title="Über \udcff", external_id="7")))

    assert '"title": "Über \ufffd"' in text.decode()
    assert text.endswith(b"}\n")


@pytest.mark.parametrize("size", [1, 3 << 20, (6 << 20) + 1, (9 << 20) + 2])
@pytest.mark.parametrize("binary", [True, False])
def test_a_changeset_spec_of_any_size_is_what_its_encoding_says(store: FolderStore, size: int, *, binary: bool) -> None:
    spec = changeset(1, (b"diff \n\xc3\xa4+-" * size)[:size])
    assert spec.commit is not None
    spec = replace(spec, commit=replace(spec.commit, binary=binary))
    ledger = begun(store, "change-1")

    ledger.keep_changesets([spec])

    assert json.loads(store.get("runs/change-1/changesets/1.json")) == spec.encode()


class TestFinding:
    def test_the_run_that_began_last(self, store: FolderStore) -> None:
        for run_id in ("change-2", "change-1"):
            begun(store, run_id)

        assert find_run(store, LATEST).run_id == "change-1"

    def test_by_the_id_or_its_beginning(self, store: FolderStore) -> None:
        for run_id in ("change-1a", "change-1abc", "other-2"):
            begun(store, run_id)

        assert find_run(store, "change-1a").run_id == "change-1a"
        assert find_run(store, "change-1ab").run_id == "change-1abc"
        assert find_run(store, "o").run_id == "other-2"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("chan", "'chan' is the beginning of 2 runs: change-1, change-2; write more of it"),
            ("no", "there is no run 'no' in this store"),
            ("", "there is no run ''"),
            ("..", "there is no run '..'"),
            ("../runs/change-1", "there is no run"),
            ("change-1/manifest", "there is no run"),
            ("/", "there is no run '/'"),
            ("a\\b", "there is no run"),
        ],
    )
    def test_nothing_is_told(self, store: FolderStore, name: str, message: str) -> None:
        for run_id in ("change-1", "change-2"):
            begun(store, run_id)

        with pytest.raises(RunUnknown) as caught:
            find_run(store, name)

        assert message in str(caught.value)
        assert isinstance(caught.value, PermanentError)

    def test_in_an_empty_store(self, store: FolderStore) -> None:
        with pytest.raises(RunUnknown, match="no run in this store yet"):
            find_run(store, LATEST)
        with pytest.raises(RunUnknown, match="there is no run 'x'"):
            find_run(store, "x")


@pytest.mark.parametrize("remains", [b"", b"{}", b"[1]"])
def test_a_damaged_manifest_is_told(store: FolderStore, remains: bytes) -> None:
    ledger = begun(store, "change-1")
    store.put("runs/change-1/manifest.json", remains)

    with pytest.raises(RecordError, match="the run manifest"):
        ledger.manifest()
