"""The flows that publish, on a real Prefect server: what the dashboard shows, and a batch change that proposes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks.artifacts import LocalArtifacts
from blocks.docker_runtime import DockerRuntime
from blocks.gitea_host import Gitea
from blocks.plain_git_host import PlainGit
from blocks.repositories import RepositoryFolder
from flows.batch_change import batch_change
from flows.publish_changesets import publish_changesets, refresh_changesets
from flows.publishing.options import PublishOptions
from flows.server import LocalServer
from infra.demo_repositories import make_repositories
from tests.code_hosts.running import TOKEN, RunningHost, running
from tests.gitrepos import run_git
from tests.harness import SPECS, Api, eventually
from tests.proposals import BRANCH, Change, Office, repository_on

pytestmark = [pytest.mark.flow]


@pytest.fixture
def api(prefect_server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("BATCHWRIGHT_HOME", str(tmp_path / "state"))
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        yield Api(prefect_server.api_url)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RunningHost]:
    for number in range(3):
        repository_on(tmp_path / "root", f"acme/app{number}")
    with running("gitea", tmp_path / "root") as found:
        yield found


def flow_run_of(state: State[Any]) -> str:
    return str(state.state_details.flow_run_id)


def test_a_run_is_published_and_looked_after_from_the_dashboard(api: Api, host: RunningHost, tmp_path: Path) -> None:
    office = Office(tmp_path, host.root, host.names)
    paths = [f"acme/app{number}" for number in range(3)]
    run = office.run(*(Change(path, run_git(host.repository(path), "rev-parse", "main")) for path in paths))
    block = Gitea(url=host.url, token=SecretStr(TOKEN))
    store = LocalArtifacts(folder=tmp_path / "store")

    planned = publish_changesets(run, [block], store, dry_run=True, return_state=True)
    nothing = host.changes()
    reference = {"$ref": {"block_document_id": str(block.save("published-in-a-test"))}}  # as the dashboard sends it
    parameters = {"run": run, "code_hosts": [reference], "artifacts": store}
    published = publish_changesets(**publish_changesets.validate_parameters(parameters), return_state=True)
    host.control("status", {"repository": paths[0], "number": "1", "state": "success"})
    refreshed = refresh_changesets([block], store, return_state=True)

    assert (planned.message, nothing) == ("would be: changesets: 3 opened", [])
    assert (published.message, len(host.changes(state="open"))) == ("changesets: 3 opened", 3)
    assert refreshed.message == "1 batch changes"
    eventually(lambda: sorted(api.task_runs(flow_run_of(published))), ["changesets 1-3", "changesets that are no more"])
    found = api.artifacts(flow_run_of(refreshed))
    assert '"checks": "passed"' in found["new-mirror-changesets"]["data"]
    assert f"[open]({host.url}/acme/app0/pulls/1)" in found["new-mirror-changesets-links"]["data"]
    assert found["new-mirror-changesets"]["description"] == "3 changesets: 3 open"


@pytest.mark.docker
def test_a_batch_change_proposes_at_its_end(api: Api, tmp_path: Path) -> None:
    make_repositories(tmp_path / "repositories")
    demo = (SPECS / "demo.yaml").read_text()

    state = batch_change(
        demo,
        RepositoryFolder(folder=str(tmp_path / "repositories")),
        DockerRuntime(),
        LocalArtifacts(folder=tmp_path / "store"),
        code_hosts=[PlainGit(url=str(tmp_path / "repositories"))],
        publishing=PublishOptions(undecided="publish"),
        return_state=True,
    )

    assert state.is_completed(), state.message
    assert state.message is not None
    assert "changesets: " in state.message
    assert " pushed" in state.message
    shop = tmp_path / "repositories" / "github.com" / "acme" / "shop"
    assert run_git(shop, "rev-list", "--count", "main..new-mirror") == "1"
    assert BRANCH != "new-mirror"
