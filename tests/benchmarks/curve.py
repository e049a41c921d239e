"""What a workspace costs by the number of files in its repository, the change being the same. Must be flat.

    python -m tests.benchmarks.curve [--files N ...] [--rounds N]

Only the checkout grows with the repository; it is made once per commit and shared by all workspaces and runs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType

import docker

from blocks.docker_runtime import DockerRuntime
from blocks.sources import location
from flows.checkout import Checkout, Checkouts
from flows.diffs import DiffCollector
from flows.layers import UPPER, State, merge
from flows.mirror import Mirror
from flows.workspace_folders import WorkspaceFolder
from infra.images import ensure_busybox
from tests.benchmarks.cases import Case, make_repositories
from tests.benchmarks.measure import table
from tests.benchmarks.ours import Ours
from tests.benchmarks.setting import add_options, temporary_folder

_CHANGE = {"README.md": "edited\n", "source/0/0.txt": "edited\n", "new/0.txt": "new\n"}


PARTS = ("set-up", "diff, first step", "diff, later step", "run of one step")


class Rig:
    """A repository, fetched and checked out, and what its workspaces cost. A context manager."""

    def __init__(self, files: int, folder: Path, image: str, runtime: DockerRuntime) -> None:
        self._case, self._folder = Case(files, 1), folder / str(files)
        self._image, self._runtime = image, runtime
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self.times: dict[str, list[float]] = {part: [] for part in PARTS}

    def __enter__(self) -> Rig:
        self._folder.mkdir()
        make_repositories(self._case, self._folder)
        (name,) = self._case.repositories
        self._mirror = Mirror(self._folder / "mirrors", location(name, str(self._folder / "repositories" / name)))
        self._branch = self._mirror.default_branch()
        self._mirror.fetch(self._branch.commit)
        self._checkouts = self._stack.enter_context(Checkouts(self._folder / "checkouts"))
        self.checkout_seconds = _seconds(self._check_out)
        self._checkout = self._check_out()
        self._ours = Ours(self._case, self._folder, self._image, self._runtime)
        self._ours.prepare().run()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def round(self) -> None:
        """Measure every part once."""
        os.sync()
        self.times["set-up"].append(_seconds(self._set_up))
        with DiffCollector(self._checkout, self._folder / "scratch") as collector:
            for part in ("diff, first step", "diff, later step"):
                collect = partial(collector.collect_to, self._folder / "out", self._changed())
                self.times[part].append(_seconds(collect))
        self._ours.forget_results()
        self.times["run of one step"].append(_seconds(self._ours.prepare().run))

    def row(self) -> list[str]:
        """The rig's row of the table."""
        medians = (statistics.median(self.times[part]) * 1000 for part in PARTS)
        return [f"{self._case.files:,}", f"{self.checkout_seconds:.2f} s", *(f"{each:.1f} ms" for each in medians)]

    def _check_out(self) -> Checkout:
        return self._checkouts.get(self._mirror.git_dir, self._branch.commit, self._branch.name)

    def _set_up(self) -> None:
        """What a new process does for a workspace before its first container, the checkout being there; and its end."""
        name, commit = self._branch.name, self._branch.commit
        with (
            Checkouts(self._folder / "checkouts") as checkouts,
            WorkspaceFolder(self._folder / "workspaces", "one") as own,
        ):
            DiffCollector(checkouts.get(self._mirror.git_dir, commit, name), own.spool / "diff")

    def _changed(self) -> State:
        """A workspace after a step that made the change, its content never seen before."""
        layer = self._folder / "layers" / str(next(self._numbers))
        for name, text in _CHANGE.items():
            path = layer / UPPER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}{time.perf_counter_ns()}\n")
        return merge([layer], self._checkout.tree)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[100, 1_000, 10_000, 50_000], metavar="N")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    add_options(parser)
    arguments = parser.parse_args()
    with closing(docker.from_env().api) as client:
        image = ensure_busybox(client)
    with temporary_folder(arguments.folder) as folder, ExitStack() as stack:
        runtime = DockerRuntime()
        runtime.resolve_image(image)
        runtime.workspace_mode(folder)
        rigs = [stack.enter_context(Rig(files, folder, image, runtime)) for files in arguments.files]
        for _ in range(arguments.rounds):
            for rig in rigs:
                rig.round()
        print(table(["files", "checkout, once", *PARTS], [rig.row() for rig in rigs]))


if __name__ == "__main__":
    main()
