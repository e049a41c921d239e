"""The flow: a batch spec becomes changeset specs. Each stage of a workspace is a task; the rules live elsewhere."""

# No `from __future__ import annotations`: to serve a flow, Prefect pickles it by value, and names in text get lost.

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, flow, runtime, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed

from blocks.artifacts import LocalArtifacts
from blocks.docker_runtime import DockerRuntime
from blocks.repositories import RepositoryFolder, RepositoryList
from blocks.s3_artifacts import S3Artifacts
from blocks.secrets import StepSecrets
from blocks.sourcegraph import SourcegraphInstance

from . import progress, settings, summaries, uploading, view
from .approval import REJECTED, Approvals
from .batches.errors import Stopped
from .batches.loading import load_spec
from .batches.results import RunManifest
from .batches.steps import Outside
from .cancellation import watched
from .ledger import Ledger
from .progress_artifact import shown_as_artifact
from .publish_changesets import DEFAULTS as PUBLISHING
from .publish_changesets import HostBlock, propose
from .publishing.options import PublishOptions
from .registry_passwords import with_registry_passwords
from .runs import BatchRun, run_id_of
from .shares import Options, Surroundings
from .spread import cancel_shards, run_shards, shards_wanted
from .stages import STAGE, run_workspace
from .uploading import Upload, upload_target
from .workspace_folders import reap_workspaces

log = logging.getLogger(__name__)

DEFAULTS = Options()


def _flow_run_name() -> str:
    """The batch change's name, as far as the text has one."""
    found = re.search(r"(?m)^name:[ \t]*(\S+)", runtime.flow_run.parameters.get("spec", ""))
    return found[1].strip("\"'") if found else "batch-change"


def _remove_leftovers(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """What a run that was cancelled or died has left. Runs in the worker, also after a SIGKILL."""
    parameters = flow.validate_parameters(flow_run.parameters)
    run_id = run_id_of(load_spec(flow_run.parameters["spec"]).name, str(flow_run.id))
    log.info("%s: removed %s", state.name, parameters["engine"].reap(run=run_id))
    reap_workspaces(settings.home() / "workspaces", parameters["engine"].reap)


def _cancel_shards(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Those of a run whose process could not do it any more."""
    artifacts = flow.validate_parameters(flow_run.parameters)["artifacts"]
    run_id = run_id_of(load_spec(flow_run.parameters["spec"]).name, str(flow_run.id))
    plan = Ledger(artifacts.store(), run_id).plan()
    if plan is not None and plan.shards > 1:
        cancel_shards(flow_run.id, plan.shards)


@flow(
    name="batch-change",
    flow_run_name=_flow_run_name,
    persist_result=False,
    on_cancellation=[_cancel_shards, _remove_leftovers],
    on_crashed=[_remove_leftovers],
)
def batch_change(
    spec: str,
    repositories: RepositoryFolder | RepositoryList | SourcegraphInstance,
    engine: DockerRuntime,
    artifacts: LocalArtifacts | S3Artifacts,
    options: Options = DEFAULTS,
    secrets: StepSecrets | None = None,
    variables: dict[str, str] | None = None,
    spec_folder: Path | None = None,
    instance: SourcegraphInstance | None = None,
    upload: Upload = "no",
    code_hosts: list[HostBlock] | None = None,
    publishing: PublishOptions = PUBLISHING,
) -> State[Any]:
    """Run a batch spec on its repositories, build the changeset specs, and propose them where code hosts are given.

    Args:
        spec: The batch spec, as YAML text.
        repositories: Where the repositories come from.
        engine: The container engine that runs the steps.
        artifacts: Where results are kept.
        options: How to run it; what they are set to does for most.
        secrets: Values that steps may ask for by name; masked wherever people can read.
        variables: Values that steps may ask for by name, and that are no secrets.
        spec_folder: The folder, on the worker, that `mount` paths are looked up in.
        instance: The Sourcegraph instance to upload to; if it is not given, the one that repositories come from.
        upload: Whether to upload the changeset specs to the instance: as a preview, or applied at once.
        code_hosts: Where to propose the changesets at the end, after their approval. None: nowhere.
        publishing: How to propose them, where code hosts are given.
    """
    change = load_spec(spec)
    target = upload_target(repositories, instance, upload)
    around = Surroundings(
        repositories=repositories,
        runtime=with_registry_passwords(engine, secrets),
        store=artifacts.store(),
        home=settings.home(),
        spec_folder=spec_folder,
        outside=Outside.of(secrets=secrets.by_name() if secrets else {}, variables=variables or {}),
    )
    artifacts.check()
    run_id = run_id_of(change.name, str(runtime.flow_run.id))
    ledger, report = Ledger(around.store, run_id), report_address(artifacts, run_id)
    approvals = Approvals.of(ledger) if options.approval else None

    def bring(manifest: RunManifest) -> None:
        if target is not None:
            upload_changesets(ledger, manifest, target, apply=upload == "apply")

    if approvals and (shown := approvals.awaited()):
        return propose(conclude(shown, approvals, options, bring), run_id, code_hosts, artifacts, publishing)
    try:
        with (
            shown_as_artifact(summaries.artifact_key(change.name, "progress")),
            BatchRun(run_id, spec, change, options, around) as run,
            watched(UUID(runtime.flow_run.id), run.cancel, hand_over=run.hand_over),
        ):
            find_workspaces(run)
            run.begin(shards=shards_wanted(run))
            run_everything(run)
            manifest = finish(run)
    except (KeyboardInterrupt, Stopped):  # by Ctrl-C, by the dashboard: Prefect would call that a crash, or a failure
        progress.observer.get()(progress.RunStopped())
        return Cancelled(message="The run was stopped; run it again, and no finished step is repeated.")
    except TerminationSignal:  # by the worker, for a Cancel or because it is to end: Prefect knows which, and says so
        summaries.publish_end(ledger, report)
        raise
    progress.observer.get()(progress.RunEnded(manifest))
    summaries.publish(manifest, ledger, report)
    return propose(conclude(manifest, approvals, options, bring), run_id, code_hosts, artifacts, publishing)


def report_address(artifacts: LocalArtifacts | S3Artifacts, run_id: str) -> str | None:
    """Where browsers find the report of a run: at the view, which knows the stores that are kept as blocks."""
    url, name = settings.view_url(), artifacts._block_document_name
    return view.address(url, artifacts.get_block_type_slug(), name, run_id) if url and name else None


@task(name="find-workspaces", task_run_name="find workspaces", **STAGE)
def find_workspaces(run: BatchRun) -> State[Any]:
    """Resolve `on` and `workspaces`; or go on with what an earlier attempt at this run has found and done."""
    found, notify = run.find_workspaces(), progress.observer.get()
    notify(progress.WorkspacesFound(len(found.workspaces)))
    for number, result in run.done.items():
        notify(progress.WorkspaceEnded(number, result))
    told = f"{len(found.workspaces)} workspaces, {len(found.ignored)} ignored"
    return Completed(message=f"{told}, {len(run.done)} done before" if run.done else told)


def run_everything(run: BatchRun) -> None:
    """Run the workspaces that are left: here, or as shards on any worker."""
    if run.shards > 1:
        run_shards(run)
    else:
        run.run_workspaces(lambda number: run_workspace(run, number))


@task(name="changeset-specs", task_run_name="changeset specs", **STAGE)
def finish(run: BatchRun) -> RunManifest:
    """Put the changeset specs of all workspaces together, and close the ledger."""
    return run.finish()


def conclude(
    manifest: RunManifest, approvals: Approvals | None, options: Options, bring: Callable[[RunManifest], None]
) -> State[Any]:
    """What follows the results: the people's answer, where the run has to wait for one; the upload; then the end."""
    if manifest.state != "completed":
        return _final_state(manifest)
    sentence = ""
    if approvals and manifest.changeset_specs:
        answer = approvals.ask(manifest, hours=options.approval_hours)
        if answer.decision == "rejected":
            return Cancelled(name=REJECTED, message=answer.sentence)
        sentence = f"; {answer.sentence}"
    bring(manifest)
    return Completed(message=f"{manifest.headline}{sentence}")


@task(name="upload", task_run_name="upload to the instance", **STAGE)
def upload_changesets(
    ledger: Ledger, manifest: RunManifest, instance: SourcegraphInstance, *, apply: bool
) -> State[Any]:
    """Bring the changeset specs to an instance. What an earlier attempt uploaded is not uploaded again."""
    record = uploading.upload(ledger, manifest, instance.api(), namespace=instance.namespace, apply=apply)
    summaries.publish_upload(manifest.name, record.url, applied=apply)
    return Completed(name="Applied" if apply else "Uploaded", message=record.url)


def _final_state(manifest: RunManifest) -> State[Any]:
    """How the flow run ends. Prefect shows the message beside the state."""
    message = manifest.headline
    if manifest.state == "completed":
        return Completed(message=message)
    if manifest.state == "cancelled":
        return Cancelled(message=message)
    return Failed(message=f"{message}. {manifest.failure.message}" if manifest.failure else message)
