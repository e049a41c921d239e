"""What runs leave behind, counted; and a run without Prefect, which is also a program to be killed.

Usage: python -m tests.leaks FOLDER SPEC RUN_ID [MODE]. It says "begins" when all that it needs is imported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import docker

from blocks.docker_labels import OWNER, RUN
from blocks.docker_runtime import DockerRuntime
from blocks.folder import FolderStore
from blocks.owners import parse_owner
from blocks.repositories import RepositoryFolder
from blocks.store import ArtifactStore
from flows.batches.loading import load_spec
from flows.batches.results import RunManifest
from flows.runs import BatchRun
from flows.shares import Options, Surroundings

_ON_THE_HOST = (
    *("home/workspaces/*", "home/*/new-*", "home/checkouts/*.building"),
    *("home/mirrors/*.git/*.lock", "home/mirrors/*.git/objects/*/tmp_*"),
    "store/.writing/*",
)


def run(
    folder: Path,
    text: str,
    run_id: str,
    options: Options | None = None,
    store: ArtifactStore | None = None,
    *,
    mode: str = "auto",
) -> RunManifest:
    """A run from its beginning to its end. State is in ``folder``; the folder ``repositories`` is beside it."""
    around = Surroundings(
        repositories=RepositoryFolder(folder=str(folder.parent / "repositories")),
        runtime=DockerRuntime.model_validate({"workspaces": mode}),
        store=store or FolderStore(folder / "store"),
        home=folder / "home",
    )
    FolderStore(folder / "store").check()
    with BatchRun(run_id, text, load_spec(text), options or Options(workspaces_at_once=3), around) as run:
        run.find_workspaces()
        run.begin()
        run.run_workspaces(run.run_workspace)
        return run.finish()


def in_the_engine(run: str, *pids: int) -> list[str]:
    """Containers, volumes and images of the runs whose ids begin like this, and those of processes."""
    kinds = []
    with closing(docker.APIClient(timeout=300)) as client:
        ours = {"label": [OWNER]}
        kinds.append([(one["Names"][0], one["Labels"]) for one in client.containers(all=True, filters=ours)])
        kinds.append([(one["Name"], one["Labels"]) for one in client.volumes(filters=ours)["Volumes"] or ()])
        kinds.append([(one["Id"], one["Labels"]) for one in client.images(filters=ours)])
    return [name for kind in kinds for name, labels in kind if _is_of(labels, run, pids)]


def on_the_host(folder: Path) -> list[str]:
    """Files, folders and mounts that only a run at work needs, of one whose state is in ``folder``."""
    found = [path for pattern in _ON_THE_HOST for path in folder.glob(pattern)]
    found += [lock for lock in folder.glob("home/checkouts/*.lock") if not lock.with_suffix("").exists()]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    return [str(path.relative_to(folder)) for path in found] + mounts


def processes(folder: Path) -> list[str]:
    """The command lines that name ``folder``: a git that outlives us, for a moment."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue  # it has just ended
    return [line for line in lines if f"{folder}/" in line]


def seconds_until(true: Callable[[], bool], *, within: float) -> float:
    """How long it takes until something is true. Asserts that it does not take too long."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within
        time.sleep(0.05)
    return time.monotonic() - began


def _is_of(labels: dict[str, str], run: str, pids: tuple[int, ...]) -> bool:
    owner = parse_owner(labels[OWNER])
    return labels.get(RUN, "").startswith(run) or (owner is not None and owner.pid in pids)


if __name__ == "__main__":
    print("begins", flush=True)
    run(Path(sys.argv[1]), Path(sys.argv[2]).read_text(), sys.argv[3], mode=(*sys.argv[4:], "auto")[0])
