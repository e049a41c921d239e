"""The bare floor: the containers that we start, by the shortest possible calls, on a folder that is prepared already.

No overlay, no diff, no record, no cache. Removal is left to another thread and waited for at the end, as ours is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from blocks.docker_labels import our_labels
from blocks.docker_policy import ContainerPolicy
from flows.staging import SCRIPT_TARGET
from tests.benchmarks.cases import Case, archive_of, script
from tests.benchmarks.engine import Engine, EngineRefused

_SHELL = "/bin/sh"
_LABELS = our_labels({"role": "benchmark"}, 3600)


@dataclass(frozen=True)
class Floor:
    """The containers of a case on folders of its own. ``folder`` holds the archives; what is made there stays."""

    case: Case
    folder: Path
    image: str
    policy: ContainerPolicy

    def prepare(self) -> None:
        """Make the folders and scripts, if need be."""
        (self.folder / "floor").mkdir(exist_ok=True)
        for repository in self.case.repositories:
            tree = self._tree(repository)
            if not tree.exists():
                subprocess.run(["unzip", "-q", archive_of(self.folder, repository), "-d", tree], check=True)
        for step in range(self.case.steps):
            self._script(step).write_text(script(step))

    def run(self) -> None:
        """Every step of every workspace."""
        places = iter(self.case.places)
        with ThreadPoolExecutor(self.case.at_once) as pool:
            for _ in pool.map(self._work_off, [places] * self.case.at_once):
                pass

    def _work_off(self, places: Iterator[tuple[str, str]]) -> None:
        """One workspace after the other."""
        with Engine() as engine, _removing() as remove, self._network(engine, remove) as network:
            for place in places:
                for step in range(self.case.steps):
                    with _created(engine, remove, self._step(place, step, network)) as name:
                        _run_to_end(engine, name)

    @contextmanager
    def _network(self, engine: Engine, remove: _Remove) -> Iterator[str | None]:
        """One network for steps and workspaces that follow one another, as ours have it; a single step has its own."""
        if self.case.workspaces * self.case.steps < 2 * self.case.at_once:
            yield None
            return
        pause = {
            "Image": self.image,
            "Entrypoint": [_SHELL],
            "Cmd": ["-c", "read _"],
            "OpenStdin": True,
            "Labels": _LABELS,
            "HostConfig": self.policy.pause(limits_memory=True),
        }
        with _created(engine, remove, pause) as name:
            engine.call("POST", f"/containers/{name}/start")
            yield name

    def _step(self, place: tuple[str, str], step: int, network: str | None) -> dict[str, Any]:
        repository, path = place
        mounts = [
            {"Type": "bind", "Source": str(self._tree(repository)), "Target": "/work"},
            {"Type": "bind", "Source": str(self._script(step)), "Target": SCRIPT_TARGET, "ReadOnly": True},
        ]
        return {
            "Image": self.image,
            "Entrypoint": [_SHELL],
            "Cmd": [SCRIPT_TARGET],
            "WorkingDir": f"/work/{path}".rstrip("/"),
            "AttachStdout": True,
            "AttachStderr": True,
            "Labels": _LABELS,
            "HostConfig": {**self.policy.step(network), "Mounts": mounts},
        }

    def _tree(self, repository: str) -> Path:
        return self.folder / "floor" / repository

    def _script(self, step: int) -> Path:
        return self.folder / "floor" / f"script-{step}"


class _Remove:
    """Removes containers in another thread, on a connection of its own."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool, self._engine = pool, Engine()
        self._pending: list[Future[Any]] = []

    def __call__(self, name: str) -> None:
        self._pending.append(self._pool.submit(self._engine.call, "DELETE", f"/containers/{name}?force=1&v=1"))

    def wait(self) -> None:
        try:
            for removal in self._pending:
                removal.result()
        finally:
            self._engine.close()


@contextmanager
def _removing() -> Iterator[_Remove]:
    with ThreadPoolExecutor(1) as pool:
        remove = _Remove(pool)
        try:
            yield remove
        finally:
            remove.wait()


@contextmanager
def _created(engine: Engine, remove: _Remove, config: dict[str, Any]) -> Iterator[str]:
    name = f"batchwright-floor-{uuid4().hex[:12]}"
    engine.call("POST", f"/containers/create?name={name}", config)
    try:
        yield name
    finally:
        remove(name)


def _run_to_end(engine: Engine, name: str) -> None:
    with engine.attach(name) as output:
        engine.call("POST", f"/containers/{name}/start")
        while output.recv(65536):
            pass
    code = engine.call("POST", f"/containers/{name}/wait")["StatusCode"]
    if code:
        raise EngineRefused(f"container {name} ended with exit code {code}")
