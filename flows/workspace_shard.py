"""The flow of one shard: a part of a batch change's workspaces, on whichever worker takes it."""

# No `from __future__ import annotations`: to serve a flow, Prefect pickles it by value, and names in text get lost.

import logging
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, flow, runtime, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Failed

from blocks.artifacts import LocalArtifacts
from blocks.docker_runtime import DockerRuntime
from blocks.repositories import RepositoryFolder, RepositoryList
from blocks.s3_artifacts import S3Artifacts
from blocks.secrets import StepSecrets
from blocks.sourcegraph import SourcegraphInstance

from . import settings
from .batches.errors import Stopped
from .batches.steps import Outside
from .cancellation import watched
from .registry_passwords import with_registry_passwords
from .shards import ShardRun, shard_name
from .shares import Options, Surroundings
from .stages import STAGE, run_workspace
from .workspace_folders import reap_workspaces

log = logging.getLogger(__name__)

DEFAULTS = Options()


def _remove_leftovers(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """What a shard that was cancelled or died has left. Runs in the worker, also after a SIGKILL."""
    parameters = flow.validate_parameters(flow_run.parameters)
    name = shard_name(parameters["run"], parameters["shard"])
    log.info("%s: removed %s", state.name, parameters["engine"].reap(run=name))
    reap_workspaces(settings.home() / "workspaces", parameters["engine"].reap)


@flow(
    name="workspace-shard",
    persist_result=False,
    on_cancellation=[_remove_leftovers],
    on_crashed=[_remove_leftovers],
)
def workspace_shard(
    run: str,
    shard: int,
    repositories: RepositoryFolder | RepositoryList | SourcegraphInstance,
    engine: DockerRuntime,
    artifacts: LocalArtifacts | S3Artifacts,
    options: Options = DEFAULTS,
    secrets: StepSecrets | None = None,
    variables: dict[str, str] | None = None,
    spec_folder: Path | None = None,
) -> State[Any]:
    """Run a part of the workspaces of a batch change. Started by the flow batch-change, with its own parameters.

    Args:
        run: The run in the store that has the batch spec and the list of workspaces.
        shard: Which part of them, counted from 1.
        repositories: Where the repositories come from.
        engine: The container engine that runs the steps.
        artifacts: Where results are kept.
        options: How to run it.
        secrets: Values that steps may ask for by name; masked wherever people can read.
        variables: Values that steps may ask for by name, and that are no secrets.
        spec_folder: The folder, on the worker, that `mount` paths are looked up in.
    """
    around = Surroundings(
        repositories=repositories,
        runtime=with_registry_passwords(engine, secrets),
        store=artifacts.store(),
        home=settings.home(),
        spec_folder=spec_folder,
        outside=Outside.of(secrets=secrets.by_name() if secrets else {}, variables=variables or {}),
    )
    try:
        with (
            ShardRun(run, shard, options, around) as part,
            watched(UUID(runtime.flow_run.id), part.cancel, hand_over=part.hand_over),
        ):
            take_workspaces(part)
            part.begin()
            part.run_workspaces(lambda number: run_workspace(part, number))
    except (KeyboardInterrupt, Stopped):
        return Cancelled(message="The shard was stopped; finished steps are kept.")
    return _final_state(part)


@task(name="take-workspaces", task_run_name="take workspaces", **STAGE)
def take_workspaces(part: ShardRun) -> State[Any]:
    """Read which workspaces these are, and fetch the commits of those that are not done."""
    part.take_workspaces()
    return Completed(message=f"{len(part.left)} workspaces are left to run")


def _final_state(part: ShardRun) -> State[Any]:
    if part.state == "completed":
        return Completed(message=part.headline)
    if part.state == "cancelled":
        return Cancelled(message=part.headline)
    return Failed(message=part.headline)
