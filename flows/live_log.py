"""A step's output as people watch it: whole lines, rate-limited, head and tail. The full text is in the store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

HEAD_LINES = 200
TAIL_LINES = 50
LINE_CHARACTERS = 1000
SECONDS_BETWEEN_RECORDS = 0.5


class LiveLog:
    """Takes a stream's bytes, hands text on: at most one record in half a second, each with the lines since the last.

    The first lines are shown as they come; of what follows only the last ones, when the stream ends. A line of any
    length and a stream of any size cost flat memory.
    """

    def __init__(self, prefix: str, show: Callable[[str], None]) -> None:
        self._prefix, self._show = prefix, show
        self._line, self._waiting = b"", list[str]()
        self._tail = deque[str](maxlen=TAIL_LINES)
        self._count, self._shown_at = 0, 0.0

    def write(self, data: bytes) -> int:
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[: LINE_CHARACTERS * 4 + 1]
        for line in lines:
            self._take(line)
        if self._waiting and time.monotonic() - self._shown_at >= SECONDS_BETWEEN_RECORDS:
            self._flush()
        return len(data)

    def close(self) -> None:
        if self._line:
            self._take(self._line)
            self._line = b""
        hidden = self._count - HEAD_LINES - len(self._tail)
        if hidden > 0:
            self._waiting.append(f"{self._prefix}(... {hidden} lines are in the store only ...)")
        self._waiting.extend(self._tail)
        self._tail.clear()
        self._flush()

    def _take(self, line: bytes) -> None:
        self._count += 1
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        if len(text) > LINE_CHARACTERS:
            text = text[:LINE_CHARACTERS] + " (... line cut ...)"
        shown = self._prefix + text.replace("\0", "�")
        (self._waiting if self._count <= HEAD_LINES else self._tail).append(shown)

    def _flush(self) -> None:
        if self._waiting:
            self._show("\n".join(self._waiting))
            self._waiting = []
            self._shown_at = time.monotonic()
