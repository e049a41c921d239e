"""Which rules follow a delivery, and which did so before: looked up on a fake instance, with Prefect in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.sourcegraph import SourcegraphInstance
from blocks.webhook_rules import WebhookRule, WebhookRules
from flows.webhook import Receiver
from flows.webhook_guard import Believed, LastEmitted
from flows.webhook_metrics import Metrics
from flows.webhook_runs import Runs, Started
from flows.webhook_server import FixedRules
from tests.instance.launcher import Account, RunningInstance

SECRET, DEPLOYMENT = "a-secret", "listens/hooked"


class MemoryRuns(Runs):
    """Keeps runs and events in memory, as Prefect does: one for each key."""

    def __init__(self) -> None:
        self.runs: dict[str, frozenset[str]] = {}
        self.events: dict[str, Mapping[str, Any]] = {}

    def start(self, deployment: str, parameters: Mapping[str, Any], *, key: str, tags: Sequence[str] = ()) -> Started:
        key = f"{deployment}:{key}"
        new = key not in self.runs
        self.runs.setdefault(key, frozenset(tags))
        return Started(deployment, key, new)

    def last_tags(self, deployment: str, *tags: str) -> frozenset[str]:
        return next((found for found in reversed(self.runs.values()) if found.issuperset(tags)), frozenset())

    def emit(self, event: str, resource: str, payload: Mapping[str, Any], *, key: str) -> None:
        self.events[key] = payload


@dataclass
class World:
    """A receiver with rules, and the instance that it believes."""

    instance: RunningInstance
    ada: Account
    rules: WebhookRules
    runs: MemoryRuns = field(default_factory=MemoryRuns)

    def __post_init__(self) -> None:
        self.receiver = Receiver(FixedRules({"instance": self.rules}), self.runs, Metrics())

    def apply(self, text: str, at: str) -> str:
        """Apply a batch spec, and deliver what the instance says of that; the outcome."""
        api = SourcegraphInstance(url=self.instance.url, token=SecretStr(self.ada.token)).api()
        namespace = base64.b64encode(f"User:{self.ada.id}".encode()).decode()
        api.apply(api.create_batch_spec(namespace, f"name: guarded\n{text}\n", []).id)
        return self.deliver("batch_change:apply", at)

    def close(self, at: str) -> str:
        self.instance.sql("UPDATE batch_changes SET closed_at = '2026-01-01T00:00:00Z'")
        return self.deliver("batch_change:close", at)

    def deliver(self, event: str, at: str) -> str:
        (row,) = self.instance.sql("SELECT id FROM batch_changes")
        id = base64.b64encode(f"BatchChange:{row['id']}".encode()).decode()
        body = json.dumps({"id": id, "updated_at": at, "last_applied_at": at}).encode()
        headers = {
            "content-type": "application/json",
            "x-sourcegraph-webhook-event-type": event,
            "x-sourcegraph-webhook-signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        }
        return self.receiver.take("instance", self.rules, headers, body)[1].outcome


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("instance")) as running:
        yield running


@pytest.fixture(scope="module")
def ada(instance: RunningInstance) -> Account:
    return instance.add_user("ada")


def world_of(instance: RunningInstance, ada: Account, *rules: dict[str, Any]) -> World:
    for table in ("batch_changes", "batch_specs"):
        instance.sql(f"DELETE FROM {table}")
    asked = SourcegraphInstance(url=instance.url, token=SecretStr(ada.token))
    followed = [WebhookRule(event="batch_change:*", **rule) for rule in rules]
    return World(
        instance, ada, WebhookRules(kind="sourcegraph", secrets=[SecretStr(SECRET)], instance=asked, rules=followed)
    )


def test_each_rule_of_a_deployment_has_a_run_and_a_memory_of_its_own(instance: RunningInstance, ada: Account) -> None:
    first, second = ({"deployment": DEPLOYMENT, "parameters": {"spec": name}} for name in ("one", "two"))
    world = world_of(instance, ada, first, second)

    outcomes = [world.apply("# 1", "t1"), world.deliver("batch_change:apply", "t1"), world.apply("# 1", "t2")]

    assert outcomes == ["started", "ignored", "ignored"]
    assert len(world.runs.runs) == 2
    assert {tag for tags in world.runs.runs.values() for tag in tags if tag.startswith("webhook-rule:")} == {
        f"webhook-rule:{rule.mark}" for rule in world.rules.rules
    }


def test_a_batch_change_that_is_closed_after_it_ran_is_no_loop(instance: RunningInstance, ada: Account) -> None:
    """And one that is applied again after that is none either."""
    world = world_of(instance, ada, {"deployment": DEPLOYMENT})

    outcomes = [world.apply("# 1", "t1"), world.close("t2"), world.close("t2"), world.apply("# 1", "t3")]

    assert outcomes == ["started", "started", "repeated", "started"]


def test_a_spec_that_was_emitted_last_is_not_emitted_again(instance: RunningInstance, ada: Account) -> None:
    """Whoever listens may apply it; what the rule starts besides goes its own way."""
    emits = {"emit_event": True, "parameters": {"spec": "{instance.spec}"}}
    world = world_of(instance, ada, emits)

    applied = ["# 1", "# 1", "# 2", "# 1"]
    outcomes = [world.apply(text, f"t{number}") for number, text in enumerate(applied)]

    assert outcomes == ["started", "ignored", "started", "started"]
    assert [str(event["spec"]).split()[-1] for event in world.runs.events.values()] == ["1", "2", "1"]


def test_each_rule_emits_an_event_of_its_own(instance: RunningInstance, ada: Account) -> None:
    first, second = ({"emit_event": True, "parameters": {"spec": name}} for name in ("one", "two"))
    world = world_of(instance, ada, first, second)

    world.apply("# 1", "t1")

    assert [event["spec"] for event in world.runs.events.values()] == ["one", "two"]


def test_only_so_many_emitted_specs_are_remembered() -> None:
    rule, last = WebhookRule(event="x", emit_event=True), LastEmitted(most=2)
    believed = [Believed({}, f"batch-change:{number}", "batch-spec:1") for number in range(3)]

    for each in believed:
        last.keep("instance", rule, each)

    assert [last.holds("instance", rule, each) for each in believed] == [False, True, True]
