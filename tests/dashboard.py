"""Operated from the dashboard: `batchwright up` once for the whole session, and what people then do there.

The dashboard is a client of the same API that this uses, with the same bodies.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blocks.folder import FolderStore
from blocks.store import ArtifactStore
from flows import view_process, worker
from flows.batches.results import RunManifest
from flows.ledger import Ledger
from flows.server import LocalServer
from tests.harness import Api, Done, Installation

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
RUN_SECONDS = 240


@dataclass(frozen=True)
class Dashboard:
    """What people do in the dashboard, and what they see there."""

    api: str
    store: ArtifactStore

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return Api(self.api).ask(method, path, body)

    def deployment(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "deployments/name/batch-change/batch-change")
        return found

    def submit(self, parameters: Mapping[str, object]) -> str:
        """Submit the form; returns the flow run's id."""
        path = f"deployments/{self.deployment()['id']}/create_flow_run"
        return str(self.ask("POST", path, {"parameters": parameters})["id"])

    def retry(self, run: str) -> None:
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        self.ask("POST", f"flow_runs/{run}/set_state", {"state": state, "force": True})

    def wait(self, run: str, states: set[str] = ENDED) -> dict[str, Any]:
        """The flow run, once it is in one of these states."""
        deadline = time.monotonic() + RUN_SECONDS
        while (found := self.ask("GET", f"flow_runs/{run}"))["state"]["type"] not in states:
            assert time.monotonic() < deadline, found["state"]
            time.sleep(0.3)
        return dict(found)

    def tasks(self, run: str, attempt: int) -> dict[str, str]:
        """The task runs of an attempt at a flow run: name -> state."""
        found = Api(self.api).recorded(run)
        return {task["name"]: task["state"]["name"] for task in found if task["flow_run_run_count"] == attempt}

    def artifacts(self, run: str) -> dict[str, Any]:
        """The latest artifacts of a flow run, by key."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "CREATED_DESC"}
        return {found["key"]: found for found in reversed(self.ask("POST", "artifacts/filter", wanted))}

    def block(self, reference: Mapping[str, Any]) -> dict[str, Any]:
        """The block that a parameter points to."""
        return dict(self.ask("GET", f"block_documents/{reference['$ref']['block_document_id']}"))

    def manifest(self, run: str) -> RunManifest:
        (found,) = {key.split("/")[1] for key in self.store.list_keys("runs/") if run.split("-")[-1] in key}
        return Ledger(self.store, found).manifest()


def containers_of(run: str) -> list[str]:
    listed = subprocess.run(
        ("docker", "ps", "--format", "{{.Labels}}", "--filter", "label=batchwright.run"),
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in listed.stdout.splitlines() if run.split("-")[-1] in line]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the dashboard's runs keep what they made, and no other test does."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def up(installation: Installation, prefect_server: LocalServer, results: Path) -> Iterator[tuple[Done, Dashboard]]:
    """`batchwright up`, and the dashboard after it. Anew for each module: some kill what it started."""
    try:
        done = installation.command("up", "--store", results)
        yield done, Dashboard(prefect_server.api_url, FolderStore(results))
    finally:
        worker.stop(installation.home)
        view_process.stop(installation.home)


@pytest.fixture(scope="module")
def dashboard(up: tuple[Done, Dashboard]) -> Dashboard:
    return up[1]
