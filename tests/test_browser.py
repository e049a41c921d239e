"""What people do in the dashboard, in a real browser: run, watch, retry, schedule, approve, cancel.

Prefect's server, a worker of `batchwright up`, containers: all real. What is seen is kept as pictures, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from flows.server import LocalServer
from infra.images import BUSYBOX
from tests.browser import PATIENCE_SECONDS, Eyes
from tests.dashboard import ENDED, Dashboard, containers_of
from tests.harness import Installation, eventually, make_installation, serving

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.flow]

SHOP, BILLING, HANDBOOK = (f"github.com/acme/{name}" for name in ("shop", "billing", "handbook"))
SPEC = f"""\
name: from-the-form
on:
  - repositoriesMatchingQuery: repo:acme/(shop|billing|handbook)$
steps:
  - run: echo "the token is $TOKEN"; for n in $(seq 300); do [ -e /seen ] && break; sleep 1; done; echo one > new
    env: [TOKEN]
    container: {BUSYBOX}
  - run: ${{{{ if eq repository.name "{BILLING}" }}}}true${{{{ else }}}}grep server.example /etc/hosts${{{{ end }}}}
    container: {BUSYBOX}
  - run: "false"
    if: ${{{{ matches (join steps.added_files " ") "*Dockerfile*" }}}}
    container: {BUSYBOX}
changesetTemplate: {{title: Add a file, branch: b, commit: {{message: M}}}}
"""
"""Its first step waits until somebody has seen it; the second fails but in one repository until a host is known."""

WAITS = f"""\
name: waits
on: [{{repository: {SHOP}}}, {{repository: {BILLING}}}]
steps:
  - run: echo one > new
    container: {BUSYBOX}
  - run: grep released.example /etc/hosts || sleep 300
    container: {BUSYBOX}
changesetTemplate: {{title: T, branch: b, commit: {{message: M}}}}
"""
"""Its second step takes minutes until somebody adds a host to the engine's block."""


PROPOSES = f"""\
name: proposes
on: [{{repository: {SHOP}}}]
steps: [{{run: echo one > new, container: {BUSYBOX}}}]
changesetTemplate: {{title: Add a file, branch: b, commit: {{message: M}}}}
"""


@dataclass(frozen=True)
class Person:
    """Somebody in front of the dashboard."""

    ui: str
    eyes: Eyes
    page: Page

    def look(self, path: str, awaited: str) -> None:
        """Open a page, and wait for a text on it."""
        self.page.goto(f"{self.ui}/v2/{path}", wait_until="domcontentloaded")
        self.page.get_by_text(awaited).first.wait_for()

    def look_at_run(self, run: str, tab: str = "Task Runs") -> None:
        self.look(f"runs/flow-run/{run}", "Task Runs")
        self.page.get_by_role("tab", name=tab).click()

    def choose(self, run: str, action: str) -> Locator:
        """An entry of a run's menu; returns the dialog that it opens."""
        self.look_at_run(run)
        self.page.get_by_role("button", name="Open menu").click()
        self.page.get_by_role("menuitem", name=action).click()
        return self.page.get_by_role("dialog").or_(self.page.get_by_role("alertdialog"))

    def leave(self) -> None:
        """Look at nothing: the page of a run asks and draws all the time."""
        self.page.goto("about:blank")

    def retry(self, run: str) -> None:
        self.choose(run, "Retry").get_by_role("button", name="Retry").click()
        self.page.get_by_text("AwaitingRetry").or_(self.page.get_by_text("Pending")).first.wait_for()
        self.leave()

    def answer(self, run: str, decision: str, comment: str) -> None:
        """Approve or reject what a run has to propose."""
        dialog = self.choose(run, "Resume")
        dialog.get_by_text("Select", exact=True).click()
        self.page.get_by_role("option", name=decision).click()
        dialog.locator("textarea").fill(comment)
        self.eyes.picture(self.page, f"approval-{decision}")
        dialog.get_by_role("button", name="Resume").click()
        expect(dialog).to_be_hidden()
        self.leave()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Not the one of the other tests: what people do here changes what is deployed, and they kill its server."""
    return make_installation(tmp_path_factory.mktemp("installation"))


@pytest.fixture(scope="module")
def prefect_server(installation: Installation) -> Iterator[LocalServer]:
    with serving(installation) as found:
        yield found


@contextmanager
def somebody(server: LocalServer, eyes: Eyes) -> Iterator[Person]:
    page = eyes.page()
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    yield Person(server.ui_url, eyes, page)
    page.close()


@pytest.fixture
def person(prefect_server: LocalServer, eyes: Eyes) -> Iterator[Person]:
    with somebody(prefect_server, eyes) as person:
        yield person


def add_host(dashboard: Dashboard, name: str) -> None:
    """Mend what lies outside: the engine's block."""
    engine = dashboard.block(dashboard.deployment()["parameters"]["engine"])
    hosts = {**(engine["data"].get("extra_hosts") or {}), name: "127.0.0.1"}
    dashboard.ask("PATCH", f"block_documents/{engine['id']}", {"data": {**engine["data"], "extra_hosts": hosts}})


@dataclass(frozen=True)
class Made:
    """Every container that this machine makes while the tests look; its engine itself remembers 256 events only."""

    file: Path

    def containers_of(self, run: str, since: float) -> int:
        """How many containers steps of a run were given since then, whatever became of them."""
        told = [json.loads(line) for line in self.file.read_text().splitlines()]
        return sum(event["timeNano"] >= since * 1e9 and run.split("-")[-1] in json.dumps(event) for event in told)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    file = tmp_path_factory.mktemp("events") / "made.json"
    wanted = [f"--filter={each}" for each in ("type=container", "event=create", "label=batchwright.step")]
    with (
        file.open("wb") as out,
        subprocess.Popen(("docker", "events", "--format", "{{json .}}", *wanted), stdout=out) as process,
    ):
        yield Made(file)
        process.terminate()


def keep_secret(dashboard: Dashboard) -> None:
    """Make the block that the form is to be given."""
    block_type = dashboard.ask("GET", "block_types/slug/step-secrets")
    wanted = {"block_schemas": {"block_type_id": {"any_": [block_type["id"]]}}}
    (schema, *_) = dashboard.ask("POST", "block_schemas/filter", wanted)
    data = {"values": {"TOKEN": "s3cret-value"}}
    block = {"name": "release", "block_type_id": block_type["id"], "block_schema_id": schema["id"], "data": data}
    dashboard.ask("POST", "block_documents/", block)


@pytest.fixture(scope="module")
def submitted(dashboard: Dashboard, prefect_server: LocalServer, eyes: Eyes, made: Made) -> str:
    """A run from the form: the spec pasted, the block with the secrets picked."""
    keep_secret(dashboard)
    page = eyes.page()
    page.goto(f"{prefect_server.ui_url}/v2/deployments/deployment/{dashboard.deployment()['id']}/run")
    page.get_by_label("Spec", exact=True).fill(SPEC)
    page.get_by_role("tab", name="StepSecrets").click()
    page.get_by_role("tabpanel", name="StepSecrets").get_by_role("button", name="Select a block").click()
    page.get_by_text("release", exact=True).last.click()
    eyes.picture(page, "form", whole=True)
    with page.expect_response("**/create_flow_run") as answer:
        page.get_by_role("button", name="Submit").click()
    assert answer.value.ok, answer.value.text()
    run = str(answer.value.json()["id"])
    page.close()
    return run


@pytest.fixture(scope="module")
def live_logs(submitted: str, dashboard: Dashboard, prefect_server: LocalServer, eyes: Eyes) -> str:
    """The page of the run with its logs, as somebody sees it while the steps still wait to be seen."""
    page = eyes.page()
    page.goto(f"{prefect_server.ui_url}/v2/runs/flow-run/{submitted}")
    page.get_by_role("tab", name="Logs").click()
    page.get_by_text("the token is").first.wait_for()
    eyes.picture(page, "live-logs")
    assert dashboard.ask("GET", f"flow_runs/{submitted}")["state"]["type"] == "RUNNING"
    shown = page.content()
    page.close()
    eventually(lambda: len(_steps(submitted)), 3, seconds=120)
    for container in _steps(submitted):
        subprocess.run(("docker", "exec", "--user", "0", container, "/bin/touch", "/seen"), check=True)
    return shown


def _steps(run: str) -> list[str]:
    """The containers of steps of a run, by their ids."""
    command = ("docker", "ps", "--quiet", "--filter", "label=batchwright.step")
    chosen = ("--filter", f"label=batchwright.run=from-the-form-{run.rpartition('-')[2]}")
    return subprocess.run((*command, *chosen), capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(scope="module")
def failed(submitted: str, live_logs: str, dashboard: Dashboard) -> dict[str, Any]:
    return dashboard.wait(submitted)


@pytest.fixture(scope="module")
def retried_at(failed: dict[str, Any], dashboard: Dashboard) -> float:
    """When what lies outside was mended."""
    add_host(dashboard, "server.example")
    return time.time()


@pytest.fixture(scope="module")
def alone(
    failed: dict[str, Any], retried_at: float, dashboard: Dashboard, prefect_server: LocalServer, eyes: Eyes
) -> dict[str, Any]:
    """One of the failed workspaces, run by itself: Copy to new run, and its name in the form."""
    with somebody(prefect_server, eyes) as person:
        page = person.page
        person.look_at_run(failed["id"])
        page.get_by_role("button", name="Open menu").click()
        page.get_by_role("menuitem", name="Copy to new run").click()
        only = page.get_by_text("Only Workspaces").locator("xpath=ancestor::*[.//button[.='Add item']][1]")
        only.get_by_role("button", name="Add item").click()
        only.locator("textarea").fill(HANDBOOK)
        person.eyes.picture(page, "alone")
        with page.expect_response("**/create_flow_run") as answer:
            page.get_by_role("button", name="Submit").click()
        run = str(answer.value.json()["id"])
    return dashboard.wait(run)


@pytest.fixture(scope="module")
def retried(
    failed: dict[str, Any], alone: dict[str, Any], dashboard: Dashboard, prefect_server: LocalServer, eyes: Eyes
) -> dict[str, Any]:
    """The failed run, after Retry in its menu."""
    with somebody(prefect_server, eyes) as person:
        person.retry(failed["id"])
    return dashboard.wait(failed["id"], {"RUNNING"}) and dashboard.wait(failed["id"])


class TestWatching:
    def test_the_spec_arrives_as_it_was_pasted(self, dashboard: Dashboard, submitted: str) -> None:
        assert dashboard.ask("GET", f"flow_runs/{submitted}")["parameters"]["spec"] == SPEC

    def test_output_is_live_in_the_logs_and_the_secret_is_not_in_it(self, live_logs: str) -> None:
        assert "the token is ${{ secrets.TOKEN }}" in live_logs
        assert "s3cret-value" not in live_logs

    def test_a_failed_run_says_where_and_why(self, person: Person, failed: dict[str, Any]) -> None:
        person.look_at_run(failed["id"])
        person.page.get_by_text("Skipped").first.wait_for()
        person.page.get_by_text(f"{SHOP} · step 2 · {BUSYBOX}").first.wait_for()
        person.eyes.picture(person.page, "failed-run", whole=True)

        assert failed["name"] == "from-the-form"
        assert failed["state"]["message"].startswith("1 of 3 workspaces completed; 2 failed; steps: 6 run")

    def test_the_overview_leads_to_the_cause_the_page_and_the_report(
        self, person: Person, dashboard: Dashboard, failed: dict[str, Any]
    ) -> None:
        artifacts = dashboard.artifacts(failed["id"])
        person.look(f"artifacts/artifact/{artifacts['from-the-form-overview']['id']}", "What to do")
        person.eyes.picture(person.page, "overview", whole=True)
        person.page.get_by_role("link", name=SHOP).first.click()
        person.page.get_by_text("grep server.example /etc/hosts").first.wait_for()
        person.eyes.picture(person.page, "workspace-page", whole=True)
        person.look(f"artifacts/artifact/{artifacts['from-the-form-workspaces']['id']}", BILLING)
        person.eyes.picture(person.page, "table")
        person.look(f"artifacts/artifact/{artifacts['from-the-form-report']['id']}", "Report of")
        address = person.page.get_by_role("link", name="Report of").get_attribute("href")

        assert address is not None
        person.page.goto(address)
        person.page.locator("#todo a").first.click()
        expect(person.page.locator(".workspace[open] .failure")).to_contain_text("exit code 1")
        person.eyes.picture(person.page, "report", whole=True)
        assert person.page.locator(".workspace").count() == 3
        assert "s3cret-value" not in person.page.content()


class TestRetrying:
    def test_one_workspace_alone_costs_what_it_has_no_result_of(
        self, dashboard: Dashboard, alone: dict[str, Any], retried_at: float, made: Made
    ) -> None:
        assert alone["state"]["type"] == "COMPLETED", alone["state"]
        (result,) = dashboard.manifest(alone["id"]).workspaces
        assert (result.title, [step.how for step in result.steps]) == (HANDBOOK, ["cached", "executed", "skipped"])
        assert made.containers_of(alone["id"], retried_at) == 1

    def test_retry_runs_what_has_no_result_and_makes_one_coherent_run(
        self, person: Person, dashboard: Dashboard, retried: dict[str, Any], retried_at: float, made: Made
    ) -> None:
        """One container, for what has failed still; the completed one is not set up, that of its own run is cached."""
        run = retried
        person.look_at_run(run["id"])
        person.page.get_by_text("Cached").first.wait_for()
        person.eyes.picture(person.page, "retried-run", whole=True)

        assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 2), run["state"]
        assert made.containers_of(run["id"], retried_at) == 1
        manifest = dashboard.manifest(run["id"])
        assert {result.title: [step.how for step in result.steps] for result in manifest.workspaces} == {
            BILLING: ["executed", "executed", "skipped"],
            HANDBOOK: ["cached", "cached", "skipped"],
            SHOP: ["cached", "executed", "skipped"],
        }
        assert (manifest.state, manifest.changeset_specs) == ("completed", 3)
        overview = dashboard.artifacts(run["id"])["from-the-form-overview"]
        assert overview["data"].startswith("# `from-the-form`: completed\n\n3 of 3 workspaces completed")


class TestSchedule:
    def test_the_example_is_switched_on_and_off_in_the_dashboard(self, person: Person, dashboard: Dashboard) -> None:
        person.look(f"deployments/deployment/{dashboard.deployment()['id']}", "Schedules")
        switch = person.page.get_by_role("switch").first

        switch.click()
        eventually(lambda: _active_schedules(dashboard), [True])
        person.eyes.picture(person.page, "schedule")
        switch.click()
        eventually(lambda: _active_schedules(dashboard), [False])

    def test_a_scheduled_run_of_an_unchanged_world_costs_no_container(
        self, person: Person, dashboard: Dashboard, retried: dict[str, Any], made: Made
    ) -> None:
        since = time.time()
        run = dashboard.wait(_due_now(dashboard, retried["parameters"]))
        person.look_at_run(run["id"])
        person.page.get_by_text("Cached").first.wait_for()
        person.eyes.picture(person.page, "nothing-new")

        assert run["auto_scheduled"]
        assert run["state"]["type"] == "COMPLETED", run["state"]
        assert run["state"]["message"].endswith("nothing new: no step had to run again")
        assert made.containers_of(run["id"], since) == 0


def _active_schedules(dashboard: Dashboard) -> list[bool]:
    return [schedule["active"] for schedule in dashboard.deployment()["schedules"]]


def _due_now(dashboard: Dashboard, parameters: dict[str, Any]) -> str:
    """The run that a daily schedule makes today; the worker takes it, and then the schedule is removed.

    Prefect looks at a schedule that was added within a minute (PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS), and
    makes no runs for times that are over by then: it is asked to do now what it does in its loop, from now on.
    """
    deployment, now = dashboard.deployment()["id"], datetime.now(UTC)
    path = f"deployments/{deployment}"
    timing = {"interval": 86400, "anchor_date": now.isoformat(), "timezone": "UTC"}
    new = {"schedule": timing, "active": True, "parameters": parameters}
    (schedule,) = dashboard.ask("POST", f"{path}/schedules", [new])
    dashboard.ask("POST", f"{path}/schedule", {"start_time": (now - timedelta(seconds=1)).isoformat()})
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
    found = dashboard.ask("POST", "flow_runs/filter", wanted)
    run = next(str(each["id"]) for each in found if (each["created_by"] or {}).get("id") == schedule["id"])
    dashboard.wait(run, {"RUNNING", *ENDED})
    dashboard.ask("DELETE", f"{path}/schedules/{schedule['id']}")
    return run


class TestApproval:
    def test_a_run_goes_on_only_when_a_person_says_so(self, person: Person, dashboard: Dashboard, made: Made) -> None:
        """Rejected first: nothing goes on. After Retry it is asked again; in all of it, the step ran once."""
        since = time.time()
        run = dashboard.submit({"spec": PROPOSES, "options": {"approval": True}})

        assert dashboard.wait(run, {"PAUSED", "FAILED", "COMPLETED"})["state"]["name"] == "Suspended"
        person.answer(run, "reject", "not before the release")
        rejected = dashboard.wait(run)
        person.look_at_run(run)
        person.page.get_by_text("Rejected").first.wait_for()
        person.eyes.picture(person.page, "rejected")
        person.retry(run)
        asked = dashboard.wait(run, {"PAUSED", "FAILED", "COMPLETED"})
        person.answer(run, "approve", "fine now")
        approved = dashboard.wait(run)

        assert (rejected["state"]["type"], rejected["state"]["name"]) == ("CANCELLED", "Rejected")
        assert rejected["state"]["message"].startswith("rejected: not before the release.")
        assert (asked["state"]["name"], asked["run_count"]) == ("Suspended", 2)
        assert (approved["state"]["type"], approved["run_count"]) == ("COMPLETED", 2)
        assert approved["state"]["message"].endswith("approved: fine now")
        assert made.containers_of(run, since) == 1


@pytest.fixture(scope="module")
def waiting(dashboard: Dashboard) -> str:
    """A run whose second steps take minutes, all of them."""
    run = dashboard.submit({"spec": WAITS})
    dashboard.wait(run, {"RUNNING"})
    eventually(lambda: _waits(run), 2, seconds=120)
    return run


class TestStopping:
    """Cancelled, killed, with the server killed too: one run, and nothing of it twice."""

    def test_cancel_ends_the_containers_and_says_what_is_kept(
        self, person: Person, dashboard: Dashboard, waiting: str
    ) -> None:
        dialog = person.choose(waiting, "Cancel")
        dialog.get_by_role("button", name="Cancel Flow Run").click()
        expect(dialog).to_be_hidden()
        person.leave()
        eventually(lambda: containers_of(waiting), [], seconds=30)
        run = dashboard.wait(waiting)
        overview = dashboard.artifacts(waiting)["waits-overview"]
        person.look(f"artifacts/artifact/{overview['id']}", "What to do")
        person.eyes.picture(person.page, "cancelled")

        assert run["state"]["type"] == "CANCELLED"
        assert "The run was stopped. Kept: 0 of 2 workspaces, 2 finished steps." in overview["data"]

    def test_retry_goes_on_after_a_cancel_and_after_worker_and_server_were_killed(
        self, person: Person, dashboard: Dashboard, installation: Installation, waiting: str, made: Made
    ) -> None:
        """The finished step is not repeated, whatever the end; what the killed one left is removed."""
        person.retry(waiting)
        dashboard.wait(waiting, {"RUNNING"})
        eventually(lambda: _waits(waiting), 2, seconds=120)
        since = time.time()
        for name in ("worker", "prefect"):
            _kill(installation.home / name)
        up = installation.command("up")
        assert up.code == 0, up.stderr
        add_host(dashboard, "released.example")
        dead = {"type": "CRASHED", "name": "Crashed", "message": "as crash-silent-runs.yaml does"}
        dashboard.ask("POST", f"flow_runs/{waiting}/set_state", {"state": dead, "force": True})
        person.retry(waiting)
        dashboard.wait(waiting, {"RUNNING"})
        run = dashboard.wait(waiting)
        person.look_at_run(waiting)
        person.eyes.picture(person.page, "survived", whole=True)

        assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 3), run["state"]
        assert made.containers_of(waiting, since) == 2
        assert containers_of(waiting) == []
        manifest = dashboard.manifest(waiting)
        assert [[step.how for step in result.steps] for result in manifest.workspaces] == [["cached", "executed"]] * 2


def _waits(run: str) -> int:
    """How many second steps run now."""
    return sum("batchwright.step=2" in line for line in containers_of(run))


def _kill(folder: Path) -> None:
    """Kill what we started there, with all that it has started: as a power cut does, but for the containers."""
    (record,) = folder.glob("*.json")
    family = [int(json.loads(record.read_text())["pid"])]
    for pid in family:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        family += [int(child) for child in children.read_text().split()] if children.exists() else []
    for pid in family:
        os.kill(pid, signal.SIGKILL)
