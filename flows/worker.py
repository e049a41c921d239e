"""A Prefect worker on this machine: found, or started once for all who use the same state folder; or run right here.

``home/worker`` holds ``worker.json`` (what runs), ``worker.log`` and ``worker.lock``. Imports no Prefect: whether a
server sees the worker is asked elsewhere.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from . import processes
from .batches.errors import TemporaryError
from .processes import Patience, Process

START_SECONDS = 90
STOP_SECONDS = 45
"""More than the 30 s that Prefect gives a flow run to clean up after itself."""

_OWN_SETTINGS = {
    # The default, 10 s, is for hundreds of workers. One may look more often: the dashboard's buttons feel alive.
    "PREFECT_WORKER_QUERY_SECONDS": "3",
}


class WorkerUnavailable(TemporaryError):
    """The worker could not be started, or does not begin to work."""


@dataclass(frozen=True)
class LocalWorker:
    """A worker of ours, and under which name a server knows it. ``started``: by this call."""

    name: str
    pool: str
    limit: int
    process: Process
    log: Path
    started: bool

    def check(self) -> None:
        """Raise WorkerUnavailable, with the end of its log, if it runs no more."""
        if not self.process.is_alive():
            raise WorkerUnavailable(f"the worker ended while it started:\n{processes.log_end(self.log)}")


@dataclass(frozen=True)
class _Record:
    """What ``worker.json`` says."""

    pid: int
    birth: str
    python: str
    name: str
    pool: str
    limit: int
    api_url: str

    @property
    def process(self) -> Process:
        return Process(self.pid, self.birth)

    def is_usable(self) -> bool:
        """Whether it runs and can go on: with its environment gone (a removed checkout) it can start no flow run."""
        return self.process.is_alive() and Path(self.python).exists()


def find_or_start(home: Path, environment: Mapping[str, str], *, pool: str, limit: int) -> LocalWorker:
    """The worker of this state folder, started if none runs.

    ``environment`` says which server (``PREFECT_API_URL``). ``limit``: flow runs at a time, of one that is started.
    Raises WorkerUnavailable, also if the one that runs works for another server.
    """
    folder = home / "worker"
    folder.mkdir(parents=True, exist_ok=True)
    busy = WorkerUnavailable(f"another command has been starting the worker for {START_SECONDS} s; try again")
    with processes.one_at_a_time(folder / "worker.lock", Patience(START_SECONDS), busy):
        record = _read(folder)
        started = not (record and record.is_usable())
        if record is None or started:
            if record:
                _end(record)
            record = _start(folder, _environment(environment, home), pool, limit)
    if (record.api_url, record.pool) != (environment["PREFECT_API_URL"], pool):
        raise WorkerUnavailable(
            f"the worker of this state folder works for pool {record.pool} of {record.api_url}; "
            "stop it with `batchwright down`, or name another folder with BATCHWRIGHT_HOME"
        )
    return LocalWorker(record.name, record.pool, record.limit, record.process, folder / "worker.log", started)


def run(home: Path, environment: Mapping[str, str], *, pool: str, limit: int) -> int:
    """Be a worker until it ends by itself or this process is asked to end, by SIGTERM or SIGINT; returns its exit code.

    What runs is then ended first: its containers are removed and its state is reported. For systemd and containers.
    """
    command = _command(_new_name(), pool, limit)
    child = subprocess.Popen(command, env=_environment(environment, home), start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_waiting)
    try:
        return child.wait()
    except _AskedToEnd:
        Process.of(child.pid).end_after_children(STOP_SECONDS)
        child.wait()
        return 0


def stop(home: Path) -> bool:
    """Stop the worker that ``worker.json`` names, with the flow runs that it has started. False: none of ours ran."""
    record = _read(home / "worker")
    if record is None or not record.process.is_alive():
        return False
    _end(record)
    return True


def _end(record: _Record) -> None:
    # A worker that is asked to end kills its flow runs at once: their containers would stay, their states be Running.
    record.process.end_after_children(STOP_SECONDS)


class _AskedToEnd(BaseException):
    """A signal has come."""


def _stop_waiting(_number: int, _frame: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # once is enough: the clean-up is not to be interrupted
    raise _AskedToEnd


def _start(folder: Path, environment: Mapping[str, str], pool: str, limit: int) -> _Record:
    name = _new_name()
    process = processes.start(
        _command(name, pool, limit), folder=folder, environment=environment, log=folder / "worker.log"
    )
    record = _Record(process.pid, process.birth, sys.executable, name, pool, limit, environment["PREFECT_API_URL"])
    scratch = folder / "worker.json.new"
    scratch.write_text(json.dumps(asdict(record)))
    scratch.replace(folder / "worker.json")
    return record


def _new_name() -> str:
    return f"{socket.gethostname()}-{uuid4().hex[:6]}"


def _command(name: str, pool: str, limit: int) -> tuple[str, ...]:
    return (
        *(sys.executable, "-P", "-m", "flows.worker_process"),
        *(name, pool, str(limit)),
    )


def _environment(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    return {**environment, **_OWN_SETTINGS, "BATCHWRIGHT_HOME": str(home)}


def _read(folder: Path) -> _Record | None:
    try:
        return _Record(**json.loads((folder / "worker.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
