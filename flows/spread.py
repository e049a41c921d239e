"""A run's shards as flow runs of a second deployment, on any worker: started, watched, taken over, cancelled.

Prefect says which of them run; the store says what is done. A shard is started under a key of the run's flow run, so
that no attempt starts a second one; one that has ended with work left is sent back to the work pool (AwaitingRetry).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import AwaitingRetry, Cancelled, Cancelling

from blocks.store import StoreTrouble

from . import progress
from .batches.errors import Stopped
from .batches.results import Failure
from .failures import says_disk_full
from .runs import BatchRun
from .shares import NEVER_BEGUN

log = logging.getLogger(__name__)

DEPLOYMENT = "workspace-shard/workspace-shard"

LOOK_SECONDS = 5.0
"""Between two looks at the shards: one request, however many run."""

SMALLEST_SHARD, LARGEST_SHARD = 100, 250

TAKE_OVERS = 3
"""How often a shard that crashed (its worker died) is sent back to the pool in one attempt at the run."""

_END_SECONDS = 60.0
"""How long shards that were cancelled may take to end. Prefect gives their processes 30 s."""

_UNHEARD_SECONDS = 10.0
"""How long a shard that was cancelled may say nothing before it is looked whether anybody works on it."""

IDLE_LOOKS = 12
"""After so many looks at shards that nobody takes, people are told."""

_HANDED_ON = {"repositories", "engine", "artifacts", "options", "secrets", "variables", "spec_folder"}
"""The parameters of the batch change that its shards take too, as they were given: blocks as references."""

_PAGE = 200
"""Flow runs in an answer of Prefect's API."""


def per_shard(workspaces: int) -> int:
    """How many workspaces a shard of a run has at most, where nobody says it.

    A shard costs some five seconds of CPU to start (tests.benchmarks.scale): little for 100 workspaces, less for 250. A
    graph of more than 250, with five bars each, is no pleasure. Four shards can be shared well.
    """
    return min(max(SMALLEST_SHARD, -(-workspaces // 4)), LARGEST_SHARD)


def shards_wanted(run: BatchRun) -> int:
    """In how many shards to run what was found. 1: here, as without a deployment no worker could take a share."""
    workspaces = len(run.resolution.workspaces)
    most = run.options.workspaces_per_shard or per_shard(workspaces)
    if workspaces <= most or not runtime.deployment.id:
        return 1
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            log.warning(
                "%d workspaces run in one process, as there is no deployment %s: `batchwright deploy` makes it",
                workspaces,
                DEPLOYMENT,
            )
            return 1
    return -(-workspaces // most)


def run_shards(run: BatchRun) -> None:
    """Have every shard with work left run, and take in what became of its workspaces.

    A server or a store that is away for a while is waited for. Raises Stopped once the run was cancelled: so are its
    shards then. What else interrupts this (the end of this worker) leaves the shards to themselves; another attempt at
    the run finds them.
    """
    with get_client(sync_client=True) as client:
        spread = _Spread(client, run)
        try:
            spread.wait()
        except BaseException:
            with suppress(httpx.HTTPError, PrefectException):
                parent = client.read_flow_run(spread.parent)
                if parent.state and (parent.state.is_cancelling() or parent.state.is_cancelled()):
                    spread.cancel()
            raise


def cancel_shards(flow_run_id: UUID, shards: int) -> None:
    """Cancel what still runs of a run's shards."""
    with get_client(sync_client=True) as client:
        for shard in _shards_of(client, flow_run_id, range(1, shards + 1)).values():
            _cancel(client, shard)


class _Spread:
    """The shards of one run, during one attempt at it."""

    def __init__(self, client: SyncPrefectClient, run: BatchRun) -> None:
        self.parent = UUID(runtime.flow_run.id)
        self._client, self._run = client, run
        left = set(run.left)
        self._numbers = {shard: run.shard_of(shard) for shard in range(1, run.shards + 1)}
        self._open = {shard for shard, numbers in self._numbers.items() if left & set(numbers)}
        """Those that have not ended in this attempt."""
        self._sent: Counter[int] = Counter()
        """How often each was sent to the work pool in this attempt, or was found there."""
        self._ends: dict[int, State[Any]] = {}
        self._idle_looks = 0

    def wait(self) -> None:
        """Until all have ended. Raises Stopped."""
        failed_fast = False
        while self._open and not failed_fast and not self._run.cancel.is_set():
            self._look_again()
            failed_fast = self._run.options.fail_fast and any(state.is_failed() for state in self._ends.values())
            self._run.cancel.wait(LOOK_SECONDS if self._open and not failed_fast else 0)
        if self._run.ledger.is_closed:
            raise Stopped("another process goes on with the run, and with its shards")
        if self._open:
            self._stop()
        if self._run.cancel.is_set():
            raise Stopped("the run was cancelled, and its shards with it")
        for shard, numbers in self._numbers.items():
            self._note_what_is_missing(shard, numbers)

    def cancel(self) -> None:
        """Cancel all that have not ended."""
        for shard in _shards_of(self._client, self.parent, sorted(self._open)).values():
            _cancel(self._client, shard)

    def _stop(self) -> None:
        """Cancel all that have not ended, and wait for them for a while."""
        deadline = time.monotonic() + _END_SECONDS
        while self._open and time.monotonic() < deadline:
            self._look_again(stopping=True)
            time.sleep(LOOK_SECONDS / 5 if self._open else 0)

    def _look_again(self, *, stopping: bool = False) -> None:
        try:
            self._look(stopping)
        except (httpx.HTTPError, PrefectException, StoreTrouble) as error:
            if isinstance(error, StoreTrouble) and not error.temporary:
                raise
            log.warning("cannot look after the shards, and will try again: %s", error)

    def _look(self, stopping: bool) -> None:
        known = _shards_of(self._client, self.parent, sorted(self._open))
        for shard in sorted(self._open):
            if shard in known:
                self._judge(shard, known[shard], stopping)
            elif stopping:
                self._open.discard(shard)
            else:
                self._start(shard)
        self._say_if_nobody_works([known[shard].state for shard in self._open if shard in known])

    def _judge(self, shard: int, flow_run: FlowRun, stopping: bool) -> None:
        """Go by a shard's state: wait on, send it to the pool once more, or take in what became of it."""
        state = flow_run.state
        if state is None or not state.is_final():
            self._sent[shard] = max(1, self._sent[shard])
            if stopping:
                _cancel(self._client, flow_run)
        elif not stopping and (not self._sent[shard] or (state.is_crashed() and self._sent[shard] <= TAKE_OVERS)):
            self._send_again(shard, flow_run, state)
        else:
            self._take_in(shard, state)

    def _start(self, shard: int) -> None:
        parameters = self._client.read_flow_run(self.parent).parameters
        taken = {name: value for name, value in parameters.items() if name in _HANDED_ON}
        run_deployment(
            DEPLOYMENT,
            parameters={**taken, "run": self._run.run_id, "shard": shard},
            flow_run_name=f"{self._run.spec.name} · shard {shard} of {self._run.shards}",
            timeout=0,
            idempotency_key=_key(self.parent, shard),
        )
        self._sent[shard] += 1

    def _send_again(self, shard: int, flow_run: FlowRun, state: State[Any]) -> None:
        log.info("shard %d is %s with work left: any worker may go on with it", shard, state.name)
        # By force, as the dashboard's Retry does it: a state that is final yields to nothing else.
        self._client.set_flow_run_state(flow_run.id, AwaitingRetry(message="Work is left."), force=True)
        self._sent[shard] += 1

    def _take_in(self, shard: int, state: State[Any]) -> None:
        notify = progress.observer.get()
        for number, result in self._run.gather(self._numbers[shard]).items():
            notify(progress.WorkspaceEnded(number, result))
        self._ends[shard] = state
        self._open.discard(shard)
        log.info("shard %d of %d: %s, %s", shard, self._run.shards, state.name, state.message or "")

    def _say_if_nobody_works(self, states: Sequence[State[Any] | None]) -> None:
        waiting = bool(states) and all(state is not None and state.is_scheduled() for state in states)
        self._idle_looks = self._idle_looks + 1 if waiting else 0
        if self._idle_looks == IDLE_LOOKS:
            log.warning("no worker takes the shards; on a machine with an engine, start one: batchwright worker")

    def _note_what_is_missing(self, shard: int, numbers: Sequence[int]) -> None:
        """Of workspaces that no shard came to say anything about."""
        state = self._ends.get(shard)
        for number in numbers:
            if number not in self._run.results:
                self._run.leave_out(number, _why_unfinished(shard, state))


def _why_unfinished(shard: int, state: State[Any] | None) -> Failure:
    if state is None or state.is_cancelled():
        return NEVER_BEGUN
    told = f": {state.message}" if state.message else ""
    return Failure(
        reason="disk_full" if says_disk_full(told) else "infrastructure",
        message=f"Not finished: shard {shard} ended as {state.name}{told}. Retry goes on with it.",
    )


def _key(flow_run_id: UUID, shard: int) -> str:
    return f"{flow_run_id}:shard:{shard}"


def _shards_of(client: SyncPrefectClient, flow_run_id: UUID, shards: Sequence[int]) -> dict[int, FlowRun]:
    """The flow runs of these shards, as far as they were started."""
    wanted = {_key(flow_run_id, shard): shard for shard in shards}
    keys, found = list(wanted), {}
    for first in range(0, len(keys), _PAGE):
        some = FlowRunFilterIdempotencyKey(any_=keys[first : first + _PAGE])
        for flow_run in client.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=some), limit=_PAGE):
            found[wanted[str(flow_run.idempotency_key)]] = flow_run
    return found


def _cancel(client: SyncPrefectClient, shard: FlowRun) -> None:
    """Ask a shard to stop; one that nobody has begun is then Cancelled at once.

    Asked in the moment in which a worker takes it, Prefect's worker neither begins it nor says so, and the server waits
    for five minutes: then it is said here.
    """
    state = shard.state
    if state is None or state.is_final():
        return
    if not state.is_cancelling():
        client.set_flow_run_state(shard.id, Cancelling(message="The batch change was stopped."))
    elif time.time() - state.timestamp.timestamp() > _UNHEARD_SECONDS and not _has_begun(client, shard):
        never: State[Any] = Cancelled(message="The batch change was stopped before this began.")
        client.set_flow_run_state(shard.id, never, force=True)


def _has_begun(client: SyncPrefectClient, cancelling: FlowRun) -> bool:
    """Whether a process worked on a flow run when it was cancelled."""
    states = sorted(client.read_flow_run_states(cancelling.id), key=lambda state: state.timestamp)
    return any(state.is_running() for state in states[-2:])
