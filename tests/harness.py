"""The product as its users have it: a state folder, a Prefect server, demo repositories, the installed command."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker
import httpx
import pytest

from flows import processes, server
from flows.batches.errors import TemporaryError
from flows.processes import Patience
from infra.demo_repositories import make_repositories
from tests.images import ensure_busybox
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
SPECS = ROOT / "tests" / "specs"
COMMAND = Path(sys.executable).with_name("batchwright")
NOTHING: Mapping[str, str] = MappingProxyType({})
COMMAND_SECONDS = 300
_PREPARING_SECONDS = 300
PREFECT_SECONDS = 60
RECORD_SECONDS = 15
"""Prefect's task runs come in late."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one error that it tells."""
        assert "Traceback" not in self.stderr, self.stderr
        _, *errors = self.stderr.split("error: ")
        assert len(errors) == 1, self.stderr
        return errors[0]


@dataclass(frozen=True)
class Installation:
    """A machine that has its state in ``folder``; nothing of the machine that runs the tests is used."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "state"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def repositories(self) -> Path:
        return self.folder / "repositories"

    @property
    def here(self) -> Path:
        """An empty folder to be in."""
        folder = self.folder / "here"
        folder.mkdir(exist_ok=True)
        return folder

    def environment(self, more: Mapping[str, str] = NOTHING) -> dict[str, str]:
        """Of the processes on this machine."""
        return {**_clean(os.environ), "HOME": str(self.here), "BATCHWRIGHT_HOME": str(self.home), **more}

    def start(
        self, *arguments: object, environment: Mapping[str, str] = NOTHING, log: Path | None = None
    ) -> subprocess.Popen[str]:
        """Begin `batchwright` with these arguments, in a process group of its own; all that it says is its stdout.

        ``log``: the file that takes it instead.
        """
        with ExitStack() as stack:
            return subprocess.Popen(
                [COMMAND, *map(str, arguments)],
                cwd=self.here,
                env=self.environment(environment),
                start_new_session=True,
                stdout=stack.enter_context(log.open("ab")) if log else subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def command(
        self,
        *arguments: object,
        stdin: bytes = b"",
        environment: Mapping[str, str] = NOTHING,
        wrapped_by: Sequence[str] = (),
    ) -> Done:
        """Run `batchwright` with these arguments, in an empty folder; ``wrapped_by`` a program that starts it."""
        done = subprocess.run(
            [*wrapped_by, COMMAND, *map(str, arguments)],
            cwd=self.here,
            env=self.environment(environment),
            input=stdin,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def run_demo(self, name: str, *arguments: object, environment: Mapping[str, str] = NOTHING) -> Done:
        """`batchwright run` for one of tests/specs on the demo's repositories."""
        return self.command(
            "run", SPECS / name, "--repositories", self.repositories, *arguments, environment=environment
        )

    def runs(self) -> set[str]:
        """The runs that the store has."""
        folder = self.store / "runs"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()


@dataclass(frozen=True)
class Api:
    """Prefect's API, asked past its client."""

    url: str

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What the API answers; asked again while it says 503, for then its SQLite is busy."""
        deadline = time.monotonic() + PREFECT_SECONDS
        while True:
            answer = httpx.request(method, f"{self.url}/{path}", json=body, timeout=PREFECT_SECONDS)
            if answer.status_code != 503 or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def post(self, path: str, body: object) -> Any:
        return self.ask("POST", path, body)

    def recorded(self, flow_run_id: str) -> list[dict[str, Any]]:
        """The task runs of a flow run; without those whose row is there and whose state is not yet."""
        found = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
        return [run for run in found if run["state"]]

    def task_runs(self, flow_run_id: str) -> dict[str, tuple[str, str]]:
        """The task runs of a flow run: name -> state's name and message."""
        found = self.recorded(flow_run_id)
        return {run["name"]: (run["state"]["name"], run["state"]["message"] or "") for run in found}

    def artifacts(self, flow_run_id: str) -> dict[str, Any]:
        """The artifacts of a flow run, by key."""
        found = self.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}})
        return {artifact["key"]: artifact for artifact in found}


def eventually(look: Callable[[], Any], expected: object, *, seconds: float = RECORD_SECONDS) -> None:
    """Assert that ``look`` gives what is expected, now or within some seconds."""
    deadline = time.monotonic() + seconds
    while (found := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.25)
    assert found == expected


@contextmanager
def _unconfigured() -> Iterator[pytest.MonkeyPatch]:
    """A process that has chosen no Prefect server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - _clean(os.environ).keys():
            patch.delenv(name)
        yield patch


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    ours = ("PREFECT_", "BATCHWRIGHT_", "AWS_")
    return {name: value for name, value in environment.items() if not name.startswith(ours)}


def make_installation(folder: Path) -> Installation:
    """A machine with the demo's repositories, on which nothing has run yet."""
    make_repositories(folder / "repositories")
    return Installation(folder)


@contextmanager
def serving(installation: Installation) -> Iterator[server.LocalServer]:
    """The installation's Prefect server; the demo's image is there too."""
    with closing(docker.APIClient()) as client:
        ensure_busybox(client)
    try:
        with _unconfigured() as patch, _prepared(installation.home / "prefect" / "prefect.db"):
            patch.chdir(installation.here)
            patch.setenv("HOME", str(installation.folder))
            found = server.find_or_start(installation.home, preferred_port=free_port())
        yield found
    finally:
        server.stop(installation.home)


@contextmanager
def _prepared(database: Path) -> Iterator[None]:
    """A server's empty database. Prefect makes it in 14 s of migrations: the first server's is kept for all others."""
    kept = ROOT / ".state" / f"prefect-{version('prefect')}.db"
    kept.parent.mkdir(exist_ok=True)
    with processes.one_at_a_time(kept.with_suffix(".lock"), Patience(_PREPARING_SECONDS), TemporaryError("too late")):
        if kept.exists():
            database.parent.mkdir(parents=True)
            shutil.copy(kept, database)
        else:
            yield
            scratch = kept.with_suffix(".new")
            with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(scratch)) as copy:
                source.backup(copy)
            scratch.replace(kept)
            return
    yield


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """One for the whole session."""
    return make_installation(tmp_path_factory.mktemp("installation"))


@pytest.fixture(scope="session")
def prefect_server(installation: Installation) -> Iterator[server.LocalServer]:
    """The installation's, one for the whole session."""
    with serving(installation) as found:
        yield found
