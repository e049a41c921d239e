"""What Prefect adds: a run whose steps are all cached, bare and by `batchwright run`, with its server's part.

    python -m tests.benchmarks.flow [--workspaces N]

The workspaces are projects of one repository: finding them costs nothing that grows. Every figure is of a process of
its own; the command runs twice, and the first one starts the server.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from infra.images import ensure_busybox
from tests.benchmarks.cached import in_own_process
from tests.benchmarks.cases import Case, make_repositories
from tests.benchmarks.measure import table
from tests.benchmarks.setting import add_options, temporary_folder

_COMMAND = Path(sys.executable).with_name("batchwright")
_TICKS = os.sysconf("SC_CLK_TCK")
_STEPS, _AT_ONCE = 3, 4
_SETTLE_SECONDS = 5
"""The server works off its queue after the run has ended."""


@dataclass(frozen=True)
class Figures:
    """Seconds and MB of one command; ``server``: CPU seconds of the Prefect server meanwhile and shortly afterwards."""

    wall: float
    cpu: float
    server: float
    peak_mb: float

    @property
    def row(self) -> list[str]:
        return [f"{self.wall:.1f} s", f"{self.cpu:.1f} s", f"{self.server:.1f} s", f"{self.peak_mb:.0f} MB"]


@dataclass(frozen=True)
class Installed:
    """The command with its state in ``folder``/home, as the bare runs have it. A context manager of its server."""

    folder: Path

    def run(self, *arguments: str) -> Figures:
        before, server = resource.getrusage(resource.RUSAGE_CHILDREN), self._server_seconds()
        began = time.perf_counter()
        done = subprocess.run([_COMMAND, *arguments], env=self.environment, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        time.sleep(_SETTLE_SECONDS)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Figures(wall, cpu, self._server_seconds() - server, after.ru_maxrss / 1024)

    @property
    def environment(self) -> Mapping[str, str]:
        chosen = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
        return {**chosen, "BATCHWRIGHT_HOME": str(self.folder / "home")}

    def _server_seconds(self) -> float:
        """Of all processes that have our folder as Prefect's home, and are not the command."""
        seconds = 0.0
        wanted = f"PREFECT_HOME={self.folder}/".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (process / "environ").read_bytes():
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    seconds += (int(fields[11]) + int(fields[12])) / _TICKS
            except OSError:  # it has just ended
                continue
        return seconds


@contextmanager
def installed(folder: Path) -> Iterator[Installed]:
    """The command, until its server is not needed any more."""
    command = Installed(folder)
    try:
        yield command
    finally:
        subprocess.run([_COMMAND, "down"], env=command.environment, capture_output=True, check=True)


def rows(workspaces: int, folder: Path, image: str) -> Iterator[list[str]]:
    """The cached run in all ways."""
    case = Case(_STEPS * workspaces, _STEPS, workspaces, _AT_ONCE, shared=True)
    make_repositories(case, folder)
    in_own_process(case, folder, image, really=False, use_cache=True)  # fills the cache
    bare = in_own_process(case, folder, image, really=True, use_cache=True)
    wall = bare.find_seconds + bare.run_seconds
    yield ["bare", f"{wall:.1f} s", f"{bare.cpu_seconds:.1f} s", "", f"{bare.peak_mb:.0f} MB"]
    spec = folder / "spec.yaml"
    spec.write_text(case.spec(image))
    with installed(folder) as command:
        for how in ("`batchwright run`, the first one", "`batchwright run`, the next one"):
            arguments = ["run", str(spec), "--repositories", str(folder / "repositories"), "--jobs", str(_AT_ONCE)]
            yield [how, *command.run(*arguments).row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspaces", type=int, default=500, metavar="N")
    add_options(parser)
    arguments = parser.parse_args()
    with closing(docker.from_env().api) as client:
        image = ensure_busybox(client)
    with temporary_folder(arguments.folder) as folder:
        found = list(rows(arguments.workspaces, folder, image))
    head = [f"{arguments.workspaces} workspaces x {_STEPS} steps, all cached", "wall", "CPU", "server's CPU", "memory"]
    print(table(head, found))


if __name__ == "__main__":
    main()
