"""The webhook service as a process: uvicorn with bounds on what strangers can hold on to; rules from blocks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from blocks.webhook_rules import WebhookRules

from .webhook_runs import PrefectAway

log = logging.getLogger(__name__)

HEADER_SECONDS = 10.0
"""How long a connection may take until its request's headers are there."""
MOST_CONNECTIONS = 128
FRESH_SECONDS = 3.0
"""How long rules are used before they are read anew."""


class FixedRules:
    """Rules that stay as they are: from files."""

    def __init__(self, rules: Mapping[str, WebhookRules]) -> None:
        self._rules = dict(rules)

    def names(self) -> Sequence[str]:
        return list(self._rules)

    def rules(self, name: str) -> WebhookRules:
        return self._rules[name]


class StoredRules:
    """Rules from stored blocks: an edit in the dashboard counts within seconds. While Prefect is away, as they were."""

    def __init__(self, names: Sequence[str], load: Callable[[str], WebhookRules]) -> None:
        """``load`` raises what it likes when a block cannot be read."""
        self._names, self._load, self._lock = tuple(names), load, Lock()
        self._known: dict[str, tuple[float, WebhookRules]] = {}

    def names(self) -> Sequence[str]:
        return self._names

    def rules(self, name: str) -> WebhookRules:
        with self._lock:
            at, rules = self._known.get(name, (float("-inf"), None))
            if rules is not None and time.monotonic() - at < FRESH_SECONDS:
                return rules
            try:
                rules = self._load(name)
            except Exception as error:  # whatever Prefect's client and its settings raise
                if rules is None:
                    raise PrefectAway(f"webhook-rules/{name} cannot be read ({type(error).__name__})") from error
                log.warning("webhook-rules/%s cannot be read (%s): used as it was", name, type(error).__name__)
            self._known[name] = (time.monotonic(), rules)
            return rules


class _Impatient(H11Protocol):
    """Ends a connection whose request does not come. Each carries one request: the service closes it afterwards."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._given_up = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._given_up.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is None:
            self.transport.close()


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until the process is asked to end; deliveries under way are answered first."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=_Impatient,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=30,
        h11_max_incomplete_event_size=64 * 1024,
    )
