"""A persistent Prefect server on this machine: found, or started once for everybody who uses the same state folder.

``home/prefect`` is its Prefect home (database, storage) and holds ``server.json`` (what runs where), ``server.log`` and
``server.lock``. Imports no Prefect: that the server is there should cost milliseconds.
"""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from . import processes, settings
from .batches.errors import TemporaryError
from .processes import Patience, Process, Progress

FAMILIAR_PORT = 4200
START_SECONDS = 180
STOP_SECONDS = 15

SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
    # The defaults write one transaction per event; these make a task run four times cheaper, with a complete UI.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
}


@dataclass(frozen=True)
class LocalServer:
    """A server to use. ``own_home`` is its Prefect home when it is ours, None when the user configured another one."""

    api_url: str
    ui_url: str
    started: bool
    own_home: Path | None


class ServerUnavailable(TemporaryError):
    """The Prefect server does not answer, or could not be started."""


@dataclass(frozen=True)
class _Record:
    """What ``server.json`` says."""

    port: int
    pid: int
    birth: str
    python: str

    @property
    def api_url(self) -> str:
        return _api_url(self.port)

    @property
    def process(self) -> Process:
        return Process(self.pid, self.birth)


def find_or_start(home: Path, *, progress: Progress | None = None, preferred_port: int = FAMILIAR_PORT) -> LocalServer:
    """The Prefect server to use: the one that is configured, else the local one, started if it does not run.

    A new server takes the port of its last life or ``preferred_port``, and a free one when that is taken. Raises
    ``ServerUnavailable``; a server that takes too long to start is left to it, and found by the next call.
    """
    folder = home / "prefect"
    record = _read(folder)
    configured = settings.prefect_api_url()
    if configured and not (record and record.api_url == configured):
        return _configured(configured)
    if record and _is_usable(record) and _is_healthy(record):
        return _local(record, folder, started=False)

    folder.mkdir(parents=True, exist_ok=True)
    patience = Patience(START_SECONDS, progress)
    with processes.one_at_a_time(folder / "server.lock", patience, _busy()):
        record = _read(folder)
        started = not (record and _is_usable(record))
        if record is None or started:
            record = _replace(record, folder, preferred_port)
        _wait_until_healthy(record, folder, patience)
    return _local(record, folder, started=started)


def stop(home: Path) -> bool:
    """Stop the server that ``server.json`` names, and nothing else. False: none of ours ran. The database stays."""
    folder = home / "prefect"
    record = _read(folder)
    if record is None or not record.process.is_alive():
        return False
    record.process.end(STOP_SECONDS)
    return True


def _configured(api_url: str) -> LocalServer:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=5):
            pass
    except urllib.error.HTTPError as answer:
        answer.close()  # It may want credentials, which Prefect will bring: it is there.
    except urllib.error.URLError as error:
        if isinstance(error.reason, (ConnectionError, TimeoutError, socket.gaierror)):
            raise ServerUnavailable(
                f"the configured Prefect server {api_url} does not answer ({error.reason}): "
                "start it, or unset PREFECT_API_URL to use a local one"
            ) from error
    return LocalServer(api_url, settings.prefect_ui_url() or api_url.removesuffix("/api"), started=False, own_home=None)


def _local(record: _Record, folder: Path, *, started: bool) -> LocalServer:
    return LocalServer(record.api_url, record.api_url.removesuffix("/api"), started=started, own_home=folder)


def _api_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


# What runs


def _read(folder: Path) -> _Record | None:
    try:
        return _Record(**json.loads((folder / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(folder: Path, record: _Record) -> None:
    scratch = folder / "server.json.new"
    scratch.write_text(json.dumps(asdict(record)))
    scratch.replace(folder / "server.json")


def _is_usable(record: _Record) -> bool:
    """Whether our server runs and can go on: with its environment gone (a removed checkout) it is but a shell."""
    return record.process.is_alive() and Path(record.python).exists()


def _is_healthy(record: _Record) -> bool:
    """Ask the server itself, past any proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{record.api_url}/health", timeout=5) as answer:
            return bool(answer.read(10) == b"true")
    except OSError:
        return False


# Starting and stopping


def choose_port(preferred: int) -> int:
    """A port of this machine that is free, the preferred one if it is. Raises ServerUnavailable."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerUnavailable("this machine has no free port left")


def _replace(record: _Record | None, folder: Path, preferred_port: int) -> _Record:
    if record:
        record.process.end(STOP_SECONDS)
    return _start(folder, choose_port(record.port if record else preferred_port))


def _start(folder: Path, port: int) -> _Record:
    inherited = {name: value for name, value in settings.environment().items() if not name.startswith("PREFECT_")}
    own = {
        "PREFECT_HOME": str(folder),
        # The UI takes its API's address from here; otherwise it asks port 4200, whatever the server's port is.
        "PREFECT_API_URL": _api_url(port),
    }
    command = (
        *(sys.executable, "-P", "-m", "flows.server_process"),
        *("server", "start", "--host", "127.0.0.1", "--port", str(port)),
    )
    environment = inherited | SERVER_SETTINGS | own
    process = processes.start(command, folder=folder, environment=environment, log=folder / "server.log")
    record = _Record(port, process.pid, process.birth, sys.executable)
    _write(folder, record)
    return record


def _wait_until_healthy(record: _Record, folder: Path, patience: Patience) -> None:
    log = folder / "server.log"
    while not (_is_healthy(record) and record.process.is_alive()):
        if not record.process.is_alive():
            raise ServerUnavailable(f"the local Prefect server ended while it started:\n{processes.log_end(log)}")
        if patience.is_over():
            raise ServerUnavailable(
                f"the local Prefect server (process {record.pid}) does not answer after {START_SECONDS} s; "
                f"try again, or end the process:\n{processes.log_end(log)}"
            )


def _busy() -> ServerUnavailable:
    return ServerUnavailable(
        f"another command has been starting the local Prefect server for {START_SECONDS} s; try again"
    )
