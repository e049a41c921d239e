"""Work that nobody has to wait for before the end, such as removing what a workspace leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType

log = logging.getLogger(__name__)

_AT_ONCE = 4


class Afterwards:
    """Does it in other threads. A context manager: leaving it waits for all, then raises the first failure."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="afterwards")
        self._lock = Lock()
        self._failures: list[BaseException] = []

    def __enter__(self) -> Afterwards:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(wait=True)
        for failure in self._failures:
            log.warning("cleaning up failed: %s", failure)
        if self._failures and error is None:
            raise self._failures[0]

    def do(self, work: Callable[[], object]) -> None:
        """Have ``work`` done, soon."""
        try:
            self._pool.submit(work).add_done_callback(self._note)
        except RuntimeError:  # the interpreter shuts down and takes no new work for other threads
            work()

    def _note(self, done: Future[object]) -> None:
        if (failure := done.exception()) is not None:
            with self._lock:
                self._failures.append(failure)
