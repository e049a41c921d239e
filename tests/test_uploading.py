"""A run's changeset specs on an instance: uploaded once, whatever happens in between; previewed, applied."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks import instance_client
from blocks.folder import FolderStore
from blocks.instance_api import InstanceApi
from blocks.sourcegraph import SourcegraphInstance
from flows.batches.changesets import ChangesetSpec, Commit
from flows.batches.errors import PermanentError, TemporaryError
from flows.batches.records import now
from flows.batches.results import RunManifest
from flows.batches.spec import Author
from flows.ledger import Ledger
from flows.uploading import read_upload_record, upload, upload_target, uploaded
from tests.harness import SPECS, Api, Installation
from tests.instance.launcher import Account, RunningInstance

SHOP, BILLING = "github.com/acme/shop", "github.com/acme/billing"
DIFF = b"diff --git README.md README.md\n--- README.md\n+++ README.md\n@@ -1 +1 @@\n-hello\n+hello \xff\n"
SPEC = "name: change\ndescription: ${{ not rendered }}\n"


@dataclass(frozen=True)
class World:
    instance: RunningInstance
    ada: Account
    commits: dict[str, str]

    def api(self, **settings: object) -> InstanceApi:
        return SourcegraphInstance(
            url=self.instance.url, token=SecretStr(self.ada.token), **{"patience_seconds": 5, **settings}
        ).api()

    def count(self, table: str) -> int:
        return int(self.instance.sql(f"SELECT COUNT(*) AS n FROM {table}")[0]["n"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with RunningInstance(tmp_path_factory.mktemp("instance")) as instance:
        ada = instance.add_user("ada")
        instance.admin("POST", "organizations/acme", ["ada"])
        commits = {name: instance.add_repository(name, {"README.md": "hello\n"})[1] for name in (SHOP, BILLING)}
        yield World(instance, ada, commits)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    for table in ("changeset_specs", "batch_specs", "batch_changes", "webhook_jobs"):
        running.instance.sql(f"DELETE FROM {table}")
    yield running
    running.instance.end_faults()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_client, "_FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(instance_client, "_LONGEST_WAIT_SECONDS", 0.1)


def ran(folder: Path, world: World, *specs: ChangesetSpec, state: str = "completed") -> tuple[Ledger, RunManifest]:
    """A run with these changeset specs, as the ledger has it."""
    manifest = RunManifest(run_id="change-1", name="change", spec_digest="0" * 64, started_at=now(), state="running")
    ledger = Ledger(FolderStore(folder / "store"), "change-1")
    ledger.begin(manifest, SPEC)
    ledger.keep_changesets(specs)
    ended = manifest.model_copy(update={"ended_at": now(), "state": state, "changeset_specs": len(specs)})
    ledger.keep_manifest(ended)
    return ledger, ended


def changeset(world: World, repository: str, branch: str = "b") -> ChangesetSpec:
    return ChangesetSpec(
        repository=repository,
        repository_id=repository,
        base_rev=world.commits.get(repository, "0" * 40),
        base_ref="refs/heads/main",
        head_ref=f"refs/heads/{branch}",
        title="T",
        commit=Commit("M", DIFF, Author(name="Ada", email="ada@acme.example")),
        published="draft",
    )


def imported(repository: str) -> ChangesetSpec:
    return ChangesetSpec(repository=repository, repository_id=repository, external_id="12")


def test_a_preview_changes_nothing_and_apply_makes_the_batch_change(world: World, tmp_path: Path) -> None:
    ledger, manifest = ran(tmp_path, world, changeset(world, SHOP), changeset(world, BILLING), imported(SHOP))

    preview = upload(ledger, manifest, world.api())
    before = world.count("batch_changes")
    applied = upload(ledger, manifest, world.api(), apply=True)

    assert preview.preview_url.startswith(f"{world.instance.url}/users/ada/batch-changes/apply/")
    assert (before, world.count("batch_changes")) == (0, 1)
    assert applied.batch_change_url == f"{world.instance.url}/users/ada/batch-changes/change"
    assert (world.count("changeset_specs"), world.count("batch_specs")) == (3, 1)
    (kept,) = world.instance.sql("SELECT raw FROM batch_specs")
    assert kept["raw"] == SPEC


def test_the_instance_gets_its_own_ids_and_the_diff_byte_by_byte(world: World, tmp_path: Path) -> None:
    upload(*ran(tmp_path, world, changeset(world, SHOP)), world.api())

    (row,) = world.instance.sql("SELECT spec FROM changeset_specs")
    spec = json.loads(row["spec"])
    repository = world.api().repository(SHOP)
    assert repository is not None
    assert {spec["baseRepository"], spec["headRepository"]} == {repository.id}
    assert spec["body"] == ""  # the schema wants it
    assert spec["published"] == "draft"
    assert spec["commits"][0]["version"] == 2


def test_a_batch_change_is_read_back_with_its_current_spec(world: World, tmp_path: Path) -> None:
    """Also from an instance that does not know one of the fields that we ask for."""
    upload(*ran(tmp_path, world, changeset(world, SHOP)), world.api(), apply=True)
    (row,) = world.instance.sql("SELECT id FROM batch_changes")
    id = base64.b64encode(f"BatchChange:{row['id']}".encode()).decode()

    found = world.api().batch_change(id)
    refusal = json.dumps({"data": None, "errors": [{"message": 'Cannot query field "state" on type "BatchChange".'}]})
    headers = {"Content-Type": "application/json"}
    world.instance.fault("status", "graphql", times=1, status=200, headers=headers, body=refusal)
    older = world.api().batch_change(id)

    assert found is not None
    assert older is not None
    assert (found.spec, found.state) == (SPEC, "OPEN")
    assert (older.spec, older.spec_id, older.state) == (SPEC, found.spec_id, "")
    assert world.api().batch_change(base64.b64encode(b"BatchChange:99").decode()) is None


def test_what_is_uploaded_is_not_uploaded_again(world: World, tmp_path: Path) -> None:
    """Another attempt goes on where the first one ended: here, in the middle."""
    ledger, manifest = ran(tmp_path, world, *(changeset(world, SHOP, f"b{n}") for n in range(40)))
    world.instance.fault("status", "graphql", every=38, status=400)

    with pytest.raises(PermanentError):
        upload(ledger, manifest, world.api())
    world.instance.end_faults()
    noted = uploaded(ledger)
    assert noted is not None
    upload(ledger, manifest, world.api())
    upload(ledger, manifest, world.api(), apply=True)
    upload(ledger, manifest, world.api(), apply=True)

    assert len(noted.changeset_specs) == 32
    assert 40 <= world.count("changeset_specs") < 48
    assert (world.count("batch_specs"), world.count("webhook_jobs")) == (1, 1)


def test_large_diffs_are_not_all_in_memory_at_once(world: World, tmp_path: Path) -> None:
    """Neither for an upload nor for another attempt, which looks through all that is there."""
    diff = DIFF + b"@@ -3,0 +3 @@\n+" + b"x" * 128 * 1024 + b"\n"
    large = Commit("M", diff, Author(name="Ada", email="ada@acme.example"))
    ledger, manifest = ran(
        tmp_path, world, *(replace(changeset(world, SHOP, f"b{n}"), commit=large) for n in range(128))
    )

    tracemalloc.start()
    try:
        upload(ledger, manifest, world.api())
        upload(ledger, manifest, world.api())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert world.count("changeset_specs") == 128
    assert peak < 128 * len(diff)


def test_trouble_on_the_way_is_lived_through(world: World, tmp_path: Path) -> None:
    """Every third request fails, in each of the ways; what the instance got twice changes nothing."""
    for kind in ("status", "lost", "cut", "cut-after"):
        world.instance.fault(kind, "graphql", every=3, times=2, status=502)

    record = upload(*ran(tmp_path, world, changeset(world, SHOP), changeset(world, BILLING)), world.api(), apply=True)

    assert record.batch_change_url
    assert (world.count("batch_changes"), world.count("webhook_jobs")) == (1, 1)


def test_what_the_instance_has_forgotten_is_uploaded_again(world: World, tmp_path: Path) -> None:
    """Changeset specs that nothing refers to are removed after two days."""
    ledger, manifest = ran(tmp_path, world, changeset(world, SHOP))
    first = upload(ledger, manifest, world.api())
    world.instance.sql("DELETE FROM changeset_specs")
    world.instance.sql("DELETE FROM batch_specs")

    second = upload(ledger, manifest, world.api(), apply=True)

    assert second.batch_spec != first.batch_spec
    assert second.batch_change_url


def test_another_namespace_is_another_upload(world: World, tmp_path: Path) -> None:
    ledger, manifest = ran(tmp_path, world, changeset(world, SHOP))

    upload(ledger, manifest, world.api())
    record = upload(ledger, manifest, world.api(), namespace="acme")

    assert record.preview_url.startswith(f"{world.instance.url}/organizations/acme/")


def test_an_unknown_repository_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="has no repository github"):
        upload(*ran(tmp_path, world, changeset(world, "github.com/acme/none")), world.api())


def test_a_diff_that_the_instance_refuses_is_told(world: World, tmp_path: Path) -> None:
    broken = replace(changeset(world, SHOP), commit=Commit("M", b"nonsense\n", Author(name="Ada", email="a@b.example")))

    with pytest.raises(PermanentError, match="failed to parse the diff"):
        upload(*ran(tmp_path, world, broken), world.api())


def test_an_instance_that_is_away_is_a_temporary_error(world: World, tmp_path: Path) -> None:
    world.instance.fault("status", "graphql", status=503)

    with pytest.raises(TemporaryError):
        upload(*ran(tmp_path, world, changeset(world, SHOP)), world.api(patience_seconds=0.05))


@pytest.mark.parametrize("state", ["failed", "cancelled", "running"])
def test_only_a_run_that_completed_is_uploaded(world: World, tmp_path: Path, state: str) -> None:
    with pytest.raises(PermanentError, match=state):
        upload(*ran(tmp_path, world, changeset(world, SHOP), state=state), world.api())


def test_where_to_upload_is_asked_for_before_anything_runs() -> None:
    here = SourcegraphInstance(url="https://here.example")
    there = SourcegraphInstance(url="https://there.example")

    assert upload_target(here, None, "no") is None
    assert upload_target(here, None, "apply") is here
    assert upload_target(here, there, "preview") is there
    with pytest.raises(PermanentError, match="choose one"):
        upload_target(object(), None, "preview")


def test_records_of_earlier_versions_are_readable() -> None:
    stored = (
        b'{"schema_version": 1, "instance": "https://i.example", "namespace": "VXNlcjox", "begun_at": '
        b'"2026-01-02T03:04:05Z", "changeset_specs": {"aa": "bb"}, "batch_spec": "cc", "batch_spec_digest": "dd", '
        b'"preview_url": "https://i.example/p", "batch_change_url": ""}'
    )

    assert read_upload_record(stored).url == "https://i.example/p"


@pytest.mark.docker
@pytest.mark.flow
def test_a_batch_change_from_an_instance_to_the_same_instance(
    installation: Installation, prefect_server: object, world: World, tmp_path: Path
) -> None:
    """The whole way on the command line: the instance's search, git over the instance, containers, upload, apply."""
    executors = "the-shared-token-of-executors"
    world.instance.set("executors.accessToken", executors)
    secrets = {"SRC_ACCESS_TOKEN": world.ada.token, "EXECUTOR_FRONTEND_PASSWORD": executors}
    text = (SPECS / "demo.yaml").read_text().replace("mirror.acme.example", "hello")
    (tmp_path / "spec.yaml").write_text(text)
    asked = ["run", tmp_path / "spec.yaml", "--instance", world.instance.url]

    preview = installation.command(*asked, "--upload", "preview", environment=secrets)
    applied = installation.command("upload", "last", "--instance", world.instance.url, "--apply", environment=secrets)

    assert preview.code == 0, preview.stderr
    assert f"preview    {world.instance.url}/users/ada/batch-changes/apply/" in preview.stdout.decode()
    assert applied.code == 0, applied.stderr
    assert f"applied    {world.instance.url}/users/ada/batch-changes/new-mirror" in applied.stdout.decode()
    assert (world.count("changeset_specs"), world.count("batch_specs"), world.count("batch_changes")) == (2, 1, 1)
    (run,) = {line.split("/")[-1] for line in preview.stdout.decode().splitlines() if line.startswith("dashboard")}
    api = Api(prefect_server.api_url)  # type: ignore[attr-defined]
    artifacts = api.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    (link,) = (each["data"] for each in artifacts if each["key"] == "new-mirror-instance")
    assert f"({world.instance.url}/users/ada/batch-changes/apply/" in link
    assert ("Uploaded", f"{world.instance.url}/users/ada") in {
        (state, message.partition("/batch-changes")[0]) for state, message in api.task_runs(run).values()
    }
    parameters = json.dumps(api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}}))
    for secret in secrets.values():
        assert secret not in parameters
        assert secret not in preview.stderr
