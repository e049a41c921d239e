"""How fast a code host is asked: so much at once, writes apart, waiting when it says so, trying again when it fails.

Of one process; other processes are noticed by what the host answers. No Prefect.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from blocks.code_hosts import HostLimited, HostStopped, HostUnavailable

log = logging.getLogger(__name__)

_T = TypeVar("_T")

TRIES = 6
FIRST_WAIT_SECONDS = 1.0
UNSAID_LIMIT_SECONDS = 60.0
"""How long to wait for a limit of which the host does not say when it ends; doubled each time. GitHub: "at least one
minute" (docs.github.com/rest, Best practices)."""


@dataclass
class Pace:
    """The pace for one host, shared by all threads that ask it. ``stop`` set: waiting ends with HostStopped."""

    where: str
    at_once: int = 4
    seconds_between_writes: float = 0.0
    patience_seconds: float = 3700.0
    """How long a wait that the host asks for may be; a longer one is told as HostLimited."""
    stop: threading.Event = field(default_factory=threading.Event)
    first_wait_seconds: float = FIRST_WAIT_SECONDS
    unsaid_limit_seconds: float = UNSAID_LIMIT_SECONDS

    def __post_init__(self) -> None:
        self._slots = threading.BoundedSemaphore(self.at_once)
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._next_write = 0.0

    def ask(self, verb: Callable[[], _T], *, write: bool = False) -> _T:
        """What ``verb`` gives; tried again on HostUnavailable, and when the limits allow it on HostLimited."""
        tries = limited = 0
        while True:
            self._await_turn(write)
            with self._slots:
                if time.monotonic() < self._not_before:
                    continue  # a limit was told while we waited for the slot
                try:
                    return verb()
                except HostLimited as error:
                    limited += 1
                    if limited > TRIES:
                        raise
                    self._hold(error, limited)  # before the slot is free: whoever waits for it must know
                    continue
                except HostUnavailable as error:
                    tries += 1
                    if tries >= TRIES:
                        raise
                    log.info("%s; trying again", error)
            self._sleep(self.first_wait_seconds * 2.0 ** (tries - 1) * random.uniform(0.75, 1.25))

    def _hold(self, error: HostLimited, times: int) -> None:
        """Nobody asks before the limit is over."""
        said = error.retry_after_seconds
        seconds = self.unsaid_limit_seconds * 2.0 ** (times - 1) if said is None else said
        if seconds > self.patience_seconds:
            raise error
        until = time.monotonic() + seconds
        with self._lock:
            if until > self._not_before + 1:
                log.warning("%s; going on in %.0f s", error, seconds)
            self._not_before = max(self._not_before, until)

    def _await_turn(self, write: bool) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                at = max(self._not_before, self._next_write if write else 0.0)
                if at <= now:
                    if write:
                        self._next_write = now + self.seconds_between_writes
                    return
            self._sleep(at - now)

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise HostStopped(self.where, "stopped while waiting for it")
