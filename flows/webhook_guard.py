"""What a delivery from an instance is believed: the batch change is looked up, and our own changes start nothing.

A flow that applies a batch change causes an event about it, which would start the flow, and so on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from blocks.instance_errors import InstanceTrouble
from blocks.webhook_rules import WebhookRule, WebhookRules

from .webhook_runs import Runs

MOST_PATIENCE_SECONDS = 5.0
"""With an instance that is asked while a delivery waits for its answer."""

_EXPECTED_STATES = {
    "batch_change:apply": ("OPEN", "DRAFT"),
    "batch_change:close": ("CLOSED",),
}


class InstanceAway(Exception):
    """The instance cannot be asked now."""


@dataclass(frozen=True)
class Ignored:
    """Nothing is to be started, for this reason."""

    reason: str


@dataclass(frozen=True)
class Believed:
    """The delivery says what is so. ``fields`` are for templates, below `instance`."""

    fields: Mapping[str, str] = field(default_factory=dict)
    batch_change: str = ""
    """The tag of runs for it; "" if it is not known."""
    applied_spec: str = ""
    """The tag of runs for this batch spec, if the delivery says that it was applied: then a run of ours may be why."""

    @property
    def tags(self) -> tuple[str, ...]:
        """For the run."""
        return tuple(tag for tag in (self.batch_change, self.applied_spec) if tag)


def examine(rules: WebhookRules, event: str, payload: Mapping[str, Any]) -> Believed | Ignored:
    """Look at a delivery of an instance. Raises InstanceAway."""
    own = {_user_number(each) for each in rules.own_user_ids}
    if _user_number(payload.get("last_applier_user_id")) in own - {""}:
        return Ignored("one of our own users applied it")
    if rules.instance is None or not event.startswith("batch_change:"):
        return Believed()
    id = payload.get("id")
    if not isinstance(id, str):
        return Ignored("it names no batch change")
    # Whoever sends waits meanwhile, and sends again anyway.
    impatient = {
        "patience_seconds": min(rules.instance.patience_seconds, MOST_PATIENCE_SECONDS),
        "timeout_seconds": min(rules.instance.timeout_seconds, MOST_PATIENCE_SECONDS),
    }
    try:
        found = rules.instance.model_copy(update=impatient).api().batch_change(id)
    except InstanceTrouble as error:
        raise InstanceAway(str(error)) from error
    if found is None:
        return Believed() if event == "batch_change:delete" else Ignored("the instance has no such batch change")
    if event == "batch_change:delete":
        return Ignored("the batch change is still there")
    if found.state and found.state not in _EXPECTED_STATES.get(event, (found.state,)):
        return Ignored(f"the batch change is {found.state}")
    digest = hashlib.sha256(found.spec.encode("utf-8", "surrogateescape")).hexdigest()
    fields = {"spec": found.spec, "spec_id": found.spec_id, "state": found.state, "spec_digest": digest}
    applied_spec = f"batch-spec:{digest[:16]}" if event == "batch_change:apply" else ""
    return Believed(fields, f"batch-change:{id}", applied_spec)


def tag_of(rule: WebhookRule) -> str:
    """The tag of the runs that a rule starts."""
    return f"webhook-rule:{rule.mark}"


def ran_last(runs: Runs, rule: WebhookRule, believed: Believed) -> bool:
    """Whether the rule's last run for this batch change had the batch spec: then this is about what it applied itself.

    Raises PrefectAway.
    """
    if not believed.applied_spec:
        return False
    return believed.applied_spec in runs.last_tags(rule.deployment, believed.batch_change, tag_of(rule))


class LastEmitted:
    """The batch spec of each rule's last event for a batch change, as runs have it in their tags. For many threads.

    It is forgotten with the process, and beyond so many: then one event more is emitted, and no loop comes of that.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._specs: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self._lock = Lock()

    def holds(self, sender: str, rule: WebhookRule, believed: Believed) -> bool:
        """Whether the rule's last event for this batch change had the batch spec."""
        with self._lock:
            return (
                bool(believed.applied_spec) and self._specs.get(_key(sender, rule, believed)) == believed.applied_spec
            )

    def keep(self, sender: str, rule: WebhookRule, believed: Believed) -> None:
        """Note an event that was emitted."""
        if not believed.batch_change:
            return
        with self._lock:
            self._specs[_key(sender, rule, believed)] = believed.applied_spec
            self._specs.move_to_end(_key(sender, rule, believed))
            while len(self._specs) > self._most:
                self._specs.popitem(last=False)


def _key(sender: str, rule: WebhookRule, believed: Believed) -> tuple[str, str, str]:
    return sender, rule.mark, believed.batch_change


def _user_number(id: object) -> str:
    """The number in a user's id, given as such or as GraphQL shows it (base64 of `User:1`)."""
    text = str(id) if isinstance(id, str | int) else ""
    try:
        kind, _, number = base64.b64decode(text, validate=True).decode().partition(":")
        return str(json.loads(number)) if kind == "User" else text
    except (binascii.Error, ValueError):
        return text
