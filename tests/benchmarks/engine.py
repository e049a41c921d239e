"""The engine's HTTP API with nothing in between: one kept-alive connection, JSON in and out."""

from __future__ import annotations

import http.client
import json
import os
import socket
from types import TracebackType
from typing import Any

_DEFAULT = "unix:///var/run/docker.sock"


class EngineRefused(Exception):
    """The engine answered with an error."""


class Engine(http.client.HTTPConnection):
    """A connection to the engine's Unix socket. A context manager; for one thread."""

    def __init__(self) -> None:
        super().__init__("docker")
        address = os.environ.get("DOCKER_HOST", _DEFAULT)
        if not address.startswith("unix://"):
            raise EngineRefused(f"the benchmarks measure this machine's engine, not {address}: unset DOCKER_HOST")
        self._path = address.removeprefix("unix://")

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def connect(self) -> None:
        self.sock = self.new_socket()

    def new_socket(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        return connection

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call; gives the decoded answer, None if it is empty. Raises EngineRefused."""
        content = None if body is None else json.dumps(body)
        self.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        with self.getresponse() as response:
            text = response.read()
        if response.status >= 400:
            raise EngineRefused(f"{method} {path}: {response.status} {text.decode(errors='replace')}")
        return json.loads(text) if text else None

    def attach(self, container: str) -> socket.socket:
        """The stream of a created container's output, in the engine's frames; it ends with the container."""
        stream = self.new_socket()
        stream.sendall(
            f"POST /containers/{container}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\n"
            "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: what comes after it is output
            byte = stream.recv(1)
            if not byte:
                raise EngineRefused(f"cannot attach to {container}: {head.decode(errors='replace')}")
            head += byte
        return stream
