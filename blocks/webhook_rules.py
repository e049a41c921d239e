"""What an incoming webhook starts, as a Prefect block: who may send, and which event starts which deployment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, JsonValue, SecretStr, field_validator, model_validator

from blocks.payload_templates import parse, paths_of
from blocks.sourcegraph import SourcegraphInstance

Kind = Literal["sourcegraph", "github", "gitlab"]

ROOTS = ("payload", "event", "instance")
"""What paths begin with: the body, the event's name, and what the instance says about a batch change."""

_REFERENCE = "$ref"
_RENDERED_BY_PREFECT = "__prefect"


class WebhookRule(BaseModel):
    """One event, and what it starts."""

    model_config = ConfigDict(extra="forbid")

    event: str = Field(
        min_length=1,
        description="The event's name: batch_change:apply, push, Push Hook ... A * stands for anything.",
    )
    where: dict[str, str] = Field(
        default_factory=dict,
        description='Only if these fields have these values (with * for anything): {"payload.ref": "refs/heads/main"}.',
    )
    deployment: str = Field(
        default="", description="The deployment to run, as flow/deployment: batch-change/batch-change."
    )
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Parameters of the run, over those of the deployment. In texts, {payload.repository.full_name} is "
        "replaced by that field, {event} by the event's name, {instance.spec} by the batch change's current batch "
        "spec. A ? at the end of a path: empty if there is none. Braces of your own are written twice.",
    )
    emit_event: bool = Field(
        default=False, description="Also emit a Prefect event with the parameters, for automations."
    )

    @property
    def mark(self) -> str:
        """What tells this rule from others: a rule that says something else is another one."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @field_validator("where")
    @classmethod
    def _names_fields(cls, where: dict[str, str]) -> dict[str, str]:
        for path in where:
            if parse(f"{{{path}}}").paths[0].partition(".")[0] not in ("payload", "event"):
                raise ValueError(f"{path!r} is no field: it begins with payload, or is event")
        return where

    @field_validator("parameters")
    @classmethod
    def _are_safe(cls, parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for path in paths_of(parameters):
            if path.rstrip("?").partition(".")[0] not in ROOTS:
                raise ValueError(f"{{{path}}} is no field: it begins with one of {', '.join(ROOTS)}")
        _check_keys(parameters)
        return parameters

    @model_validator(mode="after")
    def _does_something(self) -> WebhookRule:
        if not self.deployment and not self.emit_event:
            raise ValueError(f"the rule for {self.event!r} does nothing: give it a deployment, or let it emit an event")
        if self.deployment and len([part for part in self.deployment.split("/") if part]) != 2:
            raise ValueError(f"{self.deployment!r} is no deployment: write flow/deployment")
        return self


class WebhookRules(Block):
    """Say who may send webhooks, and which event starts which deployment with which parameters.

    One block per sender; the webhook service takes its deliveries at `/webhooks/NAME`, the block's name.

    Example:
        ```python
        from blocks.webhook_rules import WebhookRule, WebhookRules

        WebhookRules(
            kind="github",
            secrets=["..."],
            rules=[WebhookRule(event="push", where={"payload.ref": "refs/heads/main"},
                               deployment="batch-change/batch-change")],
        ).save("github")
        ```
    """

    _block_type_name = "Webhook Rules"
    _block_type_slug = "webhook-rules"
    _description = "Say who may send webhooks, and which event starts which deployment with which parameters."
    _documentation_url = HttpUrl("https://docs.prefect.io/v3/concepts/deployments")

    kind: Kind = Field(description="Who sends: an instance (sourcegraph), GitHub or one that signs like it, or GitLab.")
    secrets: list[SecretStr] = Field(
        min_length=1,
        description="The secret that was given to the sender. To change it without a gap: add the new one here, change "
        "it there, take the old one away here.",
    )
    rules: list[WebhookRule] = Field(default_factory=list, description="All rules that match a delivery are followed.")
    instance: SourcegraphInstance | None = Field(
        default=None,
        description="The instance that sends. With it, what a delivery says about a batch change is looked up before "
        "anything starts, and one whose batch spec ran last already starts nothing.",
    )
    own_user_ids: list[str] = Field(
        default_factory=list,
        description="Ids of users (VXNlcjox, or its number) who apply for batchwright: what they apply starts nothing.",
    )
    most_bytes: int = Field(default=1024 * 1024, ge=1, description="The largest body that is read.")
    deliveries_per_minute: int = Field(default=120, ge=1, description="How many deliveries may start something.")

    @field_validator("secrets")
    @classmethod
    def _hide_something(cls, secrets: list[SecretStr]) -> list[SecretStr]:
        if not all(secret.get_secret_value() for secret in secrets):
            raise ValueError("a secret is empty: then anybody could sign")
        return secrets


def _check_keys(value: Any, *, below_reference: bool = False) -> None:
    """What Prefect would take for something else than data must come from people, not from payloads."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key.startswith(_RENDERED_BY_PREFECT):
                raise ValueError(f"the key {key!r} means something to Prefect's API: no parameter can have it")
            _check_keys(each, below_reference=below_reference or key == _REFERENCE)
    elif isinstance(value, list):
        for each in value:
            _check_keys(each, below_reference=below_reference)
    elif below_reference and isinstance(value, str) and parse(value).paths:
        raise ValueError("a payload cannot choose a block: there is a field in the reference to it")
