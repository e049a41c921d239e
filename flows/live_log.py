"""A step's output as people watch it: whole lines, rate-limited, head and tail. The full text is in the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .rhythm import Rhythm

HEAD_LINES = 200
TAIL_LINES = 50
LINE_CHARACTERS = 1000
SECONDS_BETWEEN_RECORDS = 0.5

_LINE_BYTES = LINE_CHARACTERS * 4 + 1
"""As many as a line that has to be cut takes, whatever its characters."""


class LiveLog:
    """Takes a stream's bytes, hands text on: at most one record in half a second, each with the lines since the last.

    The first lines are shown as they come; of what follows only the last ones, when the stream ends. A line of any
    length and a stream of any size cost flat memory.
    """

    def __init__(self, prefix: str, show: Callable[[str], None]) -> None:
        self._prefix, self._show = prefix, show
        self._line, self._waiting = b"", list[str]()
        self._tail = deque[bytes](maxlen=TAIL_LINES)
        self._count = 0
        self._rhythm = Rhythm(self._flush, SECONDS_BETWEEN_RECORDS)

    def write(self, data: bytes) -> int:
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[:_LINE_BYTES]
        with self._rhythm.lock:
            self._take(lines)
            if self._waiting:
                self._rhythm.wish()
        return len(data)

    def close(self) -> None:
        self._rhythm.close()
        if self._line:
            self._take([self._line])
            self._line = b""
        hidden = self._count - HEAD_LINES - len(self._tail)
        if hidden > 0:
            self._waiting.append(f"{self._prefix}(... {hidden} lines are in the store only ...)")
        self._waiting.extend(map(self._shown, self._tail))
        self._tail.clear()
        self._flush()

    def _take(self, lines: list[bytes]) -> None:
        head = lines[: max(0, HEAD_LINES - self._count)]
        self._count += len(lines)
        self._waiting.extend(map(self._shown, head))
        self._tail.extend(line[:_LINE_BYTES] for line in lines[len(head) :][-TAIL_LINES:])

    def _shown(self, line: bytes) -> str:
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        if len(text) > LINE_CHARACTERS:
            text = text[:LINE_CHARACTERS] + " (... line cut ...)"
        return self._prefix + text.replace("\0", "�")

    def _flush(self) -> None:
        if self._waiting:
            self._show("\n".join(self._waiting))
            self._waiting = []
