"""A batch change on several machines: each with a worker, an engine and a state folder of its own; one bucket."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.errors import APIError
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.s3_artifacts import S3Artifacts
from flows.batches.results import RunManifest
from flows.spread import cancel_shards, per_shard
from infra.images import BUSYBOX
from tests.dashboard import ENDED, Dashboard
from tests.gitrepos import make_repository
from tests.harness import Installation, serving
from tests.machines import Machine
from tests.s3server import S3Server

pytestmark = [pytest.mark.docker, pytest.mark.flow, pytest.mark.s3]

NAMES = [f"acme/{letter}" for letter in "abcdef"]
ONCE = Counter(dict.fromkeys(NAMES, 2)) + Counter({"acme/f": 1})
"""Containers of a run in which every step has one: the last step is for acme/f alone."""
LATER = "batchwright/later:1"
"""An image that is not there at first."""
SECONDS = 300
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "15"))
"""For which server and store are away, and no look of anybody finds them; the server's start comes on top.

A minute of it is proven by hand: ``OUTAGE_SECONDS=60 pytest tests/test_shards.py -k die_and_come_back``.
"""


def spec(*, name: str, first: str = "", second: str = "echo two >> new", last: str = BUSYBOX) -> str:
    """Three steps; the last one only in acme/f."""
    return f"""\
name: {name}
on: [{{repositoriesMatchingQuery: 'repo:acme'}}]
steps:
  - run: echo ${{{{ repository.name }}}} {first or name} > new
    container: {BUSYBOX}
    outputs: {{who: {{value: "${{{{ repository.name }}}}"}}}}
  - run: {second}
    container: {BUSYBOX}
  - run: echo three >> new
    container: {last}
    if: ${{{{ eq repository.name "acme/f" }}}}
changesetTemplate: {{title: "New in ${{{{ outputs.who }}}}", branch: b, commit: {{message: M}}}}
"""


@pytest.mark.parametrize(
    ("workspaces", "most"), [(1, 100), (100, 100), (400, 100), (401, 101), (999, 250), (1000, 250), (100_000, 250)]
)
def test_shards_are_as_large_as_their_start_is_worth(workspaces: int, most: int) -> None:
    assert per_shard(workspaces) == most


@dataclass(frozen=True)
class Team:
    """Two machines that work for one server, and how people see them."""

    dashboard: Dashboard
    machines: tuple[Machine, Machine]
    parameters: dict[str, Any]
    head: Installation
    """Where the server is."""

    def kill_server(self) -> None:
        """As a power cut would."""
        os.kill(json.loads((self.head.home / "prefect/server.json").read_text())["pid"], signal.SIGKILL)

    def start_server(self) -> None:
        """On its old port, with its database."""
        assert self.head.command("deploy").code == 0

    def submit(self, text: str, **options: object) -> str:
        shards = {"workspaces_per_shard": 2, "workspaces_at_once": 1, **options}
        return self.dashboard.submit({**self.parameters, "spec": text, "options": shards})

    def retry(self, run: str) -> dict[str, Any]:
        """Have a run retried, and wait: the run as it ended then."""
        self.dashboard.retry(run)
        self.dashboard.wait(run, {"RUNNING"})
        return self.dashboard.wait(run)

    def shards(self, run: str) -> dict[int, dict[str, Any]]:
        """The flow runs of a run's shards, by their number."""
        keys = [f"{run}:shard:{number}" for number in range(1, 10)]
        found = self.dashboard.ask("POST", "flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": keys}}})
        return {each["parameters"]["shard"]: each for each in found}

    def containers(self, run: str) -> list[Counter[str]]:
        """Per machine: how many containers each workspace has had. Counted by the engine, not by us."""
        return [Counter(name.split("@")[0] for name in machine.containers(run)) for machine in self.machines]

    def crash(self, flow_run: str) -> None:
        """What the automation for silent runs does, three minutes after the last heartbeat."""
        state = {"type": "CRASHED", "name": "Crashed", "message": "No heartbeat for three minutes."}
        self.dashboard.ask("POST", f"flow_runs/{flow_run}/set_state", {"state": state, "force": True})

    def home_of(self, flow_run: str) -> Machine:
        """The machine that works on a flow run."""
        return until(lambda: next((each for each in self.machines if each.processes(flow_run)), None))


def until(look: Callable[[], Any]) -> Any:
    """What ``look`` gives, as soon as it gives something."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def team(s3_server: S3Server) -> Iterator[Team]:
    """A server of its own: its workers must not take the runs of other tests, and it is stopped on the way."""
    with TemporaryDirectory(prefix="bw-", dir="/tmp") as place, ExitStack() as stack:
        folder = Path(place)
        for name in NAMES:
            make_repository(folder / "src" / name, {"README.md": f"{name}\n"})
        head = Installation(folder / "head")
        head.folder.mkdir()
        api = stack.enter_context(serving(head)).api_url
        deployed = head.command("deploy")
        assert deployed.code == 0, deployed.stderr
        settings = s3_server.settings("shards")
        machines = tuple(stack.enter_context(Machine(folder / f"m{each}", api, number=each)) for each in (1, 2))
        assert len(machines) == 2
        yield Team(
            Dashboard(api, S3Artifacts.model_validate(settings).store()),
            machines,
            {
                "repositories": {"folder": str(folder / "src")},
                "engine": {"docker_host": None, "pull_policy": "never"},
                "artifacts": settings,
            },
            head,
        )


@pytest.fixture(scope="module")
def shared(team: Team) -> dict[str, Any]:
    """A run of six workspaces in three shards, of which one workspace fails at its last step."""
    return team.dashboard.wait(team.submit(spec(name="shared", second="sleep 3; echo two >> new", last=LATER)))


class TestARun:
    def test_is_shared_by_the_machines(self, team: Team, shared: dict[str, Any]) -> None:
        """Each shard is a flow run with a graph of its own; every workspace ran on one machine, once."""
        shards = team.shards(shared["id"])
        there, here = team.containers(shared["id"])

        assert {number: shard["name"] for number, shard in shards.items()} == {
            number: f"shared · shard {number} of 3" for number in (1, 2, 3)
        }
        assert {number: shard["state"]["type"] for number, shard in shards.items()} == {
            1: "COMPLETED",
            2: "COMPLETED",
            3: "FAILED",
        }
        assert there
        assert here
        assert there + here == Counter(dict.fromkeys(NAMES, 2))

    def test_is_one_run_with_one_manifest(self, team: Team, shared: dict[str, Any]) -> None:
        manifest = team.dashboard.manifest(shared["id"])

        assert (shared["state"]["type"], shared["state"]["message"]) == ("FAILED", manifest.headline)
        assert states(manifest) == {**dict.fromkeys(NAMES, "completed"), "acme/f": "failed"}
        assert manifest.changeset_specs == 5
        assert [result.changeset_specs for result in manifest.workspaces] == [(1,), (2,), (3,), (4,), (5,), ()]

    def test_retried_runs_what_has_no_result_and_nothing_else(self, team: Team, shared: dict[str, Any]) -> None:
        """One shard goes on, with the failed workspace alone, at its failed step; on whichever machine."""
        run = shared["id"]
        before = sum(team.containers(run), Counter())
        for machine in team.machines:
            with closing(docker.APIClient(machine.docker_host)) as client:
                client.tag(BUSYBOX, *LATER.split(":"))

        again = team.retry(run)

        assert (again["state"]["type"], again["run_count"]) == ("COMPLETED", 2)
        assert sum(team.containers(run), Counter()) - before == Counter({"acme/f": 1})
        assert {number: shard["run_count"] for number, shard in team.shards(run).items()} == {1: 1, 2: 1, 3: 2}
        manifest = team.dashboard.manifest(run)
        assert states(manifest) == dict.fromkeys(NAMES, "completed")
        assert [step.how for step in manifest.workspaces[5].steps] == ["cached", "cached", "executed"]
        assert manifest.changeset_specs == 6
        titles = [
            json.loads(team.dashboard.store.get(f"runs/{manifest.run_id}/changesets/{number}.json"))["title"]
            for number in range(1, 7)
        ]
        assert titles == [f"New in {name}" for name in NAMES]

    def test_of_an_unchanged_world_costs_no_container_on_any_machine(self, team: Team, shared: dict[str, Any]) -> None:
        """The cache is shared through the bucket."""
        text = spec(name="unchanged", first="shared", second="sleep 3; echo two >> new", last=LATER)
        run = team.submit(text, workspaces_per_shard=6)

        ended = team.dashboard.wait(run)

        assert ended["state"]["type"] == "COMPLETED"
        assert "nothing new" in ended["state"]["message"]
        assert sum(team.containers(run), Counter()) == Counter()


def states(manifest: RunManifest) -> dict[str, str]:
    return {result.title: result.state for result in manifest.workspaces}


def test_two_runs_of_one_spec_at_once_are_whole_each(team: Team) -> None:
    """On a machine each, in one bucket: no record is lost or doubled, and a step is given no second container."""
    text = spec(name="twins", second="sleep 3; echo twin >> new")
    runs = [team.submit(text, workspaces_per_shard=100, workspaces_at_once=6) for _ in range(2)]
    ended = [team.dashboard.wait(run) for run in runs]

    assert [run["state"]["type"] for run in ended] == ["COMPLETED"] * 2
    manifests = [team.dashboard.manifest(run) for run in runs]
    assert [states(manifest) for manifest in manifests] == [dict.fromkeys(NAMES, "completed")] * 2
    assert [manifest.changeset_specs for manifest in manifests] == [6, 6]
    for run, manifest in zip(runs, manifests, strict=True):
        keys = [step.key for result in manifest.workspaces for step in result.steps]
        assert len(keys) == len(set(keys)) == 18
        assert all(team.dashboard.store.get(key) for key in keys)
        executed = Counter({result.title: result.step_counts.executed for result in manifest.workspaces})
        assert sum(team.containers(run), Counter()) == +executed
    first, second = ([result.diff for result in manifest.workspaces] for manifest in manifests)
    assert first == second


def test_what_a_killed_machine_had_is_taken_over(team: Team) -> None:
    """Its finished workspaces are kept; what it was at runs again elsewhere; nothing runs twice beyond that.

    An error that is to be skipped fails neither the run nor its shard.
    """
    second = "case ${{ repository.name }} in acme/c) exit 3;; *) sleep 2; echo other >> new;; esac"
    run = team.submit(spec(name="killed", second=second), skip_errors=True)
    parent = team.home_of(run)
    (lost,) = (machine for machine in team.machines if machine is not parent)
    until(lambda: len(lost.containers(run)) >= 2)

    of_the_lost = [each for each in team.shards(run).values() if lost.processes(each["id"])]
    lost.kill()
    done = team.dashboard.manifest(run)
    for each in of_the_lost:
        team.crash(each["id"])
    ended = team.dashboard.wait(run)
    lost.start_worker()

    assert ended["state"]["type"] == "COMPLETED"
    assert ended["state"]["message"].startswith("5 of 6 workspaces completed; 1 failed")
    assert states(team.dashboard.manifest(run)) == {**dict.fromkeys(NAMES, "completed"), "acme/c": "failed"}
    assert team.dashboard.manifest(run).changeset_specs == 5
    assert sorted(each["run_count"] for each in team.shards(run).values()) == [1, 1, 2]
    begun = sum(team.containers(run), Counter())
    finished = {result.title for result in done.workspaces if result.state == "completed"}
    assert {name: begun[name] for name in finished} == {name: ONCE[name] for name in finished}
    assert all(count <= ONCE[name] + 2 for name, count in begun.items())


def test_a_server_and_a_store_that_die_and_come_back_cost_nothing(team: Team, s3_server: S3Server) -> None:
    """Both are killed in the middle of a run: it waits, and goes on; nothing is lost, nothing runs twice."""
    run = team.submit(spec(name="outage", second="sleep 8; echo two >> new"), workspaces_at_once=2)
    until(lambda: sum(map(len, team.containers(run))) >= 2)

    team.kill_server()
    s3_server.kill()
    time.sleep(OUTAGE_SECONDS)
    s3_server.start()
    team.start_server()
    ended = team.dashboard.wait(run)

    assert (ended["state"]["type"], ended["run_count"]) == ("COMPLETED", 1)
    assert states(team.dashboard.manifest(run)) == dict.fromkeys(NAMES, "completed")
    assert {shard["run_count"] for shard in team.shards(run).values()} == {1}
    assert sum(team.containers(run), Counter()) == ONCE


def test_cancelled_it_stops_everywhere(team: Team) -> None:
    """No shard goes on or begins, and none of them counts as a success."""
    run = team.submit(spec(name="cancelled", second="sleep 300"))
    until(lambda: all(team.containers(run)))

    state = {"type": "CANCELLING", "name": "Cancelling"}
    team.dashboard.ask("POST", f"flow_runs/{run}/set_state", {"state": state, "force": True})
    ended = team.dashboard.wait(run)
    shards = {number: team.dashboard.wait(shard["id"]) for number, shard in team.shards(run).items()}

    assert ended["state"]["type"] == "CANCELLED"
    assert {shard["state"]["type"] for shard in shards.values()} == {"CANCELLED"}
    assert [machine.running(run) for machine in team.machines] == [[], []]
    assert team.dashboard.manifest(run).state == "cancelled"


def test_with_fail_fast_a_failure_stops_all_machines(team: Team) -> None:
    """What is not done ends as cancelled, begun or not; what failed is told from it."""
    second = "case ${{ repository.name }} in acme/a) exit 3;; *) sleep 300;; esac"
    run = team.submit(spec(name="fast", second=second), fail_fast=True)
    ended = team.dashboard.wait(run)
    shards = [team.dashboard.wait(shard["id"])["state"]["type"] for shard in team.shards(run).values()]

    assert ended["state"]["type"] == "FAILED"
    assert states(team.dashboard.manifest(run)) == {**dict.fromkeys(NAMES, "cancelled"), "acme/a": "failed"}
    assert Counter(shards)["FAILED"] == 1
    assert set(shards) <= {"FAILED", "CANCELLED"}
    assert [machine.running(run) for machine in team.machines] == [[], []]


def test_a_full_disk_fails_what_one_machine_has_and_nothing_else(team: Team) -> None:
    run = team.submit(spec(name="full", second="sleep 2; echo two >> new"), workspaces_at_once=2)
    parent = team.home_of(run)
    (full,) = (machine for machine in team.machines if machine is not parent)
    with full.full_disk():
        until(lambda: team.shards(run))
        ended = team.dashboard.wait(run)
        told = team.dashboard.manifest(run)
    again = team.retry(run)

    assert ended["state"]["type"] == "FAILED"
    failures = [result.failure for result in told.workspaces if result.failure]
    assert {failure.reason for failure in failures} == {"disk_full"}, failures
    assert again["state"]["type"] == "COMPLETED"
    assert states(team.dashboard.manifest(run)) == dict.fromkeys(NAMES, "completed")
    done = {result.title for result in told.workspaces if result.state == "completed"}
    begun = sum(team.containers(run), Counter())
    assert done
    assert {name: begun[name] for name in done} == {name: ONCE[name] for name in done}


def test_a_run_whose_own_machine_is_killed_finds_its_shards_again(team: Team) -> None:
    """They run on without it, elsewhere; Retry takes in what they did, and sends out what its machine had."""
    run = team.submit(spec(name="orphans", second="sleep 2; echo two >> new"), workspaces_at_once=2)
    parent = team.home_of(run)
    (other,) = (machine for machine in team.machines if machine is not parent)

    def of_the_parent() -> list[str]:
        return [each["id"] for each in team.shards(run).values() if parent.processes(each["id"])]

    until(lambda: len(team.shards(run)) == 3 and other.containers(run) and of_the_parent())
    lost = of_the_parent()
    parent.kill()
    for each in lost:
        team.crash(each)
    team.crash(run)
    parent.start_worker()

    ended = team.retry(run)

    assert (ended["state"]["type"], ended["run_count"]) == ("COMPLETED", 2)
    assert states(team.dashboard.manifest(run)) == dict.fromkeys(NAMES, "completed")
    tries = {each["id"]: each["run_count"] for each in team.shards(run).values()}
    assert all(count == 1 or (shard in lost and count == 2) for shard, count in tries.items())
    begun = sum(team.containers(run), Counter())
    assert all(ONCE[name] <= begun[name] <= ONCE[name] + 1 for name in NAMES)


def test_a_process_that_was_taken_for_dead_leaves_the_run_to_its_successor(team: Team) -> None:
    """As after minutes without network: it lives, the run is called Crashed, and Retry starts it elsewhere."""
    second = "for n in $(seq 300); do [ -e /seen ] && break; sleep 1; done; echo two >> new"
    run = team.submit(spec(name="alive", second=second), workspaces_per_shard=6, workspaces_at_once=6)
    old = team.home_of(run)
    (new,) = (machine for machine in team.machines if machine is not old)
    until(lambda: old.running(run))
    team.crash(run)
    team.dashboard.retry(run)
    until(lambda: new.processes(run))
    until(lambda: not old.processes(run))
    left = old.running(run)
    going_on = team.dashboard.ask("GET", f"flow_runs/{run}")

    def has_ended() -> bool:
        with closing(docker.APIClient(new.docker_host)) as client:
            for container in new.running(run):
                with suppress(APIError):  # it has just ended
                    client.exec_start(client.exec_create(container, ["touch", "/seen"]))
        return team.dashboard.ask("GET", f"flow_runs/{run}")["state"]["type"] in ENDED

    until(has_ended)
    ended = team.dashboard.wait(run)

    assert left == []
    assert going_on["state"]["type"] == "RUNNING"
    assert (ended["state"]["type"], ended["run_count"]) == ("COMPLETED", 2)
    assert states(team.dashboard.manifest(run)) == dict.fromkeys(NAMES, "completed")
    assert new.containers(run)


def test_a_shard_cancelled_in_the_moment_it_is_taken_ends(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's worker has made it Pending, hears that it is cancelled before it has a process, and leaves it so."""
    parent = uuid4()
    flow = team.dashboard.ask("GET", "deployments/name/workspace-shard/workspace-shard")["flow_id"]
    made = {"flow_id": flow, "idempotency_key": f"{parent}:shard:1", "state": {"type": "PENDING"}}
    shard = team.dashboard.ask("POST", "flow_runs/", made)["id"]
    monkeypatch.setattr("flows.spread._UNHEARD_SECONDS", 0.0)
    seen = []
    with temporary_settings({PREFECT_API_URL: team.dashboard.api}):
        for _ in range(2):
            cancel_shards(parent, 1)
            seen.append(team.dashboard.ask("GET", f"flow_runs/{shard}")["state"]["type"])

    assert seen == ["CANCELLING", "CANCELLED"]
