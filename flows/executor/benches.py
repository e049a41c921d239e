"""What the workspace of one job needs from the host: a bench for one repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from blocks.blobs import Blobs
from blocks.runtime import Runtime
from blocks.store import ArtifactStore

from ..batches.execution_input import ExecutionInput
from ..checkout import Checkouts
from ..shares import mount_sources
from ..staging import stage_mounts
from ..step_runs import Bench

JOBS = "jobs"
"""The folder, in the state folder, for what jobs need while they run."""


@dataclass(frozen=True)
class Place:
    """Where jobs run: the state folder of this machine, the store, and the engine."""

    home: Path
    store: ArtifactStore
    runtime: Runtime


@contextmanager
def open_bench(
    place: Place, run_id: str, given: ExecutionInput, git_dir: Path, files: Path | None, cancel: Event
) -> Iterator[Bench]:
    """The bench for the workspace of ``given``, whose commit is in ``git_dir``. Raises MountError."""
    with Checkouts(place.home / "checkouts") as checkouts:
        yield Bench(
            run_id=run_id,
            home=place.home,
            runtime=place.runtime,
            blobs=Blobs(place.store),
            checkouts=checkouts,
            mirrors={given.workspace.repository: git_dir},
            mounts=stage_mounts(given.spec, mount_sources(given.spec, files), place.home / "mounts"),
            cancel=cancel,
        )
