"""`batchwright executor`: work off an instance's executor queue, in the foreground."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from .. import settings
from .console import errors
from .deploy import find_server
from .sources import Store, artifact_store, stored_block

if TYPE_CHECKING:
    from blocks.docker_runtime import DockerRuntime


def register(app: typer.Typer) -> None:
    app.command()(executor)


def executor(
    context: typer.Context,
    store: Store = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="BLOCK", help="A stored engine, as `docker-runtime/NAME`.", show_default=False),
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--no-prefect", help="Show no jobs in Prefect: nothing but the instance and the engine.")
    ] = False,
) -> None:
    """Work off the `batches` queue of a Sourcegraph instance, in place of its own executors.

    Set at least EXECUTOR_FRONTEND_URL and EXECUTOR_FRONTEND_PASSWORD; the names are upstream's. Asked to end (SIGTERM),
    it takes no new jobs and lets running ones finish; asked again, it gives them back.
    """
    server = None if unseen else find_server()

    from ..executor.configuration import read_configuration
    from ..executor.serving import new_name, serve

    settings.quiet_prefect()
    logging.basicConfig(
        format="%(asctime)s %(levelname)-7s %(message)s", level=logging.DEBUG if context.obj else logging.INFO
    )
    for noisy in ("httpx", "httpcore", "urllib3", "docker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    configuration = read_configuration(settings.executor_environment(), _engine(engine))
    if configuration.ignored:
        errors.print(f"not used here: {', '.join(configuration.ignored)}", markup=False)
    name, home, artifacts = new_name(), settings.home(), artifact_store(store)
    artifacts.check()
    flow_runs = None
    if server is not None:
        from ..executor.flow_runs import FlowRuns

        flow_runs = FlowRuns(name, home)
        flow_runs.register()
        errors.print(f"jobs are shown at {server.ui_url}", markup=False)
    serve(configuration, name, home, artifacts.store(), flow_runs)


def _engine(where: str | None) -> DockerRuntime | None:
    from blocks.docker_runtime import DockerRuntime

    return stored_block("--engine", where, DockerRuntime, DockerRuntime) if where else None
