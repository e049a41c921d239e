"""A run whose steps are all cached, and memory: by the number of workspaces, by the size of a step's output.

    python -m tests.benchmarks.cached [--workspaces N ...]

Every figure comes from a process of its own. "before" is what the process took when everything was imported.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import docker

from blocks.docker_runtime import DockerRuntime
from blocks.runtime import ContainerRun, Exit, Image, Layers, Room, Runtime, WorkspaceMode
from blocks.store import Sink
from infra.images import ensure_busybox
from tests.benchmarks.cases import Case, make_repositories
from tests.benchmarks.measure import table
from tests.benchmarks.ours import Ours
from tests.benchmarks.setting import add_options, temporary_folder

_FILES, _STEPS, _AT_ONCE = 3, 3, 4
_SMALL, _LARGE = 1_000_000, 100_000_000


class Pretence:
    """A runtime that says what a real engine says of images and settings, and only pretends to run containers."""

    def __init__(self, engine: DockerRuntime) -> None:
        self._engine = engine

    def resolve_image(self, reference: str, cancel: Event | None = None) -> Image:
        return self._engine.resolve_image(reference, cancel)

    def workspace_mode(self, folder: Path) -> tuple[WorkspaceMode, str]:
        return self._engine.workspace_mode(folder)

    def fingerprint(self) -> Mapping[str, str]:
        return self._engine.fingerprint()

    def reap(self, over: Collection[str] = ()) -> object:
        return self._engine.reap(over)

    def sharing(self, rooms: int, at_once: int) -> AbstractContextManager[None]:
        return self._engine.sharing(rooms, at_once)

    @contextmanager
    def open_room(
        self, name: str, labels: Mapping[str, str], *, folder: Path, image: Image, steps: int
    ) -> Iterator[Room]:
        yield _PretendedRoom()


class _PretendedRoom:
    def run(
        self, container: ContainerRun, layers: Layers, layer: Path, *, stdout: Sink, stderr: Sink, cancel: Event
    ) -> Exit:
        (layer / "upper").mkdir()
        (layer / "upper" / "README.md").write_text(f"written by step {len(layers.layers)}\n")
        stdout.write(b"done\n")
        return Exit(0)


@dataclass(frozen=True)
class Figures:
    """Seconds and MB of a run in its own process."""

    find_seconds: float
    run_seconds: float
    cpu_seconds: float
    """Of both, the git processes' included."""
    before_mb: float
    peak_mb: float


def run_case(case: Case, folder: Path, image: str, script: str | None, *, really: bool, use_cache: bool) -> Figures:
    """Run a case; ``script`` instead of the usual one. ``really``: with containers, if any step has to run."""
    engine = DockerRuntime()
    runtime: Runtime = engine if really else Pretence(engine)
    ours = Ours(case, folder, image, runtime, use_cache=use_cache, script=script)
    before, busy = _peak_mb(), _cpu_seconds()
    began = time.perf_counter()
    run = ours.prepare()
    found = time.perf_counter()
    manifest = run.run()
    ended = time.perf_counter()
    assert not use_cache or not manifest.step_counts.executed or not really, "a step was not in the cache"
    return Figures(found - began, ended - found, _cpu_seconds() - busy, before, _peak_mb())


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def in_own_process(case: Case, folder: Path, image: str, script: str | None = None, **options: bool) -> Figures:
    """``run_case`` in a process that ends with it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_case, case, folder, image, script, **options).result()


def workspace_rows(counts: list[int], folder: Path, image: str) -> Iterator[list[str]]:
    """Runs of many workspaces: their steps executed (without containers), then all cached."""
    for count in counts:
        case = Case(_FILES * count, _STEPS, count, _AT_ONCE, shared=True)
        make_repositories(case, folder)
        executed = in_own_process(case, folder, image, really=False, use_cache=True)
        cached = in_own_process(case, folder, image, really=True, use_cache=True)
        for how, figures in (("pretended", executed), ("cached", cached)):
            yield _row(f"{count} workspaces x {_STEPS} steps, {how}", figures)


def output_rows(folder: Path, image: str) -> Iterator[list[str]]:
    """Runs of one real step: by the size of what it prints, and of the file that it adds."""
    case = Case(_FILES, 1)
    make_repositories(case, folder)
    for size in (_SMALL, _LARGE):
        scripts = {
            "prints": f"yes 'a line of output as tools print them' | head -c {size}",
            "adds a file of": f"head -c {size} /dev/urandom > new.bin",
        }
        for what, script in scripts.items():
            figures = in_own_process(case, folder, image, script, really=True, use_cache=False)
            yield _row(f"one step, {what} {size // 1_000_000} MB", figures)


def _row(title: str, figures: Figures) -> list[str]:
    seconds = (f"{figures.find_seconds:.2f} s", f"{figures.run_seconds:.2f} s", f"{figures.cpu_seconds:.2f} s")
    return [title, *seconds, f"{figures.before_mb:.0f} MB", f"{figures.peak_mb:.0f} MB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspaces", type=int, nargs="+", default=[50, 500], metavar="N")
    add_options(parser)
    arguments = parser.parse_args()
    with closing(docker.from_env().api) as client:
        image = ensure_busybox(client)
    with temporary_folder(arguments.folder) as folder:
        rows = [*workspace_rows(arguments.workspaces, folder, image), *output_rows(folder, image)]
    print(table(["run", "find the workspaces", "run them", "CPU", "memory before", "memory, peak"], rows))


if __name__ == "__main__":
    main()
