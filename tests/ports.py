"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket

_OWN = range(22_000, 32_000)
"""Below those that the system gives to connections: a server that was killed finds its port free when it comes back.

And above the familiar ones: two servers that prefer the same port may take each other's while one of them is away.
"""


def free_port() -> int:
    """A port that nobody has now, and that nobody else is likely to choose."""
    return next(port for port in random.SystemRandom().sample(_OWN, 100) if is_free(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
