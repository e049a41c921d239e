"""`batchwright up`, `down`: everything on one machine, for a laptop or a small team; `worker`: one machine of many."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from .. import server as servers
from .. import settings
from .. import view_process as views
from .. import worker as workers
from ..processes import Patience
from ..worker import LocalWorker, WorkerUnavailable
from .console import errors, output
from .deploy import Sources, find_server, form_address, pool_of, register_all
from .sources import Store

Limit = Annotated[int, typer.Option(min=1, max=64, help="How many batch changes this machine runs at the same time.")]


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(worker)


def up(repositories: Sources = None, store: Store = None, limit: Limit = 2) -> None:
    """Start what is not running: a Prefect server with its dashboard (unless one is configured), a worker, reports.

    They go on when this command ends, and are found again by the next one. `batchwright down` stops them.
    """
    server = find_server()
    environment = settings.environment()
    settings.quiet_prefect()
    entries = register_all(repositories, store)
    new = [entry for entry in entries if entry.done != "kept"]
    with errors.status("starting the view of reports"):
        shown = views.find_or_start(settings.home(), environment)
    environment = {"BATCHWRIGHT_VIEW_URL": shown.url, **environment}
    found = workers.find_or_start(settings.home(), environment, pool=pool_of(entries), limit=limit)
    with errors.status("waiting for the worker"):
        _await_online(found)
    _say("server", f"{server.ui_url}, {'started' if server.started else 'was there'}")
    _say("registered", ", ".join(f"{entry.kind} {entry.name}" for entry in new) or "all was there")
    runs = f"{found.limit} batch {'changes' if found.limit > 1 else 'change'} at a time"
    _say("worker", f"{found.name}, {runs}, {'started' if found.started else 'was there'}; log: {found.log}")
    _say("reports", f"{shown.url}, {'started' if shown.started else 'was there'}; each run has a link to its own")
    _say("next", form_address(server, entries))


def down() -> None:
    """Stop the worker, the view and the local Prefect server of this state folder, and batch changes that run."""
    with errors.status("stopping the worker"):
        had_worker = workers.stop(settings.home())
    had_view = views.stop(settings.home())
    with errors.status("stopping the Prefect server"):
        had_server = servers.stop(settings.home())
    _say("worker", "stopped" if had_worker else "none was running")
    _say("reports", "stopped" if had_view else "none was running")
    _say("server", "stopped" if had_server else "none of ours was running")
    if had_worker:
        _say("next", "batch changes that ran are Crashed; Retry goes on where they stopped, after `batchwright up`")


def worker(
    pool: Annotated[str, typer.Option(help="The work pool to work for, of the deployments.")] = "batchwright",
    limit: Limit = 2,
) -> None:
    """Be a worker, in the foreground, for the Prefect server of PREFECT_API_URL. For systemd and containers.

    When it is asked to end, its batch changes are ended first: no container stays, and Retry goes on elsewhere.
    """
    find_server()
    raise typer.Exit(workers.run(settings.home(), settings.environment(), pool=pool, limit=limit))


def _await_online(worker: LocalWorker) -> None:
    """Wait until the server has heard of the worker. Raises WorkerUnavailable."""
    from prefect.client.orchestration import get_client

    patience = Patience(workers.START_SECONDS)
    with get_client(sync_client=True) as client:
        while not any(known.name == worker.name for known in client.read_workers_for_work_pool(worker.pool)):
            worker.check()
            if patience.is_over():
                raise WorkerUnavailable(
                    f"the worker does not report to the Prefect server after {patience.seconds} s; see {worker.log}"
                )


def _say(subject: str, text: str) -> None:
    output.print(Text.assemble((f"{subject:<11}", "bold"), text), soft_wrap=True)
