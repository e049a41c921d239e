"""Notices in the flow's own process that its run was cancelled, or goes on in another process.

A run from the command line has no worker that would stop it; for the others this is the second way, which works also
when the worker died. A process that cannot reach the server for minutes is taken for dead, and its run for Crashed;
where Retry, or the run that a shard is of, then lets another worker go on, there must not be two of them for long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, PrefectException
from prefect.states import Cancelled

log = logging.getLogger(__name__)

_SECONDS = 3.0
"""Between two looks. A worker's signal comes sooner."""
_LAST_LOOK_SECONDS = 1.0


@contextmanager
def watched(flow_run_id: UUID, cancel: Event, *, hand_over: Callable[[], None] | None = None) -> Iterator[None]:
    """Set ``cancel`` within seconds after the flow run was cancelled on the server, as long as this is open.

    ``hand_over`` is called as soon as another process has begun an attempt at the run. Then this raises Abort: Prefect
    ends this process, and leaves the run's state to the other.
    """
    watch = _Watch(flow_run_id, cancel, hand_over)
    watcher = Thread(target=copy_context().run, args=(watch.look,), name="cancel-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        watch.left.set()
        watcher.join(_LAST_LOOK_SECONDS)
        if watch.handed_over:
            raise Abort("another process goes on with this run")


def ended_if_cancelled(flow_run_id: UUID) -> bool:
    """Before a run begins in this process, and after it has ended: end it, if it is being cancelled.

    A run that is cancelled in the moment in which a worker takes it is nobody's: Prefect's engine does not begin it,
    the worker cannot stop what has not begun, and the server gives up after five minutes only.
    """
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run_id).state
            if state is None or not state.is_cancelling():
                return False
            ended: State[Any] = Cancelled(message="Cancelled; no process works on it.")
            client.set_flow_run_state(flow_run_id, ended, force=True)
    except (httpx.HTTPError, PrefectException) as error:
        log.debug("cannot see whether the run was cancelled: %s", error)
        return False
    return True


class _Watch:
    def __init__(self, flow_run_id: UUID, cancel: Event, hand_over: Callable[[], None] | None) -> None:
        self.left = Event()
        self.handed_over = False
        self._flow_run_id, self._cancel, self._hand_over = flow_run_id, cancel, hand_over
        self._attempt: int | None = None

    def look(self) -> None:
        """Until there is nothing more to look for."""
        with get_client(sync_client=True) as client:
            while not (self.left.wait(_SECONDS) or self._is_over(client)):
                pass

    def _is_over(self, client: SyncPrefectClient) -> bool:
        try:
            found = client.read_flow_run(self._flow_run_id)
        except (httpx.HTTPError, PrefectException) as error:
            log.debug("cannot see whether the run was cancelled: %s", error)
            return False
        self._attempt = self._attempt or found.run_count
        if found.state is not None and (found.state.is_cancelling() or found.state.is_cancelled()):
            log.info("the run was cancelled: its containers are stopped")
            self._cancel.set()
            return True
        if self._hand_over is not None and found.run_count > self._attempt:
            log.warning("another process goes on with this run, as this one was taken for dead: it ends")
            self.handed_over = True
            self._hand_over()
            return True
        return False
