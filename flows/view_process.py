"""The view (``flows.view``) of this machine: found, or started once for all who use the same state folder.

``home/view`` holds ``view.json`` (what runs where), ``view.log`` and ``view.lock``. Links to it stand in Prefect's
database, so it keeps its port.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from . import processes
from .batches.errors import TemporaryError
from .processes import Patience, Process
from .server import choose_port

FAMILIAR_PORT = 4201
START_SECONDS = 60
STOP_SECONDS = 10


class ViewUnavailable(TemporaryError):
    """The view could not be started."""


@dataclass(frozen=True)
class LocalView:
    """A view of ours. ``started``: by this call."""

    url: str
    started: bool


@dataclass(frozen=True)
class _Record:
    """What ``view.json`` says."""

    port: int
    pid: int
    birth: str
    python: str
    api_url: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        return Process(self.pid, self.birth)

    def is_usable(self, api_url: str) -> bool:
        return self.process.is_alive() and Path(self.python).exists() and self.api_url == api_url


def find_or_start(home: Path, environment: Mapping[str, str]) -> LocalView:
    """The view of this state folder, started if none runs for the server of ``PREFECT_API_URL``.

    Raises ViewUnavailable.
    """
    folder = home / "view"
    folder.mkdir(parents=True, exist_ok=True)
    patience = Patience(START_SECONDS)
    busy = ViewUnavailable(f"another command has been starting the view for {START_SECONDS} s; try again")
    with processes.one_at_a_time(folder / "view.lock", patience, busy):
        record = _read(folder)
        started = not (record and record.is_usable(environment["PREFECT_API_URL"]))
        if record is None or started:
            if record:
                record.process.end(STOP_SECONDS)
            record = _start(folder, environment, choose_port(record.port if record else FAMILIAR_PORT))
        _wait_until_it_answers(record, folder, patience)
    return LocalView(record.url, started)


def stop(home: Path) -> bool:
    """Stop the view that ``view.json`` names. False: none of ours ran."""
    record = _read(home / "view")
    if record is None or not record.process.is_alive():
        return False
    record.process.end(STOP_SECONDS)
    return True


def _start(folder: Path, environment: Mapping[str, str], port: int) -> _Record:
    command = (sys.executable, "-P", "-m", "flows.cli", "view", "--port", str(port))
    process = processes.start(command, folder=folder, environment=environment, log=folder / "view.log")
    record = _Record(port, process.pid, process.birth, sys.executable, environment["PREFECT_API_URL"])
    scratch = folder / "view.json.new"
    scratch.write_text(json.dumps(asdict(record)))
    scratch.replace(folder / "view.json")
    return record


def _wait_until_it_answers(record: _Record, folder: Path, patience: Patience) -> None:
    while not _answers(record):
        if not record.process.is_alive() or patience.is_over():
            log = processes.log_end(folder / "view.log")
            raise ViewUnavailable(f"the view of reports does not start; try again, or see:\n{log}")


def _answers(record: _Record) -> bool:
    """Whether it is there: it says that there is nothing at its root. Another process may have been given its port."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{record.url}/", timeout=5):
            return False
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.headers.get("Server", "").strip() == f"batchwright/{record.pid}"
    except OSError:
        return False


def _read(folder: Path) -> _Record | None:
    try:
        return _Record(**json.loads((folder / "view.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
