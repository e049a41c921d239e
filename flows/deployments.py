"""What a Prefect server must know to run batch changes: block types, blocks, a work pool, deployments, an automation.

Registering again makes what is missing and brings up to date what comes from the code. What people edit in the
dashboard (blocks, parameters, schedules, limits, tags, automations) stays as they left it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from pydantic import BaseModel, ConfigDict, Field, field_validator
from ruamel.yaml import YAML

from blocks.artifacts import LocalArtifacts
from blocks.docker_runtime import DockerRuntime
from blocks.gitea_host import Gitea
from blocks.github_host import GitHub
from blocks.gitlab_host import GitLab
from blocks.plain_git_host import PlainGit
from blocks.repositories import RepositoryFolder, RepositoryList
from blocks.s3_artifacts import S3Artifacts
from blocks.secrets import StepSecrets
from blocks.sourcegraph import SourcegraphInstance
from blocks.webhook_rules import WebhookRules

from .batches.errors import PermanentError

BLOCK_TYPES: tuple[type[Block], ...] = (
    *(DockerRuntime, LocalArtifacts, S3Artifacts),
    *(RepositoryFolder, RepositoryList, SourcegraphInstance, StepSecrets, WebhookRules),
    *(GitHub, GitLab, Gitea, PlainGit),
)

Done = Literal["created", "updated", "kept"]

_GONE = "gone"
"""Instead of the type of a block that was deleted."""


class BlockDiffers(PermanentError):
    """A block of the name that was asked for is there already, with other settings."""


@dataclass(frozen=True)
class Choice:
    """The block that a parameter of the deployments points to, and the name to keep it under if it is not kept yet.

    ``insisted``: a person asked for it now, so deployments that exist are pointed to it too.
    """

    parameter: str
    block: Block
    name: str = "default"
    insisted: bool = False


@dataclass(frozen=True)
class Entry:
    """One thing on the server, and what was done about it. ``id`` where the dashboard's addresses need it."""

    kind: str
    name: str
    done: Done
    id: str = ""


class _WorkPool(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


class Deployment(BaseModel):
    """A deployment as infra/prefect.yaml has it: a part of what Prefect takes there."""

    model_config = ConfigDict(extra="forbid")

    name: str
    entrypoint: str
    work_pool: _WorkPool
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    concurrency_limit: ConcurrencyLimitConfig | None = None
    schedules: list[DeploymentScheduleCreate] = Field(default_factory=list)

    @field_validator("schedules", mode="before")
    @classmethod
    def _written_flat(cls, schedules: Any) -> Any:
        """In the file, a schedule's timing stands beside its other fields."""
        beside = DeploymentScheduleCreate.model_fields
        return [
            {
                "schedule": {name: value for name, value in entry.items() if name not in beside},
                **{name: value for name, value in entry.items() if name in beside},
            }
            for entry in schedules
        ]


@dataclass(frozen=True)
class Plan:
    """What to register."""

    deployments: Sequence[Deployment]
    automations: Sequence[AutomationCore]
    choices: Sequence[Choice]
    spec: str
    """The batch spec that the form begins with."""


def read_deployments(file: Path) -> list[Deployment]:
    """The deployments of a prefect.yaml."""
    return [Deployment.model_validate(entry) for entry in _yaml(file)["deployments"]]


def read_automation(file: Path) -> AutomationCore:
    """The automation that a file describes."""
    return AutomationCore.model_validate(_yaml(file))


def register(client: SyncPrefectClient, plan: Plan) -> Iterator[Entry]:
    """Register everything, and tell about each thing. Raises BlockDiffers, Prefect's errors."""
    for block_type in BLOCK_TYPES:
        yield _register_block_type(client, block_type)
    references: dict[str, dict[str, Any]] = {}
    for choice in plan.choices:
        entry = _keep_block(choice)
        references[choice.parameter] = {"$ref": {"block_document_id": entry.id}}
        yield entry
    for pool in sorted({deployment.work_pool.name for deployment in plan.deployments}):
        yield _make_pool(client, pool)
    insisted = {choice.parameter for choice in plan.choices if choice.insisted}
    for deployment in plan.deployments:
        yield _Registration(client, deployment, {**references, "spec": plan.spec}, insisted).register()
    for automation in plan.automations:
        yield _make_automation(client, automation)


def form(flow: Flow[..., Any], leading: Mapping[str, str]) -> dict[str, Any]:
    """The JSON schema of a flow's parameters, for the dashboard's form and for Prefect's validation.

    ``leading``: for a parameter that takes one of several block types, the slug of the type to offer first. The form
    shows the first one, empty, also if the parameter points to a block of another type.

    Prefect takes for a block either its fields or a reference, and refuses what could be both: of a block type that
    needs no field, no reference would ever do. So the schema asks for one field where fields are given.
    """
    schema = parameter_schema(flow).model_dump_for_openapi()
    for name, parameter in schema["properties"].items():
        parameter["title"] = name.replace("_", " ").title()  # as Pydantic names the fields of options
    slugs: dict[str, str] = {}
    for name, definition in schema.get("definitions", {}).items():
        if "block_type_slug" in definition:
            slugs[f"#/definitions/{name}"] = definition["block_type_slug"]
            definition["required"] = definition.get("required") or list(definition["properties"])[:1]
    for name, slug in leading.items():
        parameter = schema["properties"][name]
        if kinds := parameter.get("anyOf"):
            first = [kind for kind in kinds if slugs.get(kind.get("$ref", "")) == slug]
            parameter["anyOf"] = [*first, *(kind for kind in kinds if kind not in first)]
    return schema


class _Registration:
    """One deployment, on its way to a server. ``defaults``: parameter values for all deployments that take them."""

    def __init__(
        self, client: SyncPrefectClient, deployment: Deployment, defaults: Mapping[str, Any], insisted: set[str]
    ) -> None:
        self._client, self._deployment = client, deployment
        self._flow: Flow[..., Any] = load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False)
        taken = parameter_schema(self._flow).properties
        self._defaults = {name: value for name, value in defaults.items() if name in taken}
        self._insisted = {name: value for name, value in self._defaults.items() if name in insisted}

    def register(self) -> Entry:
        name = f"{self._flow.name}/{self._deployment.name}"
        try:
            known = self._client.read_deployment_by_name(name)
        except ObjectNotFound:
            return Entry("deployment", name, "created", str(self._create()))
        return Entry("deployment", name, self._update(known), str(known.id))

    def _create(self) -> object:
        deployment, limit = self._deployment, self._deployment.concurrency_limit
        return self._client.create_deployment(
            self._client.create_flow(self._flow),
            deployment.name,
            tags=deployment.tags,
            work_pool_name=deployment.work_pool.name,
            work_queue_name=deployment.work_pool.work_queue_name,
            job_variables=deployment.work_pool.job_variables,
            schedules=deployment.schedules,
            concurrency_limit=limit.limit if limit else None,
            concurrency_options=ConcurrencyOptions(**limit.model_dump(exclude={"limit"})) if limit else None,
            enforce_parameter_schema=True,
            **self._from_code(self._defaults),
        )

    def _update(self, known: DeploymentResponse) -> Done:
        """Keep the parameters that people chose, but not those that point to a block which is gone."""
        kept = {name: value for name, value in known.parameters.items() if self._block_type(value) != _GONE}
        wanted = self._from_code({**self._defaults, **kept, **self._insisted})
        if all(getattr(known, name) == value for name, value in wanted.items()):
            return "kept"
        self._client.update_deployment(known.id, DeploymentUpdate(**wanted))
        return "updated"

    def _from_code(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        block_types = {name: self._block_type(value) for name, value in parameters.items()}
        return {
            "entrypoint": self._deployment.entrypoint,
            "description": self._deployment.description,
            "version": version("batchwright"),
            "parameters": dict(parameters),
            "parameter_openapi_schema": form(self._flow, {name: slug for name, slug in block_types.items() if slug}),
        }

    def _block_type(self, value: Any) -> str:
        """The slug of the type of the block that a parameter points to; "" for other values."""
        if not (isinstance(value, dict) and "$ref" in value):
            return ""
        try:
            document = self._client.read_block_document(value["$ref"]["block_document_id"])
        except ObjectNotFound:
            return _GONE
        return document.block_type.slug if document.block_type else ""


def _register_block_type(client: SyncPrefectClient, block_type: type[Block]) -> Entry:
    slug = block_type.get_block_type_slug()
    try:
        client.read_block_type_by_slug(slug)
        done: Done = "kept"
    except ObjectNotFound:
        done = "created"
    block_type.register_type_and_schema()
    return Entry("block type", slug, done)


def _keep_block(choice: Choice) -> Entry:
    block = choice.block
    slug = block.get_block_type_slug()
    if block._block_document_id is not None:
        return Entry("block", f"{slug}/{block._block_document_name}", "kept", str(block._block_document_id))
    known = _load(type(block), choice.name)
    if known is None:
        return Entry("block", f"{slug}/{choice.name}", "created", str(block.save(choice.name)))
    if choice.insisted and any(getattr(known, name) != getattr(block, name) for name in block.model_fields_set):
        raise BlockDiffers(
            f"there is a block {slug}/{choice.name} with other settings, and no block is overwritten: change it in the "
            f"dashboard, or name the block to use ({slug}/{choice.name}, or one that you make there)"
        )
    return Entry("block", f"{slug}/{choice.name}", "kept", str(known._block_document_id))


def _load(block_type: type[Block], name: str) -> Block | None:
    try:
        found = block_type.load(name)
    except ValueError:
        return None
    assert isinstance(found, Block)  # a coroutine only where an event loop runs
    return found


def _make_pool(client: SyncPrefectClient, name: str) -> Entry:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(
                name=name, type="process", base_job_template=template, description="Machines with a container engine."
            )
        )
        return Entry("work pool", name, "created")
    return Entry("work pool", name, "kept")


def _make_automation(client: SyncPrefectClient, automation: AutomationCore) -> Entry:
    if client.read_automations_by_name(automation.name):
        return Entry("automation", automation.name, "kept")
    client.create_automation(automation)
    return Entry("automation", automation.name, "created")


def _yaml(file: Path) -> Any:
    return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
