"""`batchwright executor` as a process: in containers, seen in Prefect, killed in the middle of a job."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.executor.configuration import read_configuration
from flows.executor.flow_runs import FlowRuns
from flows.server import LocalServer
from tests.executions import TOKEN, WAIT_SECONDS, Executions, Machine, Repository, diff_of, eventually, keys, results_of
from tests.harness import Api, Installation
from tests.instance.launcher import RunningInstance
from tests.registry import Registry

pytestmark = [pytest.mark.docker, pytest.mark.flow]

NAME = "github.com/acme/app"
IMAGE = "batchwright/busybox:1"


class Office:
    """Executors of one installation, their instance, and the Prefect server that sees them."""

    def __init__(self, executions: Executions, installation: Installation, api: Api) -> None:
        self.executions, self.installation, self.api = executions, installation, api

    @contextmanager
    def executor(self, **variables: str) -> Iterator[subprocess.Popen[str]]:
        environment = {
            "EXECUTOR_FRONTEND_URL": self.executions.instance.url,
            "EXECUTOR_FRONTEND_PASSWORD": TOKEN,
            "EXECUTOR_QUEUE_POLL_INTERVAL": "200ms",
            "EXECUTOR_HEARTBEAT_INTERVAL": "500ms",
            **variables,
        }
        process = self.installation.start("executor", environment=environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            assert process.stdout is not None
            self.said = process.stdout.read()
            process.stdout.close()
            process.wait()

    def flow_runs(self) -> dict[str, dict[str, Any]]:
        """The flow runs of jobs, by name."""
        found = self.api.post("flow_runs/filter", {"flows": {"name": {"any_": ["executor-job"]}}})
        return {run["name"]: run for run in found}

    def message(self, number: int) -> str:
        return str(self.flow_runs()[self.title(number)]["state"]["message"])

    def title(self, number: int) -> str:
        return f"{NAME}@{self.executions.repository.commit[:10]} job {number}"


@pytest.fixture(scope="module")
def office(
    installation: Installation, prefect_server: LocalServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    with RunningInstance(tmp_path_factory.mktemp("instance")) as instance:
        instance.set("executors.accessToken", TOKEN)
        instance.set("fake.stalledSeconds", "4")
        number, commit = instance.add_repository(NAME, {"README.md": "hello\n"})
        executions = Executions(instance, Repository(NAME, number, commit))
        yield Office(executions, installation, Api(prefect_server.api_url))


def test_jobs_are_flow_runs_and_retry_says_who_can_retry(office: Office) -> None:
    executions = office.executions
    steps = [{"run": "echo more >> README.md; id -u", "container": IMAGE}]
    steps += [{"run": "exit 3", "container": IMAGE, "if": "${{ eq repository.branch `x` }}"}]
    good = executions.enqueue(*steps)
    bad = executions.enqueue({"run": "echo oh >&2; exit 3", "container": IMAGE}, native=True)

    with office.executor() as process:
        ended = [executions.ended(number) for number in (good, bad)]
        eventually(lambda: office.flow_runs()[office.title(bad)]["state_type"] == "FAILED")
        failed = office.flow_runs()[office.title(bad)]
        again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
        office.api.post(f"flow_runs/{failed['id']}/set_state", again)
        eventually(lambda: "Retry it at the instance" in office.message(bad))
        canceled = executions.enqueue({"run": "sleep 60", "container": IMAGE})
        eventually(lambda: _containers(canceled))
        running = office.flow_runs()[office.title(canceled)]
        office.api.post(f"flow_runs/{running['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        assert "cancelled in the dashboard" in executions.ended(canceled)["failure"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0

    assert _containers(canceled) == set()
    assert [each["state"] for each in ended] == ["completed", "failed"]
    (result,) = results_of(ended[0])
    assert result["stdout"] == "0\n"
    assert "+more" in diff_of(result)
    completed = office.flow_runs()[office.title(good)]
    assert completed["state_type"] == "COMPLETED"
    tasks = office.api.task_runs(completed["id"])
    assert tasks[f"{office.title(good)} · step 1 · {IMAGE}"][0] == "Completed"
    assert tasks[f"{office.title(good)} · step 2 · {IMAGE}"][0] == "Skipped"
    assert "Command failed with exit code 3." in failed["state"]["message"]
    assert len(executions.look(bad)["marks"]) == 1
    assert TOKEN not in office.said


def test_an_executor_that_is_killed_loses_no_job_and_leaves_no_container(office: Office) -> None:
    number = office.executions.enqueue({"run": "echo x > x; sleep 4", "container": IMAGE}, native=True)
    with office.executor() as process:
        eventually(lambda: _containers(number))
        os.killpg(process.pid, signal.SIGKILL)
    before = _containers(number)

    with office.executor(EXECUTOR_NUM_TOTAL_JOBS="1") as process:
        eventually(lambda: not before & _containers(number))
        ended = office.executions.ended(number)
        assert process.wait(WAIT_SECONDS) == 0

    assert ended["state"] == "completed"
    assert (ended["num_resets"], len(ended["marks"])) == (1, 1)
    assert keys(ended).count("step.docker.step.0.run") == 1
    assert _containers(number) == set()
    assert not list((office.installation.home / "workspaces").iterdir())
    assert not list(Path(office.installation.home / "jobs").iterdir())
    states = office.api.post("flow_runs/filter", {"flow_runs": {"name": {"any_": [office.title(number)]}}})
    assert sorted(run["state_type"] for run in states) == ["COMPLETED", "CRASHED"]


def test_a_jobs_own_password_opens_a_registry_for_it(office: Office, tmp_path: Path) -> None:
    """The instance sends it with the job; a job without it does not get the image, and no log shows it."""
    executions, encoded = office.executions, base64.b64encode(b"me:pass-of-a-job").decode()
    settings = {"EXECUTOR_FRONTEND_URL": executions.instance.url, "EXECUTOR_FRONTEND_PASSWORD": TOKEN}
    machine = Machine(executions, tmp_path, runtime_for=read_configuration(settings).runtime_for)
    with Registry(login=("me", "pass-of-a-job")) as registry, closing(docker.APIClient()) as client:
        reference, _ = registry.publish("private/job:1", marker="job")
        step = {"run": "echo pulled", "container": reference}
        login = {"auths": {registry.address: {"auth": encoded}}}

        without = machine.work_off(executions.enqueue(step, native=True))
        opened = machine.work_off(executions.enqueue(step, native=True, dockerAuthConfig=login))
        client.remove_image(reference, force=True)

    assert without["state"] == "failed"
    assert "registry credentials" in without["failure"]
    assert opened["state"] == "completed", opened["failure"]
    assert results_of(opened)[0]["stdout"] == "pulled\n"
    told = json.dumps([without["logs"], opened["logs"]])
    assert "pass-of-a-job" not in told
    assert encoded not in told


def test_a_job_goes_on_when_prefect_is_gone(office: Office, tmp_path: Path) -> None:
    number = office.executions.enqueue("out x")
    machine = Machine(office.executions, tmp_path)
    flow_runs = FlowRuns("host-1", tmp_path)

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        machine.run_job = flow_runs.run
        ended = machine.work_off(number)

    assert ended["state"] == "completed"


def test_missing_settings_are_named(installation: Installation) -> None:
    done = installation.command("executor", "--no-prefect")

    assert done.code == 2
    assert "EXECUTOR_FRONTEND_URL is not set" in done.error


def _containers(number: int) -> set[str]:
    with closing(docker.APIClient()) as client:
        found = client.containers(all=True, filters={"label": "batchwright.run"})
        return {each["Id"] for each in found if each["Labels"]["batchwright.run"].startswith(f"job-{number}-")}
