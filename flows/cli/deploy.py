"""`batchwright deploy`: everything that the dashboard needs to run batch changes, registered on a Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from .. import demo, settings
from ..server import LocalServer, find_or_start
from .console import errors, output, print_json
from .errors import BadInput
from .sources import Store, artifact_store, repositories_path, repository_source, stored_block
from .validate import AsJson

if TYPE_CHECKING:
    from ..deployments import Choice, Entry, Plan

Sources = Annotated[
    str | None,
    typer.Option(
        "--repositories",
        metavar="FOLDER|FILE|BLOCK",
        help="Where repositories come from, unless a run is told: a folder of git repositories, a YAML list of names "
        "with git URLs, or a stored block as `repository-list/NAME` or `sourcegraph-instance/NAME`. Default: the "
        "demo's repositories.",
        show_default=False,
    ),
]
_STYLES = {"created": "green", "updated": "yellow", "kept": "dim"}


def register(app: typer.Typer) -> None:
    app.command()(deploy)


def deploy(repositories: Sources = None, store: Store = None, as_json: AsJson = False) -> None:
    """Register block types, blocks, work pool, deployments and the automation for dead runs; overwrite nothing."""
    server = find_server()
    settings.quiet_prefect()
    entries = register_all(repositories, store)
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        output.print(Text.assemble((f"{entry.done:<8} ", _STYLES[entry.done]), f"{entry.kind:<11} {entry.name}"))
    output.print(f"\nrun it     {form_address(server, entries)}", markup=False, soft_wrap=True)
    output.print(
        f"a worker   batchwright up, or on other machines: batchwright worker --pool {pool_of(entries)}", markup=False
    )


def find_server() -> LocalServer:
    """The Prefect server to work with, started if need be; this process is pointed to it before Prefect is imported."""
    with errors.status("looking for a Prefect server") as status:
        server = find_or_start(
            settings.home(), progress=lambda seconds: status.update(f"starting a Prefect server ({seconds:.0f} s)")
        )
    settings.use_prefect(server.api_url, server.own_home)
    return server


def register_all(repositories: str | None, store: str | None) -> list[Entry]:
    """Register everything on the server that this process is pointed to. Raises BadInput and what `register` raises."""
    from prefect.client.orchestration import get_client

    from ..deployments import register

    with errors.status("registering on the Prefect server"), _understood():
        plan = _plan(repositories, store)
        with get_client(sync_client=True) as client:
            entries = list(register(client, plan))
    if repositories is None:
        _prepare_demo()
    return entries


def form_address(server: LocalServer, entries: list[Entry]) -> str:
    """Where in the dashboard a person runs a batch spec."""
    return f"{server.ui_url}/v2/deployments/deployment/{_first(entries, 'deployment').id}/run"


def pool_of(entries: list[Entry]) -> str:
    """The work pool of the deployments."""
    return _first(entries, "work pool").name


def _first(entries: list[Entry], kind: str) -> Entry:
    return next(entry for entry in entries if entry.kind == kind)


def _plan(repositories: str | None, store: str | None) -> Plan:
    from blocks.docker_runtime import DockerRuntime

    from ..deployments import Choice, Plan, read_automation, read_deployments

    return Plan(
        deployments=read_deployments(demo.INFRA / "prefect.yaml"),
        automations=[read_automation(demo.INFRA / "automations" / "crash-silent-runs.yaml")],
        choices=[
            _source(repositories),
            Choice("engine", DockerRuntime()),
            Choice("artifacts", artifact_store(store), insisted=store is not None),
        ],
        spec=demo.spec(),
    )


def _source(where: str | None) -> Choice:
    from blocks.repositories import RepositoryFolder, RepositoryList
    from blocks.sourcegraph import SourcegraphInstance

    from ..deployments import Choice

    if where is None:
        folder = demo.repositories(settings.home())
        return Choice("repositories", RepositoryFolder(folder=str(folder)), name="demo")
    instance = stored_block("--repositories", where, SourcegraphInstance, SourcegraphInstance)
    stored = instance or stored_block("--repositories", where, RepositoryFolder, RepositoryList)
    return Choice("repositories", stored or repository_source(repositories_path(where)), insisted=True)


def _prepare_demo() -> None:
    try:
        with errors.status("making the demo's repositories and image"):
            demo.prepare(settings.home())
    except demo.DemoIncomplete as error:
        errors.print(f"without the demo, as {error}", style="yellow", markup=False)


@contextmanager
def _understood() -> Iterator[None]:
    """The server's refusal to talk to us, as something that the user can do."""
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        yield
    except PrefectHTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise BadInput(
                "the Prefect server wants to know who asks: set PREFECT_API_AUTH_STRING (or PREFECT_API_KEY)"
            ) from error
        raise
