"""Our own way, as the flow goes it, without Prefect: `BatchRun` with a real engine and a store in a folder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from blocks.blobs import Blobs
from blocks.folder import FolderStore
from blocks.repositories import RepositoryFolder
from blocks.runtime import Runtime
from flows.batches.loading import load_spec
from flows.batches.results import RunManifest
from flows.runs import BatchRun
from flows.shares import Options, Surroundings
from flows.step_cache import stored
from tests.benchmarks.cases import Case, Diffs

_RUNS = itertools.count()


@dataclass
class Ours:
    """A case in a state folder. The mirrors are fetched when it is made, as the replay's archives are there already."""

    case: Case
    folder: Path
    image: str
    runtime: Runtime
    use_cache: bool = False
    script: str | None = None
    """Of every step, instead of the case's."""
    store: FolderStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = FolderStore(self._home / "store")
        self.new_run().find_workspaces()

    def forget_checkouts(self) -> None:
        """The next run has to make them: it is cold."""
        if (self._home / "checkouts").exists():
            # Not removed: making files soon after removing many is slow on ext4, which is no fault of the next run.
            (self._home / "checkouts").rename(self._home / f"checkouts-{next(_RUNS)}")

    def forget_results(self) -> None:
        """The next run has to write all of them."""
        self.store = FolderStore(self._home / f"store-{next(_RUNS)}")

    def prepare(self) -> Run:
        """A run about to begin, its workspaces found."""
        return Run(self)

    @property
    def _home(self) -> Path:
        return self.folder / "home"

    def new_run(self) -> BatchRun:
        text = self.case.spec(self.image, self.script)
        options = Options(workspaces_at_once=self.case.at_once, use_cache=self.use_cache)
        repositories = RepositoryFolder(folder=str(self.folder / "repositories"))
        around = Surroundings(repositories, self.runtime, self.store, self._home)
        return BatchRun(f"benchmark-{uuid4().hex}", text, load_spec(text), options, around)


class Run:
    """One run. Finding the workspaces is not part of it: the replay is told them."""

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        self._manifest: RunManifest | None = None
        self._run = ours.new_run()
        self._run.find_workspaces()

    def run(self) -> RunManifest:
        with self._run as run:
            run.begin()
            run.run_workspaces(run.run_workspace)
            self._manifest = run.finish()
        assert self._manifest.state == "completed", self._manifest.headline
        return self._manifest

    def diffs(self) -> Diffs:
        """What the steps of the ended run left."""
        assert self._manifest is not None
        blobs, found = Blobs(self._ours.store), {}
        for workspace in self._manifest.workspaces:
            results = [result for _, result in self._run.ledger.steps(workspace)]
            found[workspace.repository, workspace.path] = [
                blobs.get(stored(result.diff)) for result in results if result.diff is not None
            ]
        return found
