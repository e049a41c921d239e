"""When something that comes in bits is handed on: not more often than every so many seconds, and not later either."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import copy_context
from threading import RLock, Timer


class Rhythm:
    """Has ``hand_on`` called after ``wish``: at once, or when ``seconds`` have passed since the last time.

    ``hand_on`` is called by who wishes or by a thread of this object, always while ``lock`` is held: whoever changes
    what it hands on holds the lock, too. After ``close`` it is called no more.
    """

    def __init__(self, hand_on: Callable[[], None], seconds: float) -> None:
        self.lock = RLock()
        self._hand_on, self._seconds = hand_on, seconds
        self._last = float("-inf")
        self._timer: Timer | None = None
        self._round = 0
        self._context = copy_context()

    def wish(self) -> None:
        """There is something to hand on. Call it with the lock held."""
        wait = self._last + self._seconds - time.monotonic()
        if wait <= 0:
            self.now()
        elif self._timer is None:
            self._timer = Timer(wait, self._context.run, args=(self._late, self._round))
            self._timer.daemon = True
            self._timer.start()

    def now(self) -> None:
        """Hand on without waiting. Call it with the lock held."""
        self._forget()
        self._last = time.monotonic()
        self._hand_on()

    def close(self) -> None:
        """Wait for a call that is under way; there will be no other."""
        with self.lock:
            self._forget()

    def _late(self, round: int) -> None:
        with self.lock:
            if round == self._round:  # else somebody was faster
                self.now()

    def _forget(self) -> None:
        self._round += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
