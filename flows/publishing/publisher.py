"""Publishing a run: each changeset is brought about on its code host, some at a time, whatever befalls others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from blocks.code_hosts import CodeHost, HostStopped, HostTrouble
from blocks.store import ArtifactConflict, ArtifactStore, StoreTrouble

from ..batches.errors import BatchError, Stopped
from ..batches.glob import compile_glob
from ..batches.tracked import TrackedChangeset
from ..failures import is_temporary
from ..ledger import find_run
from ..scratch import sweep
from .changesets import RunChangesets, Wanted
from .hosts import Hosts
from .options import PublishOptions
from .outcomes import Outcome
from .reconciler import Desk, Reconciler
from .remotes import BranchMoved
from .tracking import Tracking
from .upkeep import Keeper

log = logging.getLogger(__name__)

_MEETINGS = 5
"""How often a changeset is begun anew because another run is at it."""
_TRIES = 3
_WAIT_SECONDS = 2.0

CHUNK = 50
"""How many changesets go together in one task, where Prefect watches."""


class Publisher:
    """Publishes one run. Keeps little in memory, however many changesets there are."""

    def __init__(
        self,
        store: ArtifactStore,
        run: str,
        hosts: Sequence[CodeHost],
        options: PublishOptions,
        home: Path,
        *,
        dry_run: bool = False,
        stop: Event | None = None,
    ) -> None:
        """``run``: its id, the beginning of it, or `last`. Raises RunUnknown, RunNotReady, the store's errors."""
        self.run = RunChangesets(find_run(store, run), options)
        self._desk = Desk(self.run, options, home, dry_run, stop or Event())
        self._tracking = Tracking(store, self.run.batch_change)
        self._hosts = Hosts(hosts)
        self._only = compile_glob(options.only)
        self._desk.scratch.mkdir(parents=True, exist_ok=True)
        sweep(self._desk.scratch)

    @property
    def stop(self) -> Event:
        """Set it, and publishing ends soon with Stopped."""
        return self._desk.stop

    def chunks(self) -> list[range]:
        """The numbers of the run's changesets, some at a time."""
        numbers = range(1, self.run.count + 1)
        return [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]

    def publish(self, numbers: Iterable[int]) -> Iterator[Outcome]:
        """Publish changesets by their numbers, in this order, some at a time. Raises Stopped."""
        with ThreadPoolExecutor(self._desk.options.changesets_at_once, thread_name_prefix="changeset") as pool:
            try:
                yield from filter(None, pool.map(self._publish, numbers))
            except BaseException:
                self._desk.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def tidy(self) -> Iterator[Outcome]:
        """What becomes of the changesets that were published before and that the run has no more. Raises Stopped.

        Repositories in which something failed in this run are left out: nobody knows what belongs there.
        """
        wanted = {self._tracking.key(*identity) for identity in self.run.identities()}
        keeper = Keeper(self._tracking, self._hosts, self._desk.home, self._desk.stop, dry_run=self._desk.dry_run)
        for key in self._tracking.documents():
            if key not in wanted and (tracked := self._tracking.open(key).content) and tracked.is_live:
                yield self._guarded(tracked.repository, tracked.branch, lambda key=key: self._remove(keeper, key))  # type: ignore[misc]

    def _remove(self, keeper: Keeper, key: str) -> Outcome:
        tracked = self._tracking.open(key).content
        assert tracked is not None, "documents are never removed"
        if reason := self._why_kept(tracked):
            return keeper.outcome(tracked, "kept", reason)
        if self._desk.options.removed == "detach":
            return keeper.detach(key, by="removal")
        return keeper.close(key, by="removal")

    def _why_kept(self, tracked: TrackedChangeset) -> str:
        if self._desk.options.removed == "keep":
            return "this run has it no more; --close-removed closes it"
        if tracked.repository in self.run.unknown_repositories:
            return "something failed in its repository in this run"
        if not self._only.match(tracked.repository) or not self.run.covers(tracked.repository):
            return "this run did not ask for its repository"
        if tracked.run_started_at and tracked.run_started_at > self.run.started_at and not self._desk.options.older:
            return f"the later run {tracked.run_id} has it"
        return ""

    def _publish(self, number: int) -> Outcome | None:
        if self._desk.stop.is_set():
            raise Stopped
        try:
            wanted = self.run.wanted(number)
        except BatchError as error:
            return Outcome(repository="", branch=f"changeset {number}", done="failed", reason=str(error))
        if not self._only.match(wanted.repository):
            return None
        return self._guarded(wanted.repository, wanted.label, lambda: self._reconcile(wanted))

    def _reconcile(self, wanted: Wanted) -> Outcome:
        place = self._hosts.place(wanted.repository)
        document = self._tracking.open(self._tracking.key(wanted.repository, wanted.label))
        return Reconciler(self._desk, place, wanted, document).run()

    def _guarded(self, repository: str, branch: str, work: Callable[[], Outcome]) -> Outcome:
        """The outcome; one changeset's trouble is its own. Raises Stopped."""
        try:
            outcome = self._repeated(work)
        except HostStopped as error:
            raise Stopped from error
        except (HostTrouble, StoreTrouble, BatchError) as error:
            if isinstance(error, Stopped):
                raise
            outcome = Outcome(repository=repository, branch=branch, done="failed", reason=str(error))
            self._remember(repository, branch, str(error))
        log.info("%s %s: %s %s", repository, branch, outcome.done, outcome.reason or "; ".join(outcome.actions))
        return outcome

    def _repeated(self, work: Callable[[], Outcome]) -> Outcome:
        meetings = tries = 0
        while True:
            try:
                return work()
            except (ArtifactConflict, BranchMoved):
                meetings += 1
                if meetings >= _MEETINGS:
                    raise
            except (BatchError, StoreTrouble) as error:
                tries += 1
                if not is_temporary(error) or tries >= _TRIES:
                    raise
                if self._desk.stop.wait(_WAIT_SECONDS * tries):
                    raise Stopped from error

    def _remember(self, repository: str, branch: str, problem: str) -> None:
        """Why it failed, for `batchwright status`; the store itself may be what failed."""
        if self._desk.dry_run:
            return
        try:
            document = self._tracking.open(self._tracking.key(repository, branch))
            tracked = document.content or TrackedChangeset(
                batch_change=self.run.batch_change, repository=repository, branch=branch, state="failed"
            )
            state = tracked.state if tracked.external_id else "failed"
            document.write(tracked.model_copy(update={"problem": problem, "state": state}))
        except (StoreTrouble, BatchError) as error:
            log.warning("%s %s: the failure cannot be noted: %s", repository, branch, error)
