"""Kills runs at random moments, one after the other, and counts what stays after the next start.

Usage: python -m tests.killing ROUNDS [SEED]. One line per round; exit code 1 if anything stayed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import docker

from infra.demo_repositories import make_repositories
from tests.images import ensure_busybox
from tests.leaks import in_the_engine, on_the_host, processes, run
from tests.rooms import BUSYBOX

ROOT = Path(__file__).parent.parent
REPOSITORIES = tuple(f"github.com/acme/{name}" for name in ("shop", "billing", "platform"))
STEPS = (
    "echo a >> README.md; mkdir -p d/e; echo x > d/e/f; sleep 0.2",
    "ln -s / link; rm -rf d; echo b >> README.md; (sleep 60 &) ; sleep 0.2",
    "[ -f README.md ] && chmod 0 README.md; echo c > new",
)
MODES = ("overlay", "copy")


@dataclass(frozen=True)
class Stayed:
    """What was left of one killed run: right after the kill, and after the next start."""

    at_once: int
    afterwards: tuple[str, ...]


def spec_of(name: str) -> str:
    """A batch spec with something of everything."""
    on = "".join(f"  - repository: {repository}\n" for repository in REPOSITORIES)
    scripts = (f"echo {name} > new", *STEPS)  # nothing of another run's is in the cache
    steps = "".join(f"  - {{container: {BUSYBOX}, run: {json.dumps(script)}}}\n" for script in scripts)
    template = "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}\n"
    return f"name: {name}\non:\n{on}steps:\n{steps}{template}"


def kill_once(folder: Path, name: str, after_seconds: float, *, mode: str, group: bool) -> Stayed:
    """Begin a run whose state is in ``folder``, kill it, start another one, and count."""
    spec = folder / "spec.yaml"
    spec.write_text(spec_of(f"{name}-killed"))
    command = (sys.executable, "-m", "tests.leaks", folder, spec, f"{name}-killed", mode)
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # all is imported
    time.sleep(after_seconds)
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()
    at_once = len(in_the_engine(name, process.pid)) + len(on_the_host(folder))
    while processes(folder):  # a git that outlives its process for a moment
        time.sleep(0.05)
    run(folder, spec_of(f"{name}-next"), f"{name}-next", mode=mode)
    return Stayed(at_once, (*in_the_engine(name, process.pid), *on_the_host(folder)))


def main(rounds: int, seed: int) -> int:
    """All rounds. Returns how many left something."""
    chance, bad = random.Random(seed), 0
    with closing(docker.APIClient()) as client:
        ensure_busybox(client)
    with TemporaryDirectory() as place:
        make_repositories(Path(place) / "repositories")
        homes = {mode: Path(place) / mode for mode in MODES}
        began = time.monotonic()
        for mode, home in homes.items():
            home.mkdir()
            run(home, spec_of("first"), f"first-{uuid4().hex[:8]}", mode=mode)
        whole = (time.monotonic() - began) / len(MODES)
        for number in range(rounds):
            mode, fresh, group = chance.choice(MODES), chance.random() < 0.5, chance.random() < 0.5
            folder = homes[mode]
            if fresh:
                folder = Path(place) / f"round-{number}"
                folder.mkdir()
            moment = chance.random() * 1.2 * whole
            stayed = kill_once(folder, f"killing-{uuid4().hex[:8]}", moment, mode=mode, group=group)
            bad += bool(stayed.afterwards)
            where = "fresh" if fresh else "used"
            told = f"{number:3} {mode:8} {where:6} at {moment:5.2f} s: {stayed.at_once:2} at once"
            sys.stdout.write(f"{told}, afterwards {list(stayed.afterwards)}\n")
            sys.stdout.flush()
    return bad


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0) > 0)
