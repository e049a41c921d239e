"""The flow on a real Prefect server, with a real engine: what the dashboard shows, what the store gets."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import pytest
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.artifacts import LocalArtifacts
from blocks.docker_runtime import DockerRuntime
from blocks.repositories import RepositoryFolder
from blocks.s3_artifacts import S3Artifacts
from blocks.secrets import StepSecrets
from flows.batch_change import batch_change
from flows.batches.loading import load_spec
from flows.batches.results import RunManifest
from flows.ledger import Ledger
from flows.runs import run_id_of
from flows.server import LocalServer
from flows.shares import Options
from flows.stage_runs import TOLD_AFTER_SECONDS
from infra.demo_repositories import make_repositories
from tests.gitrepos import run_git
from tests.harness import SPECS, Api, Installation, eventually
from tests.s3server import S3Server

pytestmark = [pytest.mark.docker, pytest.mark.flow]

MIXED = """\
name: mixed
on:
  - repositoriesMatchingQuery: repo:acme/(shop|billing|handbook)$
steps:
  - run: echo x > new; [ ! -f go.mod ] || printf go
    container: batchwright/busybox:1
    outputs: {kind: {value: "${{ step.stdout }}"}}
  - run: echo "no go" >&2; sleep 3; exit 3
    container: batchwright/busybox:1
    if: ${{ eq outputs.kind "go" }}
  - run: echo y >> new
    container: batchwright/busybox:1
changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}
"""
MENDED = MIXED.replace("exit 3", "true")
BILLING, HANDBOOK, SHOP = (f"github.com/acme/{name}" for name in ("billing", "handbook", "shop"))


@dataclass(frozen=True)
class Run:
    """A flow run that has ended."""

    state: State[Any]
    ledger: Ledger

    @property
    def id(self) -> str:
        return str(self.state.state_details.flow_run_id)

    @property
    def manifest(self) -> RunManifest:
        return self.ledger.manifest()

    def changesets(self) -> list[tuple[dict[str, Any], bytes]]:
        """The changeset specs with their patches."""
        numbers = range(1, self.manifest.changeset_specs + 1)
        keys = [self.ledger.key(f"changesets/{number}") for number in numbers]
        store = self.ledger.store
        return [(json.loads(store.get(f"{key}.json")), store.get(f"{key}.patch")) for key in keys]


@dataclass(frozen=True)
class Place:
    """Where the flow runs: in this process, against the installation's server."""

    installation: Installation
    api: Api

    def run(self, spec: str, *, artifacts: LocalArtifacts | S3Artifacts | None = None, **parameters: Any) -> Run:
        artifacts = artifacts or LocalArtifacts(folder=self.installation.store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BATCHWRIGHT_HOME", str(self.installation.home))
            state = batch_change(
                spec,
                RepositoryFolder(folder=str(self.installation.repositories)),
                DockerRuntime(),
                artifacts,
                **parameters,
                return_state=True,
            )
        run_id = run_id_of(load_spec(spec).name, str(state.state_details.flow_run_id))
        return Run(state, Ledger(artifacts.store(), run_id))


@pytest.fixture(scope="module")
def place(installation: Installation, prefect_server: LocalServer) -> Iterator[Place]:
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        yield Place(installation, Api(prefect_server.api_url))
        APILogWorker.instance().drain()
        EventsWorker.drain_all()


@pytest.fixture(scope="module")
def mixed(place: Place) -> Run:
    """One workspace fails at its second step, the others skip that step."""
    return place.run(MIXED)


@pytest.fixture(scope="module")
def mended(place: Place, mixed: Run) -> Run:
    """The same with the second step mended."""
    return place.run(MENDED)


class TestWhatTheDashboardShows:
    def test_every_stage_is_a_task_with_a_readable_name_and_state(self, mixed: Run, place: Place) -> None:
        image = "batchwright/busybox:1"
        skipped = 'if: ${{ eq outputs.kind "go" }} → false'
        states = {
            "find workspaces": "Completed",
            "changeset specs": "Completed",
            f"{BILLING} · set-up": "Completed",
            f"{BILLING} · step 1 · {image}": "Completed",
            f"{BILLING} · step 2 · {image}": "Failed",
            f"{BILLING} · diff": "Completed",
        }
        for workspace in (HANDBOOK, SHOP):
            states |= {
                f"{workspace} · set-up": "Completed",
                f"{workspace} · step 1 · {image}": "Completed",
                f"{workspace} · step 2 · {image}": "Skipped",
                f"{workspace} · step 3 · {image}": "Completed",
                f"{workspace} · diff": "Completed",
            }

        eventually(lambda: {name: state for name, (state, _) in place.api.task_runs(mixed.id).items()}, states)

        messages = {name: message for name, (_, message) in place.api.task_runs(mixed.id).items()}
        assert messages["find workspaces"] == "3 workspaces, 0 ignored"
        assert messages[f"{SHOP} · step 2 · {image}"] == skipped
        assert messages[f"{BILLING} · step 2 · {image}"].endswith("Command failed with exit code 3.")
        assert "no go" in messages[f"{BILLING} · step 2 · {image}"]
        assert messages[f"{SHOP} · step 3 · {image}"].startswith("1 files changed so far, ")

    def test_a_stage_is_told_when_it_ends_and_before_only_if_that_takes_a_while(self, mixed: Run, place: Place) -> None:
        """Events are what a task costs the server (flows/stage_runs.py)."""
        told = {"event": {"prefix": ["prefect.task-run."]}, "related": {"id": [f"prefect.flow-run.{mixed.id}"]}}
        slow = f"{BILLING} · step 2 · batchwright/busybox:1"

        def events(*types: str) -> dict[str, dict[str, Any]]:
            found = place.api.post("events/filter", {"filter": told, "limit": 50})["events"]
            named = {each["resource"]["prefect.resource.name"]: each for each in found if _type(each) in types}
            return {name: event for name, event in named.items() if " · " in name}

        eventually(lambda: len(events("COMPLETED", "FAILED")), 14)
        running, ended = events("RUNNING"), events("COMPLETED", "FAILED")
        assert events("PENDING") == {}
        assert slow in running
        assert [name for name in running if _at(ended[name]) - _at(running[name]) < TOLD_AFTER_SECONDS] == []
        eventually(lambda: {run["name"] for run in place.api.recorded(mixed.id) if run["end_time"]} >= set(ended), True)
        runs = {run["name"]: run for run in place.api.recorded(mixed.id)}
        assert [name for name in ended if runs[name]["run_count"] != 1 or not runs[name]["start_time"]] == []
        assert runs[slow]["total_run_time"] > 3
        roles = {tuple(sorted(each["prefect.resource.role"] for each in event["related"])) for event in ended.values()}
        assert roles == {("flow", "flow-run")}

    def test_the_flow_run_is_called_as_the_batch_change_and_says_how_it_ended(self, mixed: Run, place: Place) -> None:
        (flow_run,) = place.api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [mixed.id]}}})

        assert flow_run["name"] == "mixed"
        assert flow_run["state"]["name"] == "Failed"
        assert flow_run["state"]["message"] == mixed.manifest.headline
        assert flow_run["state"]["message"].startswith("2 of 3 workspaces completed; 1 failed; steps: 6 run")

    def test_a_table_has_the_workspaces(self, mixed: Run, place: Place) -> None:
        table = place.api.artifacts(mixed.id)["mixed-workspaces"]

        rows = json.loads(table["data"])
        assert [(row["workspace"], row["state"], row["run"], row["skipped"], row["+"]) for row in rows] == [
            (BILLING, "failed", 2, 0, 1),
            (HANDBOOK, "completed", 2, 1, 2),
            (SHOP, "completed", 2, 1, 2),
        ]
        assert [row["reason"] for row in rows] == ["Command failed with exit code 3.", "", ""]
        assert f"batchwright logs {mixed.ledger.run_id} WORKSPACE STEP" in table["description"]

    def test_the_overview_says_what_to_do_and_leads_to_the_pages(self, mixed: Run, place: Place) -> None:
        artifacts = place.api.artifacts(mixed.id)

        overview = artifacts["mixed-overview"]["data"]
        failed = artifacts["mixed-workspace-github-com-acme-billing"]
        assert "### 1 × `Step 2 failed: Command failed with exit code 3.`" in overview
        assert f"[`{BILLING}`](/v2/artifacts/artifact/{failed['id']})" in overview
        assert 'echo "no go" >&2; sleep 3; exit 3' in failed["data"]
        changed = artifacts["mixed-workspace-github-com-acme-shop"]["data"]
        assert "## Step 2: skipped\n\n`if: " in changed
        assert "```diff\ndiff --git new new\n" in changed

    def test_a_bar_shows_how_far_it_came(self, mixed: Run, place: Place) -> None:
        bar = place.api.artifacts(mixed.id)["mixed-progress"]

        assert (bar["type"], float(bar["data"])) == ("progress", 100.0)
        assert bar["description"] == "3 of 3 workspaces: 2 completed, 1 failed"

    def test_the_report_lies_beside_the_records(self, mixed: Run) -> None:
        page = mixed.ledger.store.get(mixed.ledger.key("report.html")).decode()

        assert page.count('class="workspace"') == 3

    def test_a_step_whose_result_is_known_is_called_cached(self, mended: Run, place: Place) -> None:
        """Nothing of a workspace runs that is known as a whole; others resume where they failed."""
        states = {
            "find workspaces": "Completed",
            "changeset specs": "Completed",
            f"{BILLING} · set-up": "Completed",
            f"{BILLING} · step 1 · batchwright/busybox:1": "Cached",
            f"{BILLING} · step 2 · batchwright/busybox:1": "Completed",
            f"{BILLING} · step 3 · batchwright/busybox:1": "Completed",
            f"{BILLING} · diff": "Completed",
            f"{HANDBOOK} · set-up": "Cached",
            f"{SHOP} · set-up": "Cached",
        }

        eventually(lambda: {name: state for name, (state, _) in place.api.task_runs(mended.id).items()}, states)

        counts = mended.manifest.step_counts
        assert (counts.executed, counts.cached, counts.skipped) == (2, 5, 2)


def test_a_failing_workspace_leaves_the_others_alone(mixed: Run) -> None:
    manifest = mixed.manifest

    assert mixed.state.is_failed()
    assert [(result.title, result.state) for result in manifest.workspaces] == [
        (BILLING, "failed"),
        (HANDBOOK, "completed"),
        (SHOP, "completed"),
    ]
    assert [spec["baseRepository"] for spec, _ in mixed.changesets()] == [HANDBOOK, SHOP]
    assert [step.how for step in manifest.workspaces[0].steps] == ["executed", "failed"]


def test_nothing_of_a_run_stays_in_the_engine_or_on_the_disk(mixed: Run, mended: Run, place: Place) -> None:
    with closing(docker.APIClient()) as client:
        left = [
            [each for each in client.containers(all=True) if mixed.ledger.run_id in str(each)],
            [each for each in client.volumes()["Volumes"] or [] if mixed.ledger.run_id in str(each)],
            [each for each in client.networks() if mixed.ledger.run_id in str(each)],
        ]

    assert left == [[], [], []]
    assert list((place.installation.home / "workspaces").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "hello-world",
            {
                f"{repository} hello-world": "README.md"
                for repository in (
                    "billing",
                    "design-tokens",
                    "handbook",
                    "infrastructure",
                    "mobile",
                    "platform",
                    "shop",
                )
            },
        ),
        ("dynamic-skip", {"billing editorconfig": ".editorconfig", "shop editorconfig": ".editorconfig"}),
        (
            "groups",
            {
                "platform headers": "README.md libraries/ui/src/button.js",
                "platform headers-api": "services/api/src/index.js",
                "platform headers-web": "services/web/src/index.js",
                "shop headers": "README.md shop/__init__.py shop/cart.py shop/legacy_cart.py",
                "shop headers-tests": "tests/test_cart.py",
            },
        ),
        (
            "monorepo",
            {
                "design-tokens licences/root": "LICENSE",
                "platform licences/libraries-ui": "libraries/ui/LICENSE libraries/ui/package.json",
                "platform licences/services-api": "services/api/LICENSE services/api/package.json",
                "platform licences/services-web": "services/web/LICENSE services/web/package.json",
            },
        ),
        (
            "owners",
            {
                "billing owners/master": "OWNERS",
                "billing owners/release/1.x": "OWNERS VERSION",
                "handbook owners/main": "OWNERS",
                "shop owners/main": "OWNERS",
            },
        ),
    ],
)
def test_the_examples_make_the_changesets_that_they_promise(
    place: Place, tmp_path: Path, name: str, expected: dict[str, str]
) -> None:
    """And each patch is what git itself says of its repository after it was applied."""
    run = place.run((SPECS / f"{name}.yaml").read_text())

    assert run.manifest.state == "completed", run.manifest.failure
    made = {}
    for spec, patch in run.changesets():
        repository = spec["baseRepository"].rpartition("/")[2]
        branch = spec["headRef"].removeprefix("refs/heads/")
        files = re.findall(r"^diff --git (\S+)", patch.decode("utf-8", "replace"), re.MULTILINE)
        made[f"{repository} {branch}"] = " ".join(files)
        assert _applied(place.installation.repositories / spec["baseRepository"], spec["baseRev"], patch, tmp_path) == (
            patch.decode("utf-8", "surrogateescape").rstrip()
        )
    assert made == expected


def _applied(repository: Path, commit: str, patch: bytes, scratch: Path) -> str:
    """What git says of a clone at ``commit`` after the patch was applied."""
    clone = scratch / f"clone-{len(list(scratch.iterdir()))}"
    run_git(scratch, "clone", "--quiet", "--no-checkout", str(repository), str(clone))
    run_git(clone, "checkout", "--quiet", "--detach", commit)
    (clone / ".git/new.patch").write_bytes(patch)
    run_git(clone, "apply", "-p0", ".git/new.patch")
    run_git(clone, "add", "--all")
    return run_git(clone, "diff", "--cached", "--no-prefix", "--binary")


@pytest.mark.s3
def test_another_machine_resumes_where_this_one_stopped(place: Place, s3_server: S3Server, tmp_path: Path) -> None:
    """Through a bucket: the step that failed there gets the files of the steps before it, also those git ignores."""
    artifacts = S3Artifacts.model_validate(s3_server.settings("resume"))
    there, here = (Place(Installation(tmp_path / name), place.api) for name in ("there", "here"))
    for machine in (there, here):
        make_repositories(machine.installation.repositories)
    spec = MIXED.replace("(shop|billing|handbook)", "billing").replace(
        "echo x > new", "echo bin > .gitignore; echo x > bin"
    )

    first = there.run(spec, artifacts=artifacts)
    second = here.run(spec.replace("exit 3", "cat bin > new"), artifacts=artifacts)

    assert first.state.is_failed()
    assert [step.how for step in second.manifest.workspaces[0].steps] == ["cached", "executed", "executed"]
    ((_, patch),) = second.changesets()
    assert patch.endswith(b"+x\n+y\n")


def test_a_secret_is_neither_in_prefect_nor_in_the_store(place: Place, tmp_path: Path) -> None:
    artifacts = LocalArtifacts(folder=tmp_path / "store")
    spec = MIXED.replace("(shop|billing|handbook)", "billing").replace("exit 3", "echo $TOKEN; exit 3")
    spec = spec.replace("    if: ", "    env: [TOKEN]\n    if: ")

    run = place.run(spec, artifacts=artifacts, secrets=StepSecrets(values={"TOKEN": "s3cret-value"}))

    def logged() -> bool:
        found = place.api.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run.id]}}})
        return any("${{ secrets.TOKEN }}" in entry["message"] for entry in found)

    eventually(logged, True)
    shown = [
        place.api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run.id]}}}),
        place.api.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run.id]}}}),
        place.api.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run.id]}}}),
        place.api.artifacts(run.id),
        [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()],
    ]
    assert "s3cret-value" not in str(shown)
    assert "no go" in str(shown)


def test_a_run_that_cannot_begin_fails_with_the_reason(place: Place) -> None:
    run = place.run(MIXED.replace("repo:acme/(shop|billing|handbook)$", "repo:nobody"))

    assert run.state.is_failed()
    assert "the batch spec matches nothing" in (run.state.message or "")
    assert list(run.ledger.store.list_keys(f"runs/{run.ledger.run_id}")) == []


def test_only_a_deployments_run_can_wait_for_an_approval(place: Place) -> None:
    """Nothing runs before somebody finds out that nobody can be asked."""
    run = place.run(MIXED, options=Options(approval=True))

    assert run.state.is_failed()
    assert "start it from the dashboard" in (run.state.message or "")
    assert list(run.ledger.store.list_keys(f"runs/{run.ledger.run_id}")) == []


def test_from_nothing_to_patches(place: Place, prefect_server: LocalServer, tmp_path: Path) -> None:
    """The story: a newcomer's machine, one command; and once more, on a server that was configured."""
    newcomer = Installation(tmp_path)
    make_repositories(newcomer.repositories)
    out = tmp_path / "out"

    configured = {"PREFECT_API_URL": prefect_server.api_url}

    first = newcomer.run_demo("demo.yaml", "--out", out, environment=configured)
    second = newcomer.run_demo("demo.yaml", "--json", environment=configured)

    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert "5 of 5 workspaces completed; steps: 7 run, 0 cached, 3 skipped" in first.stdout.decode()
    changed = {}
    for number in range(1, 6):
        spec = json.loads((out / f"changesets/{number}.json").read_text())
        patch = (out / f"changesets/{number}.patch").read_bytes()
        applied = _applied(newcomer.repositories / spec["baseRepository"], spec["baseRev"], patch, tmp_path)
        changed[spec["baseRepository"].rpartition("/")[2]] = re.findall(r"^\+(?!\+)(.*)$", applied, re.MULTILINE)
    assert sorted(changed) == ["billing", "handbook", "infrastructure", "platform", "shop"]
    assert all("packages.acme.example" in line for lines in changed.values() for line in lines)
    assert second.json["step_counts"] == {"executed": 0, "cached": 7, "skipped": 3}
    assert not (newcomer.home / "prefect").exists()
    (flow_run,) = place.api.post(
        "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1, "flow_runs": {"name": {"any_": ["new-mirror"]}}}
    )
    assert flow_run["state"]["message"].endswith("nothing new: no step had to run again")


def test_prefects_server_can_be_imported() -> None:
    """A newer fastapi breaks it: the cap in pyproject.toml has to hold."""
    assert importlib.import_module("prefect.server.api.server").create_app


def _type(event: dict[str, Any]) -> str:
    return str(event["resource"]["prefect.state-type"])


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["occurred"]).timestamp()
