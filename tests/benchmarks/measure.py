"""Wall time and CPU time of a piece of work, the engine's part of it included; medians and tables of them."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SETTLE_SECONDS = 0.3


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Meter:
    """Measures work. CPU time is that of ``cgroups`` (their folders) or, without any, of the whole machine.

    A container's work is done by the engine, its shims, the runtime and the container; no process is the parent of
    all of them. On a machine that does other work meanwhile only cgroups tell them apart.
    """

    cgroups: Sequence[Path] = ()

    def cost_of(self, work: Callable[[], object], afterwards: Callable[[], object] = lambda: None) -> Cost:
        """What ``work`` takes. CPU time counts a moment longer than wall time: the engine tidies up after its answers.

        ``afterwards`` waits for what ``work`` left running in the background; that costs CPU time only.
        """
        os.sync()  # what others wrote is not to be waited for here
        busy, began = self.cpu_seconds(), time.perf_counter()
        work()
        wall = time.perf_counter() - began
        afterwards()
        time.sleep(_SETTLE_SECONDS)
        return Cost(wall, self.cpu_seconds() - busy)

    def cpu_seconds(self) -> float:
        """How long processors have been busy so far."""
        return sum(map(_cpu_seconds, self.cgroups)) if self.cgroups else _machine_cpu_seconds()

    def background_load(self, seconds: float = 2.0) -> float:
        """How many processors other work keeps busy and would be counted: above 0.1, CPU figures are worthless."""
        busy = self.cpu_seconds()
        time.sleep(seconds)
        return (self.cpu_seconds() - busy) / seconds


def _machine_cpu_seconds() -> float:
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS


def _cpu_seconds(cgroup: Path) -> float:
    old = cgroup / "cpuacct.usage"  # version 1 of cgroups
    if old.exists():
        return int(old.read_text()) / 1e9
    found = re.search(r"^usage_usec (\d+)$", (cgroup / "cpu.stat").read_text(), re.MULTILINE)
    assert found is not None, f"{cgroup} does not account for CPU time"
    return int(found[1]) / 1e6


def median(costs: Sequence[Cost]) -> Cost:
    """The middle wall time, the middle CPU time."""
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
