"""Operated from the dashboard: what `batchwright up` and `deploy` register, and runs of it on a worker with an engine.

The dashboard is a client of the same API that these tests use, with the same bodies.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from zipfile import ZipFile

import pytest
from prefect import Flow
from prefect.utilities.schema_tools import validate
from ruamel.yaml import YAML

from blocks.artifacts import LocalArtifacts
from blocks.repositories import RepositoryList
from flows import deployments
from flows.batch_change import batch_change
from flows.publish_changesets import publish_changesets, refresh_changesets
from infra.images import BUSYBOX
from tests.dashboard import Dashboard, containers_of
from tests.harness import SPECS, Done, Installation, eventually

INFRA = Path(__file__).parent.parent / "infra"
DEMO = (SPECS / "demo.yaml").read_text()

SHOP, BILLING = "github.com/acme/shop", "github.com/acme/billing"
NEEDS_A_HOST = f"""\
name: needs-a-host
on: [{{repository: {SHOP}}}, {{repository: {BILLING}}}]
steps:
  - run: echo one > new
    container: {BUSYBOX}
  - run: ${{{{ if eq repository.name "{SHOP}" }}}}grep mended.example /etc/hosts${{{{ else }}}}true${{{{ end }}}}
    container: {BUSYBOX}
changesetTemplate: {{title: T, branch: b, commit: {{message: M}}}}
"""
"""Its second step fails in one repository until somebody adds a host to the engine's block."""
SLEEPS = f"""\
name: sleeps
on: [{{repository: {SHOP}}}]
steps: [{{run: sleep 300, container: {BUSYBOX}}}]
changesetTemplate: {{title: T, branch: b, commit: {{message: M}}}}
"""


class Listener(BaseHTTPRequestHandler):
    """Whom notifications go to."""

    heard: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def listening() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def failed(dashboard: Dashboard) -> Iterator[str]:
    """A run of which one workspace has failed; people are to be told of it."""
    with listening() as url:
        notify(dashboard, url)
        run = dashboard.submit({"spec": NEEDS_A_HOST})
        dashboard.wait(run)
        yield run


def notify(dashboard: Dashboard, url: str) -> None:
    """Make the example automation, as its comment says."""
    block_type = dashboard.ask("GET", "block_types/slug/custom-webhook")
    (schema, *_) = dashboard.ask(
        "POST", "block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [block_type["id"]]}}}
    )
    block = {
        "name": "people",
        "block_type_id": block_type["id"],
        "block_schema_id": schema["id"],
        "data": {
            "name": "people",
            "url": url,
            "json_data": {"subject": "{{subject}}", "body": "{{body}}"},
            "allow_private_urls": True,
        },
    }
    automation = YAML(typ="safe").load(INFRA / "automations" / "notify-on-failure.yaml")
    automation["actions"][0]["block_document_id"] = dashboard.ask("POST", "block_documents/", block)["id"]
    dashboard.ask("POST", "automations/", automation)


@pytest.mark.docker
@pytest.mark.flow
class TestRuns:
    def test_the_form_can_be_submitted_as_it_is_and_again_with_nothing_new(self, dashboard: Dashboard) -> None:
        """The second one gives just the spec, as a program would."""
        first = dashboard.wait(dashboard.submit({}))
        again = dashboard.wait(dashboard.submit({"spec": DEMO}))

        assert (first["name"], first["state"]["type"], first["tags"]) == ("new-mirror", "COMPLETED", ["batchwright"])
        assert dashboard.manifest(first["id"]).step_counts.executed == 7
        assert again["state"]["type"] == "COMPLETED"
        assert "nothing new" in again["state"]["message"]
        assert dashboard.manifest(again["id"]).step_counts.executed == 0

    def test_a_run_whose_worker_dies_before_it_begins_does_not_stay_pending(self, dashboard: Dashboard) -> None:
        """It never sends a heartbeat."""
        automation = {**CRASH, "name": "sooner", "trigger": {**CRASH["trigger"], "within": 10}}
        made = dashboard.ask("POST", "automations/", automation)["id"]
        try:
            path = f"deployments/{dashboard.deployment()['id']}/create_flow_run"
            run = dashboard.ask("POST", path, {"state": {"type": "PENDING"}})["id"]
            silent = dashboard.wait(run)
        finally:
            dashboard.ask("DELETE", f"automations/{made}")
        dashboard.retry(run)

        assert silent["state"]["type"] == "CRASHED"
        assert dashboard.wait(run)["state"]["type"] == "COMPLETED"

    def test_a_run_cancelled_while_a_worker_takes_it_is_ended_by_its_process(self, dashboard: Dashboard) -> None:
        """Nobody else does, for five minutes."""
        path = f"deployments/{dashboard.deployment()['id']}/create_flow_run"
        run = dashboard.ask("POST", path, {"state": {"type": "PENDING"}})["id"]
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
        dashboard.ask("POST", f"flow_runs/{run}/set_state", cancelling)

        command = (sys.executable, "-P", "-m", "flows.flow_process")
        environment = {**os.environ, "PREFECT_API_URL": dashboard.api, "PREFECT__FLOW_RUN_ID": run}
        subprocess.run(command, env=environment, check=True, timeout=120)

        found = dashboard.ask("GET", f"flow_runs/{run}")
        assert (found["state"]["type"], found["run_count"]) == ("CANCELLED", 0)

    def test_people_are_told_of_a_failure(self, failed: str) -> None:
        eventually(lambda: len(Listener.heard), 1)

        (message,) = Listener.heard
        assert message["subject"] == "Batch change needs-a-host: Failed"
        assert "1 of 2 workspaces" in message["body"]
        assert f"/runs/flow-run/{failed}" in message["body"]

    def test_retry_runs_what_has_no_result_and_makes_one_coherent_run(self, dashboard: Dashboard, failed: str) -> None:
        """The workspace that was done is not even set up; the failed one goes on at its failed step."""
        engine = dashboard.block(dashboard.deployment()["parameters"]["engine"])
        mended = {"data": {**engine["data"], "extra_hosts": {"mended.example": "127.0.0.1"}}}
        dashboard.ask("PATCH", f"block_documents/{engine['id']}", mended)

        dashboard.retry(failed)
        run = dashboard.wait(failed, {"RUNNING"}) and dashboard.wait(failed)

        assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 2)
        steps = {f"{SHOP} · step {number} · {BUSYBOX}": state for number, state in ((1, "Cached"), (2, "Completed"))}
        in_any_case = {"find workspaces": "Completed", "changeset specs": "Completed"}
        eventually(
            lambda: dashboard.tasks(failed, attempt=2),
            {**in_any_case, f"{SHOP} · set-up": "Completed", **steps, f"{SHOP} · diff": "Completed"},
        )
        manifest = dashboard.manifest(failed)
        assert (manifest.state, manifest.changeset_specs) == ("completed", 2)
        assert {result.title: [step.how for step in result.steps] for result in manifest.workspaces} == {
            BILLING: ["executed", "executed"],
            SHOP: ["cached", "executed"],
        }


@pytest.mark.docker
@pytest.mark.flow
class TestRegistering:
    def test_up_says_what_it_did(self, up: tuple[Done, Dashboard]) -> None:
        done, dashboard = up
        said = done.stdout.decode()

        assert done.code == 0, done.stderr
        assert re.search(r"^worker .* 2 batch changes at a time, started; log: ", said, re.M)
        assert f"/v2/deployments/deployment/{dashboard.deployment()['id']}/run\n" in said
        known = dashboard.ask("POST", "work_pools/batchwright/workers/filter", {})
        (name,) = re.findall(r"^worker +([^,]+),", said, re.M)
        assert {each["status"] for each in known if each["name"].startswith(name)} == {"ONLINE"}
        assert {each["name"] for each in known} >= {name, f"{name}-shards"}

    def test_the_deployment_is_what_the_file_says(self, dashboard: Dashboard) -> None:
        found = dashboard.deployment()

        assert found["entrypoint"] == "flows.batch_change.batch_change"
        assert (found["work_pool_name"], found["tags"]) == ("batchwright", ["batchwright"])
        assert found["global_concurrency_limit"]["limit"] == 4
        assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert found["job_variables"] == {
            "env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_CLIENT_MAX_RETRIES": "7"}
        }
        (schedule,) = found["schedules"]
        assert (schedule["slug"], schedule["schedule"]["cron"], schedule["active"]) == (
            "every-monday",
            "0 6 * * 1",
            False,
        )
        assert found["parameters"]["spec"] == DEMO
        (automation,) = dashboard.ask(
            "POST", "automations/filter", {"automations": {"name": {"any_": [CRASH["name"]]}}}
        )
        assert automation["enabled"] is True

    def test_up_again_finds_everything(self, up: tuple[Done, Dashboard], installation: Installation) -> None:
        before = json.loads((installation.home / "worker" / "worker.json").read_text())

        said = installation.command("up").stdout.decode()

        assert re.search(r"^server .*, was there$", said, re.M)
        assert re.search(r"^registered +all was there$", said, re.M)
        assert re.search(r"^worker .* was there; log: ", said, re.M)
        assert json.loads((installation.home / "worker" / "worker.json").read_text()) == before

    def test_what_people_edited_stays_and_what_they_removed_comes_back(
        self, dashboard: Dashboard, installation: Installation
    ) -> None:
        before = dashboard.deployment()
        path = f"deployments/{before['id']}"
        (schedule,) = before["schedules"]
        parameters = before["parameters"]
        removed, edited = (dashboard.block(parameters[name]) for name in ("repositories", "engine"))
        mine = {**parameters, "options": {"workspaces_at_once": 9}}
        limits = {**edited["data"], "memory": "1g"}
        dashboard.ask("DELETE", f"block_documents/{removed['id']}")
        dashboard.ask("PATCH", f"block_documents/{edited['id']}", {"data": limits})
        dashboard.ask("PATCH", f"{path}/schedules/{schedule['id']}", {"active": True})
        dashboard.ask(
            "PATCH", path, {"parameters": mine, "concurrency_limit": 7, "entrypoint": "flows.old.batch_change"}
        )

        entries = installation.command("deploy", "--json").json

        after = dashboard.deployment()
        assert {(entry["name"], entry["done"]) for entry in entries if entry["done"] != "kept"} == {
            ("repository-folder/demo", "created"),
            ("batch-change/batch-change", "updated"),
            ("workspace-shard/workspace-shard", "updated"),
        }
        assert after["entrypoint"] == before["entrypoint"]
        assert after["global_concurrency_limit"]["limit"] == 7
        assert [entry["active"] for entry in after["schedules"]] == [True]
        assert dashboard.block(after["parameters"]["engine"])["data"] == limits
        made = after["parameters"].pop("repositories")
        assert after["parameters"] == {name: value for name, value in mine.items() if name != "repositories"}
        assert made != parameters["repositories"]
        assert dashboard.block(made)["data"] == {"folder": str(installation.home / "demo" / "repositories")}

    def test_what_is_asked_for_now_is_the_default_and_offered_first(
        self, dashboard: Dashboard, installation: Installation
    ) -> None:
        """The form shows the first block type, also if the parameter points to a block of another one."""
        before = dashboard.deployment()

        asked = installation.command("deploy", "--store", "s3://bucket/prefix")
        after = dashboard.deployment()
        dashboard.ask("PATCH", f"deployments/{before['id']}", {"parameters": before["parameters"]})

        assert asked.code == 0
        assert dashboard.block(after["parameters"]["artifacts"])["data"]["bucket"] == "bucket"
        assert after["parameter_openapi_schema"]["properties"]["artifacts"]["anyOf"][0] == {
            "$ref": "#/definitions/S3Artifacts"
        }

    def test_a_block_with_other_settings_is_not_overwritten(
        self, dashboard: Dashboard, installation: Installation, tmp_path: Path
    ) -> None:
        reference = dashboard.deployment()["parameters"]["artifacts"]
        before = dashboard.block(reference)["data"]

        refused = installation.command("deploy", "--store", tmp_path)

        assert refused.code == 2
        assert "there is a block local-artifacts/default with other settings" in refused.error
        assert dashboard.block(reference)["data"] == before


@pytest.mark.docker
@pytest.mark.flow
def test_a_worker_in_the_foreground_ends_when_it_is_asked(dashboard: Dashboard, installation: Installation) -> None:
    with installation.start("worker", environment={"PREFECT_API_URL": dashboard.api}) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)

    assert process.returncode == 0, said + rest


@pytest.mark.docker
@pytest.mark.flow
def test_down_ends_what_runs_and_up_finds_all_of_it_again(dashboard: Dashboard, installation: Installation) -> None:
    """No container stays, and the run says that it was ended: it can be retried."""
    run = dashboard.submit({"spec": SLEEPS})
    dashboard.wait(run, {"RUNNING"})
    eventually(lambda: bool(containers_of(run)), True)

    down = installation.command("down").stdout.decode()
    left = containers_of(run)
    nothing = installation.command("down").stdout.decode()
    again = installation.command("up").stdout.decode()

    assert re.findall(r"^(\w+) +stopped$", down, re.M) == ["worker", "reports", "server"]
    assert re.findall(r"^(\w+) +none ", nothing, re.M) == ["worker", "reports", "server"]
    assert re.search(r"^server .*, started$", again, re.M)
    assert left == []
    assert dashboard.wait(run)["state"]["type"] in {"CRASHED", "CANCELLED"}


CRASH: dict[str, Any] = YAML(typ="safe").load(INFRA / "automations" / "crash-silent-runs.yaml")


def test_no_spec_stands_in_the_deployments_file() -> None:
    """Prefect would take its templates for its own."""
    text = "".join(re.sub("#.*", "", line) for line in (INFRA / "prefect.yaml").read_text().splitlines())

    assert "{{" not in text
    names = [deployment.name for deployment in deployments.read_deployments(INFRA / "prefect.yaml")]
    assert names == ["batch-change", "workspace-shard", "publish-changesets", "refresh-changesets"]


@pytest.mark.parametrize("parameter", ["repositories", "engine", "artifacts", "secrets"])
def test_every_block_can_be_given_by_reference(parameter: str) -> None:
    """Prefect refuses a reference to a block whose fields are all optional, as it could be both."""
    reference = {"$ref": {"block_document_id": "7e6ea1c4-11fd-4da0-ba67-7a3b8e1d6f0c"}}
    values = {"spec": "", **dict.fromkeys(("repositories", "engine", "artifacts", parameter), reference)}

    schema = deployments.form(batch_change, {"repositories": RepositoryList.get_block_type_slug()})

    for ignore_required in (True, False):  # as Prefect does for deployments, and for their runs
        assert validate(values, schema, preprocess=not ignore_required, ignore_required=ignore_required) == []
    assert schema["properties"]["repositories"]["anyOf"][0] == {"$ref": "#/definitions/RepositoryList"}


def test_the_form_has_titles_for_people_in_an_order_and_help_for_each_field() -> None:
    schema = deployments.form(batch_change, {})
    fields = sorted(schema["properties"].values(), key=lambda field: field["position"])
    options = schema["definitions"]["Options"]["properties"].values()

    assert [field["title"] for field in fields[:5]] == ["Spec", "Repositories", "Engine", "Artifacts", "Options"]
    assert all(field["description"] for field in (*fields, *options))
    assert not any("_" in field["title"] for field in (*fields, *options))


@pytest.mark.parametrize("flow", [publish_changesets, refresh_changesets])
def test_code_hosts_can_be_given_by_reference(flow: Flow[..., Any]) -> None:
    """A list of blocks of several types."""
    reference = {"$ref": {"block_document_id": "7e6ea1c4-11fd-4da0-ba67-7a3b8e1d6f0c"}}
    values = {"run": "last", "code_hosts": [reference, reference], "artifacts": reference}
    schema = deployments.form(flow, {"artifacts": LocalArtifacts.get_block_type_slug()})

    assert validate({name: values[name] for name in schema["properties"] if name in values}, schema) == []


def test_silence_is_several_missed_heartbeats_and_no_end_is_silence() -> None:
    """A run whose process is gone on purpose must not be called dead."""
    found = deployments.read_deployments(INFRA / "prefect.yaml")
    (heartbeat,) = {each.work_pool.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for each in found}
    trigger = CRASH["trigger"]

    assert trigger["within"] >= 4 * int(heartbeat)
    assert {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled", "Suspended")} <= set(
        trigger["expect"]
    )
    for deployment in found:
        assert trigger["match_related"]["prefect.resource.id"] == f"prefect.tag.{deployment.tags[0]}"
    deployments.read_automation(INFRA / "automations" / "notify-on-failure.yaml")


def test_a_wheel_has_what_deploy_reads(tmp_path: Path) -> None:
    subprocess.run(
        (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path),
        cwd=INFRA.parent,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")

    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("infra/")}
        spec = archive.read("infra/demo.yaml").decode()

    assert spec == DEMO
    assert names == {
        *("infra/prefect.yaml", "infra/demo.yaml", "infra/demo_repositories.py", "infra/images.py"),
        *("infra/automations/crash-silent-runs.yaml", "infra/automations/notify-on-failure.yaml"),
        "infra/automations/run-on-webhook.yaml",
    }
