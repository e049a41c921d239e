"""A container's stdout and stderr as the engine sends them: one connection, frames of both. Never whole in memory."""

from __future__ import annotations

import socket
from contextlib import suppress
from types import TracebackType
from typing import Any

import docker

from blocks.runtime import RuntimeUnavailable
from blocks.store import Sink

_HEADER_BYTES = 8
_BUFFER_BYTES = 256 * 1024
_STDOUT, _STDERR = 1, 2


class Attachment:
    """The output of a container from its first byte on: attach before the start. A context manager."""

    def __init__(self, api: docker.APIClient, container: str) -> None:
        """Raises docker-py's errors."""
        stream: Any = api.attach_socket(container, {"stdout": 1, "stderr": 1, "stream": 1})
        self._stream = stream
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            getattr(
                self._stream, "_response", self._stream
            ).close()  # the response, where there is one, owns the socket

    def receive(self, timeout_seconds: float) -> memoryview | None:
        """The next bytes, valid until the next call: empty at the end, None if there are none yet. Raises OSError."""
        self._socket.settimeout(timeout_seconds)
        try:
            return self._buffer[: self._socket.recv_into(self._buffer)]
        except TimeoutError:
            return None


class Demultiplexer:
    """Parts the frames of an attachment (8 bytes of header: kind, length) that come in pieces of any size."""

    def __init__(self, stdout: Sink, stderr: Sink) -> None:
        self._sinks = {_STDOUT: stdout, _STDERR: stderr}
        self._header = bytearray()
        self._sink = stdout
        self._left = 0

    def feed(self, data: memoryview) -> None:
        """Write what ``data`` holds to where it belongs. Raises RuntimeUnavailable for what no engine sends."""
        while data:
            if self._left:
                piece = data[: self._left]
                self._sink.write(bytes(piece))
                self._left -= len(piece)
            else:
                piece = data[: _HEADER_BYTES - len(self._header)]
                self._header += piece
                if len(self._header) == _HEADER_BYTES:
                    self._begin_frame()
            data = data[len(piece) :]

    @property
    def between_frames(self) -> bool:
        """Whether nothing of a frame is missing."""
        return not self._left and not self._header

    def _begin_frame(self) -> None:
        kind, length = self._header[0], int.from_bytes(self._header[4:])
        self._header.clear()
        if kind not in self._sinks:
            raise RuntimeUnavailable(f"the engine sent a damaged output stream: a frame of kind {kind}")
        self._sink, self._left = self._sinks[kind], length
