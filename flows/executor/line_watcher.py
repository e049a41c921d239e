"""A step's stream as whole lines with a prefix, handed on every half second: how upstream shows programs."""

from __future__ import annotations

from collections.abc import Callable

from ..rhythm import Rhythm

FLUSH_SECONDS = 0.5
FLUSH_CHARACTERS = 64 * 1024
LINE_BYTES = 1024 * 1024
"""A longer line is shown in pieces of this length."""


class LineWatcher:
    """Takes bytes; gives text to ``hand_on``: lines ended by a newline, each with ``prefix``. Close it."""

    def __init__(self, prefix: str, hand_on: Callable[[str], None]) -> None:
        self._prefix, self._hand_on = prefix, hand_on
        self._rest, self._waiting, self._size = b"", list[str](), 0
        self._rhythm = Rhythm(self._flush, FLUSH_SECONDS)

    def write(self, data: bytes, /) -> int:
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._rhythm.lock:
            for line in lines:
                self._take(line)
            while len(self._rest) > LINE_BYTES:
                self._take(self._rest[:LINE_BYTES])
                self._rest = self._rest[LINE_BYTES:]
            if self._size > FLUSH_CHARACTERS:
                self._rhythm.now()
            elif self._waiting:
                self._rhythm.wish()
        return len(data)

    def close(self) -> None:
        self._rhythm.close()
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        self._flush()

    def _take(self, line: bytes) -> None:
        text = f"{self._prefix}{line.decode('utf-8', 'replace')}\n"
        self._waiting.append(text)
        self._size += len(text)

    def _flush(self) -> None:
        if self._waiting:
            self._hand_on("".join(self._waiting))
            self._waiting, self._size = [], 0
