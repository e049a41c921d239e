"""`batchwright run`: a batch spec from the command line, as a flow run on a Prefect server."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from .. import progress, settings
from ..batches.errors import SpecError
from ..batches.loading import load_spec
from ..batches.results import RunManifest
from ..batches.spec import BatchSpec
from ..server import LocalServer, find_or_start
from . import display, validate
from .console import errors, output, print_json, read_text
from .errors import FAILED, INTERRUPTED, BadInput
from .export import check_folder, export
from .sources import (
    AllowIgnored,
    AllowUnsupported,
    Instance,
    Jobs,
    Only,
    Repositories,
    Store,
    artifact_store,
    check_source,
    chosen_source,
)

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from ..ledger import Ledger

HARMLESS = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "PATH", "PWD", "LANG", "LC_ALL", "TERM", "TZ", "HOSTNAME"})
"""Variables of the environment that are no secrets. All others that a step asks for by name are masked."""

CLEANING_SECONDS = 10.0
"""After an interrupt: how long the run may remove its containers undisturbed before the next one counts."""


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    spec: validate.SpecFile,
    repositories: Repositories = None,
    instance: Instance = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the results there: changesets/, report.json.")
    ] = None,
    only: Only = "*",
    jobs: Jobs = 4,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop everything when a workspace fails.")] = False,
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help="Let failed workspaces be.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step, also if its result is known.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long one workspace may take, all steps together.")
    ] = 3600.0,
    step_timeout: Annotated[
        float | None, typer.Option(min=0.001, metavar="SECONDS", help="How long one step may take.", show_default=False)
    ] = None,
    store: Store = None,
    allow_ignored: AllowIgnored = False,
    allow_unsupported: AllowUnsupported = False,
    variable: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An environment variable that steps may ask for and that is no secret."),
    ] = None,
    upload: Annotated[
        Literal["no", "preview", "apply"],
        typer.Option(
            help="What to do with the changeset specs on the --instance: show them as a preview, or apply them."
        ),
    ] = "no",
    as_json: validate.AsJson = False,
) -> None:
    """Run a batch spec: find the workspaces, run the steps, keep the results, build the changeset specs."""
    text = read_text(spec)
    folder = None if str(spec) == "-" else spec.absolute().parent
    change = _checked(text, folder)
    check_source(repositories, instance)
    if upload != "no" and instance is None:
        raise BadInput(f"--upload {upload}: to which instance? name it with --instance")
    if out is not None:
        check_folder(out)
    server = _prefect_server()

    from ..shares import Options

    options = Options(
        only=only,
        workspaces_at_once=jobs,
        fail_fast=fail_fast,
        skip_errors=skip_errors,
        use_cache=not no_cache,
        allow_ignored=allow_ignored,
        allow_unsupported=allow_unsupported,
        step_timeout_seconds=step_timeout,
        workspace_timeout_seconds=timeout,
    )
    parameters = {
        "spec": text,
        "repositories": chosen_source(repositories, instance),
        "artifacts": artifact_store(store),
        "options": options,
        "spec_folder": folder,
        "upload": upload,
        **_outside(change, variable or []),
    }
    ledger, state = _run_flow(change.name, parameters)
    manifest = ledger.manifest()
    if out is not None:
        export(ledger, manifest, out)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        _report(ledger, manifest, out)
        if upload != "no":
            _tell_upload(ledger)
        _tell_where("dashboard", f"{server.ui_url}/runs/flow-run/{state.state_details.flow_run_id}")
        _tell_where("look", f"{sys.argv[0]} show {manifest.run_id}" + (f" --store {store}" if store else ""))
    if manifest.state == "completed" and state.is_failed():
        state.result()  # raises what went wrong with the upload
    raise typer.Exit(0 if manifest.state == "completed" else FAILED)


def _checked(text: str, folder: Path | None) -> BatchSpec:
    """The batch spec, if nothing is wrong with it. Raises SpecError with all faults."""
    if faults := validate.find_faults(text, folder):
        raise SpecError(faults)
    return load_spec(text)


def _prefect_server() -> LocalServer:
    """The server that this run will be seen on; pointed to before Prefect is imported."""
    with errors.status("looking for a Prefect server") as status:
        server = find_or_start(
            settings.home(), progress=lambda seconds: status.update(f"starting a Prefect server ({seconds:.0f} s)")
        )
    if server.started:
        errors.print(f"started a Prefect server: {server.ui_url}", markup=False)
    settings.use_prefect(server.api_url, server.own_home)
    settings.quiet_prefect()
    return server


def _outside(spec: BatchSpec, variables: list[str]) -> dict[str, Any]:
    """What the environment has of the names that steps ask for, apart by whether people may read it."""
    from blocks.secrets import StepSecrets

    environment = settings.environment()
    asked = {entry.name for step in spec.steps for entry in step.env if entry.value is None} & environment.keys()
    plain = asked & {*HARMLESS, *variables}
    secrets = {name: environment[name] for name in asked - plain}
    return {"variables": {name: environment[name] for name in plain}, "secrets": StepSecrets(values=secrets)}


def _run_flow(name: str, parameters: dict[str, Any]) -> tuple[Ledger, State[Any]]:
    """Run the flow in this process, shown live; its ledger, and how Prefect says that it ended.

    Raises what kept it from beginning, or from ending.
    """
    from blocks.docker_runtime import DockerRuntime

    from ..batch_change import batch_change
    from ..ledger import Ledger
    from ..runs import run_id_of

    shown = display.LiveDisplay(errors)
    state = None
    with shown, _watched_by(shown), _interrupted_once(), contextlib.suppress(KeyboardInterrupt):
        state = batch_change(engine=DockerRuntime(), **parameters, return_state=True)
    if state is None or shown.run_stopped:
        errors.print("interrupted: the containers are removed; run again, and no finished step is repeated")
        raise typer.Exit(INTERRUPTED)
    if not shown.run_ended:
        state.result()  # raises why
    return Ledger(parameters["artifacts"].store(), run_id_of(name, str(state.state_details.flow_run_id))), state


def _report(ledger: Ledger, manifest: RunManifest, out: Path | None) -> None:
    output.print(display.workspaces_table(manifest))
    for text in display.failures(manifest):
        output.print(text)
    output.print(Text(f"\n{manifest.headline}", display.STATE_STYLES[manifest.state]))
    _tell_where("results", f"{ledger.store.location}, run {manifest.run_id}")
    if out is not None:
        _tell_where("", f"{out}/changesets, {out}/report.json")


def _tell_upload(ledger: Ledger) -> None:
    from ..uploading import uploaded

    if record := uploaded(ledger):
        _tell_where("applied" if record.batch_change_url else "preview", record.url)


def _tell_where(what: str, where: str) -> None:
    """One line about where to go on, whole on any terminal: to be copied."""
    output.print(f"{what:<10} {where}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """Ctrl-C, or a closed terminal (unless ignored: nohup), interrupts the run; more of it must wait for a while."""
    since = float("-inf")

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if time.monotonic() - since > CLEANING_SECONDS:
            since = time.monotonic()
            raise KeyboardInterrupt

    numbers = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watched_by(shown: progress.Observer) -> Iterator[None]:
    token = progress.observer.set(shown)
    try:
        yield
    finally:
        progress.observer.reset(token)
