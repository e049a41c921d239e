"""The webhook service as it is started, with a real Prefect server: what starts a run, and what never does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from pydantic import SecretStr, ValidationError

from blocks.payload_templates import FieldMissing, parse
from blocks.sourcegraph import SourcegraphInstance
from blocks.webhook_rules import WebhookRule, WebhookRules
from flows.cli.errors import BadInput
from flows.cli.webhook import rules_from_file
from flows.deployments import read_automation
from flows.server import LocalServer
from flows.webhook import Receiver, Refused
from flows.webhook_metrics import Metrics
from flows.webhook_runs import Runs
from flows.webhook_senders import SENDERS
from flows.webhook_server import FixedRules
from tests.harness import COMMAND, Api, Installation, eventually
from tests.instance.launcher import Account, RunningInstance
from tests.ports import free_port

pytestmark = pytest.mark.flow

SECRET, OLD = "new-secret", "old-secret"
DEPLOYMENT = "listens/hooked"
MOST_BYTES = 20_000
NAME = "{payload.repository.full_name}"
SPEC = "name: hooked\ndescription: ${{ repository.name }} {{ 1+1 }} {payload.name}\n"
PUSH = {"ref": "refs/heads/main", "after": "1" * 40, "repository": {"full_name": "acme/shop"}}


@dataclass(frozen=True)
class Service:
    """A running webhook service, and the Prefect that it talks to."""

    url: str
    api: str
    log: Path

    def send(self, sender: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        headers = {"Content-Type": "application/json", **headers}
        return httpx.post(f"{self.url}/webhooks/{sender}", content=body, headers=headers, timeout=60)

    def github(self, payload: object, *, event: str = "push", delivery: str = "", **more: str) -> httpx.Response:
        body = json.dumps(payload).encode()
        return self.send("github", body, github_headers(body, event=event, delivery=delivery, **more))

    def sourcegraph(
        self, payload: object, *, event: str = "batch_change:apply", secret: str = SECRET
    ) -> httpx.Response:
        body = json.dumps(payload).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Sourcegraph-Webhook-Event-Type": event, "X-Sourcegraph-Webhook-Signature": signature}
        return self.send("instance", body, headers)

    def prefect(self, method: str, path: str, body: object = None) -> Any:
        return Api(self.api).ask(method, path, body)

    def run(self, answer: httpx.Response) -> dict[str, Any]:
        """The one flow run that a delivery started."""
        assert answer.status_code in (200, 202), answer.text
        (run,) = answer.json()["runs"]
        return dict(self.prefect("GET", f"flow_runs/{run['flow_run']}"))

    def count(self) -> int:
        """Flow runs of the deployment."""
        return int(self.prefect("POST", "flow_runs/count", {"flow_runs": {"tags": {"all_": ["webhook"]}}}))


def github_headers(body: bytes, *, event: str = "push", delivery: str = "", secret: str = SECRET) -> dict[str, str]:
    signature = f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
    headers = {"X-GitHub-Event": event, "X-Hub-Signature-256": signature}
    return {**headers, "X-GitHub-Delivery": delivery} if delivery else headers


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("instance")) as running:
        yield running


@pytest.fixture(scope="module")
def users(instance: RunningInstance) -> tuple[Account, Account]:
    """A person who applies batch changes, and the user that batchwright has."""
    return instance.add_user("ada"), instance.add_user("service")


@pytest.fixture(scope="module")
def service(
    installation: Installation,
    prefect_server: LocalServer,
    instance: RunningInstance,
    users: tuple[Account, Account],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """`batchwright webhook` with three senders: rules from files, and from a stored block."""
    folder, port = tmp_path_factory.mktemp("webhook"), free_port()
    make_deployment(prefect_server.api_url)
    rules = {
        "kind": "sourcegraph",
        "secrets": [OLD, SECRET],
        "instance": {"url": instance.url, "token": users[1].token, "patience_seconds": 0.1},
        "own_user_ids": [str(users[1].id)],
        "rules": [
            {"event": "batch_change:*", "deployment": DEPLOYMENT, "parameters": {"spec": "{instance.spec?}"}},
            {"event": "changeset:update", "emit_event": True, "parameters": {"spec": "{payload.title}"}},
        ],
    }
    (folder / "instance.yaml").write_text(json.dumps(rules))
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        github_rules().save("github", overwrite=True)
        gitlab = WebhookRule(event="Push Hook", deployment=DEPLOYMENT, parameters={"spec": "{payload.ref}"})
        secrets = [SecretStr(SECRET), SecretStr(STANDARD)]
        WebhookRules(kind="gitlab", secrets=secrets, rules=[gitlab]).save("gitlab", overwrite=True)
    log = folder / "log"
    named = (f"--rules={folder / 'instance.yaml'}", "--rules=github", "--rules=gitlab")
    environment = {"PREFECT_API_URL": prefect_server.api_url}
    with log.open("w") as file:
        process = subprocess.Popen(
            [COMMAND, "webhook", *named, f"--port={port}"],
            cwd=folder,
            env=installation.environment(environment),
            stdout=file,
            stderr=file,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, log)
        yield Service(url, prefect_server.api_url, log)
    finally:
        process.terminate()
        assert process.wait(60) in (0, -15)


def github_rules() -> WebhookRules:
    return WebhookRules(
        kind="github",
        secrets=[SecretStr(SECRET)],
        most_bytes=MOST_BYTES,
        deliveries_per_minute=10_000,
        rules=[
            WebhookRule(
                event="push",
                where={"payload.ref": "refs/heads/*"},
                deployment=DEPLOYMENT,
                parameters={
                    "spec": "{payload.repository.full_name}",
                    "options": {"only": "*/{payload.repository.full_name}"},
                },
            ),
            *(
                WebhookRule(event="release", deployment=DEPLOYMENT, parameters={"spec": spec})
                for spec in ("first", "second")
            ),
        ],
    )


STANDARD = "whsec_" + base64.b64encode(b"a signing token").decode()


def make_deployment(api: str) -> None:
    """A deployment without a worker: its runs stay Scheduled."""
    flow = Api(api).post("flows/", {"name": "listens"})["id"]
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "string", "maxLength": 10_000}, "options": {"type": "object"}},
    }
    wanted = {"name": "hooked", "flow_id": flow, "parameter_openapi_schema": schema, "enforce_parameter_schema": True}
    Api(api).post("deployments/", wanted)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            httpx.get(f"{url}/healthz", timeout=30)
            return
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


class TestStarting:
    def test_an_event_starts_a_run_with_its_fields(self, service: Service) -> None:
        run = service.run(service.github(PUSH, delivery="d-1"))

        assert run["parameters"] == {"spec": "acme/shop", "options": {"only": "*/acme/shop"}}
        assert {"webhook", "webhook:github"} <= set(run["tags"])

    def test_a_repeated_delivery_starts_nothing_twice(self, service: Service) -> None:
        first = service.github({**PUSH, "after": "2"}, delivery="d-2")
        again = service.github({**PUSH, "after": "2"}, delivery="d-2")

        assert (first.status_code, first.json()["outcome"]) == (202, "started")
        assert (again.status_code, again.json()["outcome"]) == (200, "repeated")
        assert service.run(first)["id"] == service.run(again)["id"]

    def test_two_rules_for_one_deployment_start_two_runs_and_each_once(self, service: Service) -> None:
        started, again = (service.github(PUSH, event="release", delivery="d-release").json() for _ in range(2))

        runs = [service.prefect("GET", f"flow_runs/{run['flow_run']}") for run in started["runs"]]
        assert [run["parameters"]["spec"] for run in runs] == ["first", "second"]
        assert again["outcome"] == "repeated"
        assert [run["flow_run"] for run in again["runs"]] == [run["id"] for run in runs]

    def test_not_even_at_the_same_moment(self, service: Service) -> None:
        before = service.count()
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: service.github({**PUSH, "after": "3"}, delivery="d-3"), range(6)))

        ids = {run["flow_run"] for answer in answers if answer.status_code != 503 for run in answer.json()["runs"]}
        assert len(ids) == 1
        assert service.count() == before + 1

    @pytest.mark.parametrize(
        ("event", "payload"),
        [("ping", {"zen": "x"}), ("push", {**PUSH, "ref": "refs/tags/v1"}), ("push", {"no": "ref"})],
    )
    def test_what_no_rule_is_for_starts_nothing(self, service: Service, event: str, payload: object) -> None:
        answer = service.github(payload, event=event)

        assert (answer.status_code, answer.json()["outcome"]) == (200, "ignored")

    def test_a_field_that_is_missing_is_told(self, service: Service) -> None:
        answer = service.github({"ref": "refs/heads/main"})

        assert answer.status_code == 422
        assert answer.json() == {"error": "there is no field payload.repository.full_name"}

    def test_parameters_that_the_deployment_does_not_take_are_told(self, service: Service) -> None:
        answer = service.github({**PUSH, "repository": {"full_name": "x" * 12_000}})

        assert answer.status_code == 422

    def test_while_prefect_has_no_such_deployment_the_sender_is_to_come_again(self, service: Service) -> None:
        found = service.prefect("GET", f"deployments/name/{DEPLOYMENT}")
        service.prefect("DELETE", f"deployments/{found['id']}")
        try:
            away = service.github({**PUSH, "after": "4"}, delivery="d-4")
        finally:
            make_deployment(service.api)
        later = service.github({**PUSH, "after": "4"}, delivery="d-4")

        assert (away.status_code, away.headers["Retry-After"]) == (503, "30")
        assert later.status_code == 202

    def test_while_prefect_is_away_the_sender_is_to_come_again(self) -> None:
        with temporary_settings(
            {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
        ):
            runs = Runs()
            receiver = Receiver(FixedRules({"github": github_rules()}), runs, Metrics())
            body = json.dumps(PUSH).encode()
            headers = {name.lower(): value for name, value in github_headers(body).items()}

            with pytest.raises(Refused) as refused:
                receiver.take("github", github_rules(), {**headers, "content-type": "application/json"}, body)

            assert (refused.value.status, refused.value.retry_after_seconds) == (503, 30)
            assert not runs.is_reachable()

    def test_gitlab_is_known_by_its_token_or_its_signature(self, service: Service) -> None:
        body, at = json.dumps({"ref": "refs/heads/main", "x": time.time()}).encode(), str(int(time.time()))
        digest = hmac.new(b"a signing token", f"msg_1.{at}.".encode() + body, hashlib.sha256).digest()
        signed = {"webhook-id": "msg_1", "webhook-timestamp": at}
        signed["webhook-signature"] = f"v1,AAAA v1,{base64.b64encode(digest).decode()}"
        event = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": "u-1"}

        by_token = service.send("gitlab", body, {**event, "X-Gitlab-Token": SECRET})
        again = service.send("gitlab", body, {**event, "X-Gitlab-Token": SECRET})
        by_signature = service.send("gitlab", body, {**event, **signed})
        forged = [
            service.send("gitlab", body, {**event, "X-Gitlab-Token": "wrong"}),
            service.send("gitlab", body, event),
            service.send("gitlab", body, {**event, **signed, "webhook-id": "msg_2"}),
            # A signature that is wrong is not made good by a token that is right.
            service.send("gitlab", body, {**event, "X-Gitlab-Token": SECRET, "webhook-signature": "v1,x"}),
        ]

        assert [answer.status_code for answer in (by_token, again, by_signature)] == [202, 200, 202]
        assert [answer.status_code for answer in forged] == [401] * 4

    def test_rules_edited_in_the_dashboard_count_soon(self, service: Service) -> None:
        """A secret is rotated: from the moment on that the block has it, the new one is taken."""
        with temporary_settings({PREFECT_API_URL: service.api}):
            rules = github_rules()
            rules.secrets.append(SecretStr("rotated"))
            rules.save("github", overwrite=True)

        eventually(
            lambda: service.github({**PUSH, "after": "5"}, delivery="d-5", secret="rotated").status_code in (200, 202),
            True,
        )


class TestRefusing:
    @pytest.mark.parametrize(
        "headers",
        [
            {"X-Hub-Signature-256": ""},
            {"X-Hub-Signature-256": "sha256="},
            {"X-Hub-Signature-256": "sha256=" + "0" * 64},
            {"X-Hub-Signature-256": "sha1=" + "0" * 40},
            {"X-Hub-Signature-256": b"sha256=\xff\xfe".decode("latin-1")},
            {"X-Hub-Signature-256": github_headers(json.dumps(PUSH).encode(), secret="other")["X-Hub-Signature-256"]},
            {"X-Hub-Signature-256": github_headers(json.dumps(PUSH).encode())["X-Hub-Signature-256"].upper()},
            {"X-Hub-Signature-256": github_headers(json.dumps(PUSH).encode() + b" ")["X-Hub-Signature-256"]},
        ],
    )
    def test_a_forged_delivery_starts_nothing(self, service: Service, headers: dict[str, str]) -> None:
        before = service.count()
        raw = {"X-GitHub-Event": b"push", **{name: value.encode("latin-1") for name, value in headers.items()}}

        answer = httpx.post(
            f"{service.url}/webhooks/github",
            content=json.dumps(PUSH).encode(),
            headers={"Content-Type": b"application/json", **raw},
            timeout=60,
        )

        assert (answer.status_code, answer.json()) == (401, {"error": "the signature is wrong or missing"})
        assert service.count() == before

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a": NaN}', b"[" * 5000, b'{"a":' * 3000, b"1" * 5000],
    )
    def test_a_body_that_is_no_json_object_is_malformed(self, service: Service, body: bytes) -> None:
        answer = service.send("github", body, github_headers(body))

        assert answer.status_code == 400
        assert answer.json()["error"] in ("the body is not JSON", "the body is no JSON object")

    def test_a_name_of_an_event_must_be_one(self, service: Service) -> None:
        body = json.dumps(PUSH).encode()

        for event in ("", "x" * 101):
            assert service.send("github", body, github_headers(body, event=event)).status_code == 400

    def test_only_json_that_is_not_compressed_is_taken(self, service: Service) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded"}

        assert service.send("github", b"payload=x", {**github_headers(b"payload=x"), **form}).status_code == 415
        assert service.send("github", b"x", {**github_headers(b"x"), "Content-Encoding": "gzip"}).status_code == 415

    def test_an_unknown_sender_is_not_there(self, service: Service) -> None:
        assert service.send("nobody", b"{}", {}).status_code == 404
        assert service.send("github/../instance", b"{}", {}).status_code in (401, 404)

    def test_a_body_that_is_too_large_is_not_read(self, service: Service) -> None:
        body = b"x" * (MOST_BYTES + 1)

        def pieces() -> Iterator[bytes]:
            for _ in range(100):
                yield b"x" * MOST_BYTES  # chunked: nothing says how large it is

        assert service.send("github", body, github_headers(body)).status_code == 413
        try:
            answer = httpx.post(f"{service.url}/webhooks/github", content=pieces(), timeout=60)
        except httpx.TransportError:
            return  # closed while we were still sending
        assert answer.status_code == 413

    def test_slow_senders_are_cut_off(self, service: Service) -> None:
        """Neither a body nor the headers of a request may take for ever; the service goes on meanwhile."""
        head = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n"
        port = int(service.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as in_head,
            socket.create_connection(("127.0.0.1", port), timeout=60) as in_body,
        ):
            in_head.sendall(head)
            in_body.sendall(head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")

            assert service.github({"ref": "refs/tags/x"}).status_code == 200
            assert b" 408 " in in_body.recv(1000)
            assert in_head.recv(1000) == b""

    def test_too_many_deliveries_are_to_come_again_later(self, service: Service) -> None:
        """Of those that could start something: forged ones do not use up the room of others."""
        with temporary_settings({PREFECT_API_URL: service.api}):
            rules = github_rules()
            rules.deliveries_per_minute = 2
            rules.save("github", overwrite=True)
        answers = []

        def limited() -> bool:
            answers.append(service.github({**PUSH, "after": str(time.time())}))
            return answers[-1].status_code == 429

        eventually(limited, True)
        assert int(answers[-1].headers["Retry-After"]) > 0
        with temporary_settings({PREFECT_API_URL: service.api}):
            github_rules().save("github", overwrite=True)
        eventually(lambda: service.github({**PUSH, "after": str(time.time())}).status_code, 202)


class TestInjection:
    """Prefect's API renders {"__prefect_kind": ...} in parameters. A payload puts texts in, and nothing else."""

    @pytest.mark.parametrize(
        "value",
        [
            "{{ 1+1 }}",
            '{"__prefect_kind": "jinja", "template": "{{ 1+1 }}"}',
            "{payload.ref}",
            "${{ repository.name }}",
            "{{ prefect.variables.x }}",
            "line one\nline two\r\n\t\u2028\x1b[31m",
        ],
    )
    def test_texts_arrive_as_they_are(self, service: Service, value: str) -> None:
        run = service.run(service.github({**PUSH, "repository": {"full_name": value}}))

        assert run["parameters"]["spec"] == value

    @pytest.mark.parametrize(
        "value",
        [
            {"__prefect_kind": "jinja", "template": "{{ 1+1 }}"},
            {"__prefect_kind": "workspace_variable", "variable_name": "x"},
            {"$ref": {"block_document_id": "00000000-0000-0000-0000-000000000000"}},
            ["{{ 1+1 }}"],
            None,
            "nul \0",
            "half \ud800",
        ],
    )
    def test_what_is_no_text_is_refused(self, service: Service, value: object) -> None:
        before = service.count()

        assert service.github({**PUSH, "repository": {"full_name": value}}).status_code == 422
        assert service.count() == before

    def test_rules_cannot_ask_prefect_to_render(self) -> None:
        bad: list[dict[str, Any]] = [
            {"spec": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}},
            {"repositories": {"$ref": {"block_document_id": "{payload.id}"}}},
            {"spec": "{secrets.token}"},
            {"spec": "{payload.__class__.x()}"},
            {"spec": "{payload.name"},
        ]

        for parameters in bad:
            with pytest.raises(ValidationError):
                WebhookRule(event="push", deployment="a/b", parameters=parameters)

    @settings(max_examples=40)
    @given(st.text())
    def test_a_rendered_text_is_never_looked_at_again(self, value: str) -> None:
        try:
            rendered = parse("a {payload.x} {{b}} {payload.x}").render({"payload": {"x": value}})
        except FieldMissing:
            assert "\0" in value
            return

        assert rendered == f"a {value} {{b}} {value}"


class TestInstance:
    """The fake instance sends real webhooks; what they say is looked up there."""

    @pytest.fixture(autouse=True)
    def _hook(self, service: Service, instance: RunningInstance) -> None:
        instance.sql("DELETE FROM webhooks")
        instance.sql("DELETE FROM webhook_logs")
        for event in ("batch_change:apply", "batch_change:close"):
            instance.admin("POST", "webhooks", url=f"{service.url}/webhooks/instance", secret=SECRET, event=event)

    def apply(self, instance: RunningInstance, user: Account, text: str) -> None:
        api = SourcegraphInstance(url=instance.url, token=SecretStr(user.token)).api()
        api.apply(api.create_batch_spec(self.namespace(instance), text, []).id)

    def namespace(self, instance: RunningInstance) -> str:
        return base64.b64encode(f"Org:{self.organization(instance)}".encode()).decode()

    def organization(self, instance: RunningInstance) -> int:
        found = instance.sql("SELECT id FROM organizations")
        return int(found[0]["id"] if found else instance.admin("POST", "organizations/acme", ["ada", "service"]))

    def logs(self, instance: RunningInstance, count: int) -> list[tuple[int, dict[str, Any]]]:
        """The service's answers to the first deliveries, as the instance logged them."""
        found = "SELECT status, answer FROM webhook_logs ORDER BY id"
        eventually(lambda: len(instance.sql(found)) >= count, True)
        return [(row["status"], json.loads(row["answer"])) for row in instance.sql(found)]

    def test_an_applied_batch_change_is_run_with_its_spec_and_not_again_for_what_we_apply(
        self, service: Service, instance: RunningInstance, users: tuple[Account, Account]
    ) -> None:
        """Four times: by a person; by us, the same spec; by a person, the same; by a person, another one."""
        ada, ours = users
        texts = [SPEC, SPEC, SPEC, SPEC + "# changed\n"]
        for number, (user, text) in enumerate(zip((ada, ours, ada, ada), texts, strict=True), 1):
            self.apply(instance, user, text)
            answers = self.logs(instance, number)
            if number < len(texts):
                time.sleep(1.1)  # the instance writes times in seconds

        assert [answer["outcome"] for _, answer in answers] == ["started", "ignored", "ignored", "started"]
        assert [answer["reason"] for _, answer in answers[1:3]] == [
            "one of our own users applied it",
            "the last run had the same batch spec",
        ]
        ids = [answer["runs"][0]["flow_run"] for _, answer in (answers[0], answers[3])]
        specs = [service.prefect("GET", f"flow_runs/{id}")["parameters"]["spec"] for id in ids]
        assert specs == [texts[0], texts[3]]

    def test_an_event_that_was_relabelled_starts_nothing(
        self, service: Service, instance: RunningInstance, users: tuple[Account, Account]
    ) -> None:
        """No signature covers the event's name: who has caught an apply could send it as a delete."""
        instance.sql("DELETE FROM webhooks")
        self.apply(instance, users[0], SPEC.replace("hooked", "relabelled"))
        body = instance.sql("SELECT body FROM webhook_jobs ORDER BY id DESC LIMIT 1")[0]["body"]

        for event in ("batch_change:delete", "batch_change:close"):
            answer = service.sourcegraph(json.loads(body), event=event)
            assert (answer.status_code, answer.json()["outcome"]) == (200, "ignored")

    def test_a_batch_change_that_is_not_there_starts_nothing(self, service: Service) -> None:
        payload = {"id": base64.b64encode(b"BatchChange:999").decode(), "updated_at": "x"}

        assert service.sourcegraph(payload).json()["reason"] == "the instance has no such batch change"

    def test_while_the_instance_is_away_the_delivery_is_to_come_again(
        self, service: Service, instance: RunningInstance, users: tuple[Account, Account]
    ) -> None:
        instance.fault("status", "graphql", status=503, times=60)
        payload = {"id": base64.b64encode(b"BatchChange:1").decode(), "last_applied_at": "2026-01-01T00:00:00Z"}

        answer = service.sourcegraph(payload)

        instance.end_faults()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")

    def test_secrets_are_rotated_without_a_gap(self, service: Service) -> None:
        payload = {"id": base64.b64encode(b"BatchChange:999").decode()}

        statuses = [service.sourcegraph(payload, secret=secret).status_code for secret in (OLD, SECRET, "other")]

        assert statuses == [200, 200, 401]

    def test_the_golden_vector_of_the_signature(self) -> None:
        body = b'{"id":"QmF0Y2hDaGFuZ2U6MQ=="}'
        signature = "ffc1b19badf60ff0daeec033a4dd661385d21ee3c3b82ca22b45831d3547de9d"
        sender = SENDERS["sourcegraph"]

        for text, genuine in (
            (signature, True),
            (f"sha256={signature}", False),
            (signature.upper(), False),
            ("", False),
        ):
            headers = {"x-sourcegraph-webhook-signature": text}
            assert sender.is_genuine(headers, body, [b"other", b"secret"]) is genuine

    def test_an_automation_does_the_same_through_an_event(self, service: Service) -> None:
        """infra/automations/run-on-webhook.yaml, on the real server; the spec's own templates arrive untouched."""
        automation = read_automation(Path(__file__).parent.parent / "infra" / "automations" / "run-on-webhook.yaml")
        content = automation.model_dump(mode="json", exclude_unset=True)
        content["actions"][0]["deployment_id"] = service.prefect("GET", f"deployments/name/{DEPLOYMENT}")["id"]
        made = service.prefect("POST", "automations/", content)

        def runs(title: str) -> list[str]:
            """Those that come of it within ten seconds."""
            deadline = time.monotonic() + 10
            while True:
                found = service.prefect("POST", "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 200})
                started = [run["id"] for run in found if run["parameters"].get("spec") == title]
                if started or time.monotonic() > deadline:
                    return started
                time.sleep(0.5)

        try:
            for _ in range(6):  # Prefect answers before it has taken a new automation in, and what comes then is lost
                title = f"{SPEC}# {time.time()}"
                answer = service.sourcegraph({"id": "x", "updated_at": title, "title": title}, event="changeset:update")
                if runs(title):
                    break
            assert answer.json() == {"outcome": "started", "reason": "", "runs": []}
            assert len(runs(title)) == 1
        finally:
            service.prefect("DELETE", f"automations/{made['id']}")


class TestWatching:
    def test_it_counts_what_came_and_what_became_of_it(self, service: Service) -> None:
        service.github({"ref": "refs/tags/x"}, event="made-up-event")
        service.send("made-up-sender", b"{}", {})

        text = httpx.get(f"{service.url}/metrics", timeout=60).text

        assert re.search(r'deliveries_total{event="push",outcome="started",sender="github"} [1-9]', text)
        assert re.search(r'deliveries_total{event="other",outcome="forged",sender="github"} [1-9]', text)
        assert re.search(r'runs_total{deployment="listens/hooked",sender="github"} [1-9]', text)
        assert "batchwright_webhook_prefect_up 1.0" in text
        assert "made-up" not in text

    def test_it_says_whether_it_and_prefect_live(self, service: Service) -> None:
        assert httpx.get(f"{service.url}/healthz", timeout=60).json() == {"status": "ok", "prefect": "reachable"}

    def test_its_log_holds_no_secret_and_no_payload(self, service: Service) -> None:
        service.github({**PUSH, "repository": {"full_name": "a-private-name"}})

        log = service.log.read_text()
        assert "started" in log
        for text in (SECRET, OLD, "a-private-name", "sha256="):
            assert text not in log


def test_it_keeps_to_its_own_openapi_document(service: Service) -> None:
    """schemathesis makes requests from the document, good and bad ones, and checks the answers against it."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=schema.as_strategy())
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(timeout=60)

    holds()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=300), event=st.sampled_from(["push", "x"]), genuine=st.booleans())
def test_no_bytes_are_too_much_for_it(service: Service, body: bytes, event: str, genuine: bool) -> None:
    headers = github_headers(body, event=event, secret=SECRET if genuine else "other")

    assert service.send("github", body, headers).status_code == (400 if genuine else 401)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=_JSON)
def test_no_payload_is_too_much_for_it(service: Service, value: object) -> None:
    """Whatever stands in the field that becomes a parameter: a text is passed on as it is, or it is refused."""
    answer = service.github({**PUSH, "repository": {"full_name": value}})

    assert answer.status_code in (200, 202, 422), answer.text
    if isinstance(value, str) and answer.status_code != 422:
        assert service.run(answer)["parameters"]["spec"] == value


class TestRulesFromFiles:
    """What is wrong with a file is told before anything listens, and without quoting it: it holds secrets."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("kind: github\nsecrets: [hush\n", "not valid YAML"),
            ("- hush\n", "no mapping"),
            ("kind: gitea\nsecrets: [hush]\n", "kind: Input should be"),
            ("kind: github\nsecrets: []\n", "secrets: List should have at least 1 item"),
            ("kind: github\nsecrets: ['']\n", "a secret is empty"),
            ("kind: github\nsecrets: [hush]\nrules: [{event: push}]\n", "does nothing"),
            ("kind: github\nsecrets: [hush]\nrules: [{event: push, deployment: x}]\n", "write flow/deployment"),
            (
                "kind: github\nsecrets: [hush]\nrules: [{event: push, deployment: a/b, where: {ref: x}}]\n",
                "is no field",
            ),
        ],
    )
    def test_a_fault_is_told(self, tmp_path: Path, text: str, said: str) -> None:
        file = tmp_path / "rules.yaml"
        file.write_text(text)

        with pytest.raises(BadInput) as raised:
            rules_from_file(file)

        assert said in str(raised.value)
        assert "hush" not in str(raised.value).replace(str(file), "")

    def test_the_example_can_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SRC_ACCESS_TOKEN", "token")

        rules = rules_from_file(Path(__file__).parent.parent / "infra" / "webhook-rules.yaml")

        assert rules.rules[0].parameters == {"spec": "{instance.spec}", "upload": "apply"}
        assert rules.instance is not None
        assert rules.instance.url == "https://sourcegraph.example.com"
