"""Machines of a team, all on this one: each with a worker, an engine and a state folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import docker

from infra.images import BUSYBOX
from tests.engines import PrivateEngine
from tests.harness import Installation
from tests.images import ensure_busybox

_DISK_BYTES = 128 << 20


class Machine:
    """A worker with an engine that nobody else uses, and a small disk for its state. A context manager; needs root.

    ``folder``: for all of it; its path must be short.
    """

    def __init__(self, folder: Path, api_url: str, *, number: int, limit: int = 1) -> None:
        self.installation = Installation(folder)
        self._folder, self._api_url, self._limit = folder, api_url, limit
        self._engine = PrivateEngine(folder / "engine", number=number)
        self._worker: subprocess.Popen[str] | None = None

    def __enter__(self) -> Machine:
        self._engine.folder.mkdir(parents=True)
        self._disk.mkdir(parents=True)
        subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", self._disk), check=True)
        self._engine.__enter__()
        self._bring_image()
        self.start_worker()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._engine.__exit__(kind, error, at)
        subprocess.run(("umount", self._disk), check=True)

    def _bring_image(self) -> None:
        """From the engine of this host: an image that is made twice has two digests, and its steps two results."""
        with closing(docker.APIClient()) as host, closing(docker.APIClient(self.docker_host)) as client:
            ensure_busybox(host)
            client.load_image(b"".join(host.get_image(BUSYBOX)))

    def start_worker(self) -> None:
        """`batchwright worker`, for its engine."""
        self._worker = self.installation.start(
            *("worker", "--limit", self._limit), environment=self._environment, log=self._folder / "worker.log"
        )

    def kill(self) -> None:
        """Kill the worker and everything that it started, as a power cut would; the engine runs on."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if self._worker is not None:
            self._worker.wait()
            self._worker = None

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """In here nothing can be written where the worker keeps its state."""
        filler = self._disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            filler.unlink()

    def processes(self, flow_run: str = "") -> list[int]:
        """The ids of the processes that work for this machine's state folder, or for one flow run there."""
        wanted = {f"BATCHWRIGHT_HOME={self.installation.home}"}
        if flow_run:
            wanted.add(f"PREFECT__FLOW_RUN_ID={flow_run}")
        found = []
        for process in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if wanted <= set(process.read_bytes().decode(errors="replace").split("\0")):
                    found.append(int(process.parent.name))
        return found

    def containers(self, flow_run: str) -> list[str]:
        """The workspaces whose steps this machine's engine has begun for a flow run, one entry per container."""
        with closing(docker.APIClient(self.docker_host)) as client:
            events = client.events(
                since=0, until=time.time(), decode=True, filters={"type": "container", "event": "start"}
            )
            attributes = [event["Actor"]["Attributes"] for event in events]
        return [
            each["batchwright.workspace"]
            for each in attributes
            if _is_of(flow_run, each) and "batchwright.step" in each
        ]

    def running(self, flow_run: str) -> list[str]:
        """The containers of a flow run that run now."""
        with closing(docker.APIClient(self.docker_host)) as client:
            return [each["Id"] for each in client.containers() if _is_of(flow_run, each["Labels"])]

    @property
    def docker_host(self) -> str:
        """The address of its engine."""
        return self._engine.host

    @property
    def _disk(self) -> Path:
        return self.installation.home

    @property
    def _environment(self) -> Mapping[str, str]:
        return {"PREFECT_API_URL": self._api_url, "DOCKER_HOST": self._engine.host}


def _is_of(flow_run: str, labels: Mapping[str, str]) -> bool:
    """Whether a container is of a flow run: runs are called by the end of its id (flows.runs.run_id_of)."""
    return flow_run.rpartition("-")[2] in labels.get("batchwright.run", "")
