"""Notices in the flow's own process that its run was cancelled.

A run from the command line has no worker that would stop it; for the others this is the second way, which works also
when the worker died.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

log = logging.getLogger(__name__)

_SECONDS = 3.0
"""Between two looks. A worker's signal comes sooner."""
_LAST_LOOK_SECONDS = 1.0


@contextmanager
def watched(flow_run_id: UUID, cancel: Event) -> Iterator[None]:
    """Set ``cancel`` within seconds after the flow run was cancelled on the server, as long as this is open."""
    left = Event()
    watcher = Thread(
        target=copy_context().run, args=(_watch, flow_run_id, cancel, left), name="cancel-watch", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join(_LAST_LOOK_SECONDS)


def _watch(flow_run_id: UUID, cancel: Event, left: Event) -> None:
    with get_client(sync_client=True) as client:
        while not left.wait(_SECONDS):
            try:
                state = client.read_flow_run(flow_run_id).state
            except (httpx.HTTPError, PrefectException) as error:
                log.debug("cannot see whether the run was cancelled: %s", error)
                continue
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                log.info("the run was cancelled: its containers are stopped")
                cancel.set()
                return
