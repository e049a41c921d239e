"""The text of a log entry, bounded: what is for people keeps its head and its tail, what is for programs all of itself.

An entry is sent whole each time that it has changed, and is kept in the instance's database: it must not grow forever.
"""

from __future__ import annotations

from collections import deque

HEAD_CHARACTERS = TAIL_CHARACTERS = 128 * 1024


class BoundedText:
    """Whole lines, in the order in which they came. For one thread at a time."""

    def __init__(self, head_characters: int = HEAD_CHARACTERS, tail_characters: int = TAIL_CHARACTERS) -> None:
        self._head_left, self._tail_characters = head_characters, tail_characters
        self._parts: list[str] = []
        self._tail: deque[int] = deque()
        """Where in the parts the droppable ones of the tail are."""
        self._tail_size = 0
        self._dropped = 0
        self._first_dropped = -1

    def add(self, lines: str, *, keep: bool = False) -> None:
        """Add lines, each ended by a newline. ``keep``: they are for programs, and stay whatever comes."""
        self._parts.append(lines)
        if keep:
            return
        if self._head_left > 0:
            self._head_left -= len(lines)
            return
        self._tail.append(len(self._parts) - 1)
        self._tail_size += len(lines)
        while self._tail_size > self._tail_characters and len(self._tail) > 1:
            self._drop(self._tail.popleft())

    def render(self, left_out: str) -> str:
        """All of it; ``left_out``, with the number of lines in place of ``{}``, stands where lines are missing."""
        if not self._dropped:
            return "".join(self._parts)
        marked = list(self._parts)
        marked[self._first_dropped] = left_out.format(self._dropped)
        return "".join(marked)

    def _drop(self, index: int) -> None:
        lines = self._parts[index]
        self._tail_size -= len(lines)
        self._dropped += lines.count("\n")
        self._parts[index] = ""
        if self._first_dropped < 0:
            self._first_dropped = index


class HeadAndTail:
    """A sink that keeps the first and the last ``half_bytes`` of what is written to it."""

    def __init__(self, half_bytes: int) -> None:
        self._half_bytes = half_bytes
        self._head, self._tail, self._size = bytearray(), bytearray(), 0

    def write(self, content: bytes, /) -> None:
        missing = self._half_bytes - len(self._head)
        self._head += content[:missing]
        self._tail += content[missing:]
        if len(self._tail) > 2 * self._half_bytes:
            del self._tail[: -self._half_bytes]
        self._size += len(content)

    def content(self) -> bytes:
        """What was kept, with a line in between that says how much is missing."""
        tail = self._tail[-self._half_bytes :]
        missing = self._size - len(self._head) - len(tail)
        between = b"\n(... %d bytes left out ...)\n" % missing if missing else b""
        return bytes(self._head + between + tail)
