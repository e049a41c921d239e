"""Ours against the bare floor and against src-cli's way: one interleaved run, medians, ratios.

    python -m tests.benchmarks.steps [--quick] [--only TEXT] [--rounds N] [--large FILES] [--image host]

Asserts in every round that the diffs of ours and of the replay are the same bytes. Asserts nothing about time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import docker

from blocks.docker_policy import ContainerPolicy
from blocks.docker_runtime import DockerRuntime
from infra.images import ensure_busybox, ensure_host_image
from tests.benchmarks.cases import Case, Diffs, make_repositories
from tests.benchmarks.floor import Floor
from tests.benchmarks.measure import Cost, Meter, median, table
from tests.benchmarks.ours import Ours
from tests.benchmarks.replay import Replay
from tests.benchmarks.setting import add_options, temporary_folder

SMALL, LARGE = 100, 50_000
KINDS = ("floor", "replay", "cold", "warm")


@dataclass
class Bench:
    """A case on its repositories, in all four ways."""

    case: Case
    folder: Path
    image: str
    runtime: DockerRuntime
    meter: Meter
    costs: dict[str, list[Cost]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def __post_init__(self) -> None:
        make_repositories(self.case, self.folder)
        self._floor = Floor(self.case, self.folder, self.image, ContainerPolicy(network=self.runtime.network))
        self._floor.prepare()
        self._ours = Ours(self.case, self.folder, self.image, self.runtime)
        self._replay = Replay(self.case, self.folder, self.image)

    def round(self, number: int) -> None:
        """Each way once, in an order that turns with the rounds. A warm run comes after a cold one in any case.

        The replay comes last in the first round: it removes whole trees, and ext4 makes files slowly after that.
        """
        ways: Sequence[Callable[[], Diffs | None]] = (self._run_ours, self._run_floor, self._run_replay)
        turn = number % len(ways)
        diffs = [found for way in (*ways[turn:], *ways[:turn]) if (found := way()) is not None]
        assert all(found == diffs[0] for found in diffs), f"{self.case}: the diffs are not the same"

    def _run_floor(self) -> None:
        self.costs["floor"].append(self.meter.cost_of(self._floor.run))

    def _run_replay(self) -> Diffs:
        found: list[Diffs] = []
        self.costs["replay"].append(
            self.meter.cost_of(lambda: found.append(self._replay.run()), self._replay.wait_for_leftovers)
        )
        return found[0]

    def _run_ours(self) -> Diffs:
        self._ours.forget_checkouts()
        cold = self._run_ours_once("cold")
        warm = self._run_ours_once("warm")
        assert cold == warm
        return warm

    def _run_ours_once(self, kind: str) -> Diffs:
        self._ours.forget_results()
        run = self._ours.prepare()
        self.costs[kind].append(self.meter.cost_of(run.run))
        return run.diffs()


def cases(*, large: int, quick: bool) -> Iterator[tuple[Case, int]]:
    """The cases, each with how often it runs unless somebody says otherwise."""
    if quick:
        yield from ((Case(SMALL, 1), 3), (Case(SMALL, 3), 2), (Case(large, 1), 1), (Case(SMALL, 3, 4, 2), 1))
        return
    yield from ((Case(SMALL, steps), 3) for steps in (1, 3, 10))
    yield from ((Case(LARGE, steps), 1) for steps in (1, 3, 10))
    for at_once in (2, 4):
        yield Case(SMALL, 3, 20, at_once), 1
        yield Case(large, 3, 20, at_once, shared=True), 1


def first_use(image: str, folder: Path) -> float:
    """What a new process pays once: the connection, the image's shell, the trial of an overlay. Seconds."""
    began = time.perf_counter()
    runtime = DockerRuntime()
    runtime.resolve_image(image)
    runtime.workspace_mode(folder)
    return time.perf_counter() - began


def report(case: Case, costs: dict[str, list[Cost]]) -> list[str]:
    """A case's row of the table."""
    floor, replay, cold, warm = (median(costs[kind]) for kind in KINDS)
    return [
        str(case),
        *(f"{cost.wall:.2f} ({cost.cpu:.2f})" for cost in (floor, replay, cold, warm)),
        f"{warm.wall / floor.wall:.2f} ({warm.cpu / floor.cpu:.2f})",
        *(f"{replay.wall / ours.wall:.1f} ({replay.cpu / ours.cpu:.1f})" for ours in (cold, warm)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cases, in about a minute")
    parser.add_argument("--only", default="", metavar="TEXT", help="just the cases whose name holds this text")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each case runs (default: 1 to 3)")
    parser.add_argument("--large", type=int, default=5_000, metavar="FILES", help="size of the shared repository")
    parser.add_argument("--image", choices=("busybox", "host"), default="busybox", help="host: an image with bash")
    add_options(parser)
    arguments = parser.parse_args()
    meter = Meter(arguments.cgroup)
    with closing(docker.from_env().api) as client:
        image = ensure_host_image(client) if arguments.image == "host" else ensure_busybox(client)
    print(f"background load: {meter.background_load():.2f} processors", file=sys.stderr)
    rows = []
    with temporary_folder(arguments.folder) as folder:
        print(f"first use in a process: {first_use(image, folder):.2f} s", file=sys.stderr)
        runtime = DockerRuntime()
        runtime.resolve_image(image)
        runtime.workspace_mode(folder)
        for case, rounds in cases(large=arguments.large, quick=arguments.quick):
            if arguments.only in str(case):
                bench = Bench(case, folder, image, runtime, meter)
                for number in range(arguments.rounds or rounds):
                    bench.round(number)
                rows.append(report(case, bench.costs))
                print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["wall (CPU), s", *KINDS, "warm / floor", "replay / cold", "replay / warm"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
