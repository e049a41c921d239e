"""What a workspace costs by the number of files in its repository, the change being the same. Must be flat.

    python -m tests.benchmarks.curve [--files N ...] [--rounds N]

Only the checkout grows with the repository; it is made once per commit and shared by all workspaces and runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import docker

from blocks.docker_runtime import DockerRuntime
from blocks.sources import location
from flows.checkout import Checkout, Checkouts
from flows.diffs import DiffCollector
from flows.layers import UPPER, State, merge
from flows.mirror import Branch, Mirror
from flows.workspace_folders import WorkspaceFolder
from infra.images import ensure_busybox
from tests.benchmarks.cases import Case, make_repositories
from tests.benchmarks.measure import table
from tests.benchmarks.ours import Ours
from tests.benchmarks.setting import add_options, temporary_folder

_CHANGE = {"README.md": "edited\n", "source/0/0.txt": "edited\n", "new/0.txt": "new\n"}


@dataclass
class Rig:
    """A repository, fetched."""

    folder: Path
    mirror: Mirror
    branch: Branch

    @classmethod
    def of(cls, case: Case, folder: Path) -> Rig:
        """Make the repository and its mirror."""
        make_repositories(case, folder)
        (name,) = case.repositories
        mirror = Mirror(folder / "mirrors", location(name, str(folder / "repositories" / name)))
        branch = mirror.default_branch()
        mirror.fetch(branch.commit)
        return cls(folder, mirror, branch)

    def check_out(self, checkouts: Checkouts) -> Checkout:
        return checkouts.get(self.mirror.git_dir, self.branch.commit, self.branch.name)

    def set_up(self) -> None:
        """What a workspace needs before its first container, with the checkout there; and its end."""
        with Checkouts(self.folder / "checkouts") as checkouts, WorkspaceFolder(self.folder / "workspaces", "w") as own:
            DiffCollector(self.check_out(checkouts), own.spool / "diff")


def measured(files: int, parent: Path, image: str, runtime: DockerRuntime, rounds: int) -> list[str]:
    """A row of the table."""
    case = Case(files, 1)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder(parent))
        rig = Rig.of(case, folder)
        checkouts = stack.enter_context(Checkouts(folder / "checkouts"))
        cold = _seconds(lambda: rig.check_out(checkouts))
        set_up = [_seconds(rig.set_up) for _ in range(rounds)]
        checkout = rig.check_out(checkouts)
        first = [_diff(checkout, state, folder)[0] for state in _states(checkout, folder, rounds)]
        later = _diffs(checkout, list(_states(checkout, folder, rounds)), folder)
        steps = list(_steps(Ours(case, folder, image, runtime), rounds))
    return [
        f"{files:,}",
        f"{cold:.2f} s",
        *(f"{statistics.median(times) * 1000:.1f} ms" for times in (set_up, first, later, steps)),
    ]


def _states(checkout: Checkout, folder: Path, count: int) -> Iterator[State]:
    """Workspaces after a step that made the change, each with content of its own."""
    for number in range(count):
        layer = folder / "layers" / str(number)
        for name, text in _CHANGE.items():
            path = layer / UPPER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}{time.perf_counter_ns()}\n")
        yield merge([layer], checkout.tree)


def _diff(checkout: Checkout, state: State, folder: Path) -> list[float]:
    return _diffs(checkout, [state], folder)


def _diffs(checkout: Checkout, states: list[State], folder: Path) -> list[float]:
    with DiffCollector(checkout, folder / "scratch") as collector:
        return [_seconds(lambda: collector.collect_to(folder / "out", state)) for state in states]


def _steps(ours: Ours, rounds: int) -> Iterator[float]:
    ours.prepare().run()
    for _ in range(rounds):
        ours.forget_results()
        yield _seconds(ours.prepare().run)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[100, 1_000, 10_000, 50_000], metavar="N")
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    add_options(parser)
    arguments = parser.parse_args()
    with closing(docker.from_env().api) as client:
        image = ensure_busybox(client)
    with temporary_folder(arguments.folder) as folder:
        runtime = DockerRuntime()
        runtime.resolve_image(image)
        runtime.workspace_mode(folder)
        rows = [measured(files, folder, image, runtime, arguments.rounds) for files in arguments.files]
    head = ["files", "checkout, once", "set-up", "diff, first step", "diff, later steps", "run of one step"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
