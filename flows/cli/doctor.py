"""`batchwright doctor`: what a run needs, looked at one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import typer
from rich.text import Text

from .. import settings
from ..gitcommand import git
from .console import output, print_json
from .errors import FAILED
from .sources import Store, artifact_store
from .validate import AsJson

GIT_NEEDED = (2, 34)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``ok`` None: worth knowing, and no trouble."""

    subject: str
    ok: bool | None
    text: str


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(store: Store = None, as_json: AsJson = False) -> None:
    """Check the container engine, the workspace mode, the store, git and the Prefect server."""
    findings = list(_examine(store))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark, style = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "dim")}[finding.ok]
            line = Text.assemble((f"{mark} ", style), (f"{finding.subject:<16}", "bold"), finding.text)
            output.print(line, soft_wrap=True)
    raise typer.Exit(FAILED if any(finding.ok is False for finding in findings) else 0)


def _examine(store: str | None) -> Iterator[Finding]:
    yield _look("git", _git)
    yield _look("engine", _engine)
    yield _look("workspaces", _workspace_mode)
    yield _look("store", lambda: _store(store))
    yield _prefect_server()


def _look(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, look())
    except Exception as error:  # whatever is wrong is what doctor is for
        return Finding(subject, False, str(error) or type(error).__name__)


def _git() -> str:
    version = git(["version"]).decode().strip()
    found = re.search(r"(\d+)\.(\d+)", version)
    needed = ".".join(map(str, GIT_NEEDED))
    if found is None or (int(found[1]), int(found[2])) < GIT_NEEDED:
        raise RuntimeError(f"{version} is too old: install {needed} or newer")
    return f"{version} (needs {needed})"


def _engine() -> str:
    from blocks.docker_runtime import DockerRuntime

    return DockerRuntime().describe()


def _workspace_mode() -> str:
    from blocks.docker_runtime import DockerRuntime

    mode, reason = DockerRuntime().workspace_mode(settings.home() / "workspaces")
    return f"{mode}: {reason}"


def _store(where: str | None) -> str:
    store = artifact_store(where).store()
    store.check()
    return f"{store.location} can be written and read"


def _prefect_server() -> Finding:
    if url := settings.prefect_api_url():
        return Finding("Prefect server", None, f"{url} (PREFECT_API_URL or profile)")
    return Finding("Prefect server", None, "none is configured: `batchwright run` finds or starts a local one")
