"""A client of a library for each thread: their connections are for one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_C = TypeVar("_C")


class PerThread(Generic[_C]):
    """What ``make`` gives, once in each thread that asks. After ``close_all``, whoever asks gets a new one."""

    def __init__(self, make: Callable[[], _C], close: Callable[[_C], object]) -> None:
        self._make, self._close = make, close
        self._mine = threading.local()
        self._made: list[_C] = []

    def get(self) -> _C:
        found: _C | None = getattr(self._mine, "client", None)
        if found is None:
            found = self._mine.client = self._make()
            self._made.append(found)
        return found

    def close_all(self) -> None:
        self._mine = threading.local()
        while self._made:
            self._close(self._made.pop())
