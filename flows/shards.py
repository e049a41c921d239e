"""One shard of a run, without Prefect: it takes its workspaces from the store, and leaves their records there."""

from __future__ import annotations

from blocks.store import ArtifactStore

from .batches.loading import load_spec
from .batches.results import StepCounts, WorkspaceState
from .batches.spec import BatchSpec
from .ledger import Ledger
from .shares import Options, Share, Surroundings, state_of


class ShardRun(Share):
    """A shard of a run, counted from 1. What an earlier attempt or another machine has completed is not repeated."""

    def __init__(self, run_id: str, number: int, options: Options, surroundings: Surroundings) -> None:
        super().__init__(run_id, _spec_of(surroundings.store, run_id), options, surroundings)
        self._number = number

    def take_workspaces(self) -> None:
        """Read which workspaces these are, and have their commits. Raises the store's and git's errors."""
        self._take(self.ledger.shard(self._number).workspaces)
        self._fetch_what_is_left()

    def begin(self) -> None:
        """Prepare what the workspaces share. Raises MountError, RuntimeTrouble."""
        self._setting = self._prepare(shard_name(self.run_id, self._number))

    @property
    def state(self) -> WorkspaceState:
        """What became of the shard."""
        return state_of(self.results.values(), skip_errors=self.options.skip_errors)

    @property
    def headline(self) -> str:
        """The shard in one line."""
        completed = len(self._planned) - len(self.left)
        steps = StepCounts.total(result.step_counts for result in self.results.values())
        return (
            f"{completed} of {len(self._planned)} workspaces completed; "
            f"steps: {steps.executed} run, {steps.cached} cached, {steps.skipped} skipped"
        )


def shard_name(run_id: str, number: int) -> str:
    """What a shard is called in the engine and on the disk: apart from the run's other shards on the same machine."""
    return f"{run_id}-{number}"


def _spec_of(store: ArtifactStore, run_id: str) -> BatchSpec:
    return load_spec(Ledger(store, run_id).spec())
