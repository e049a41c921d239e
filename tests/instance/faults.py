"""Faults to order: the middleware that makes requests fail as the tests want it, and notes every request.

A fault takes every ``every``-th request that matches ``method`` (empty: any) and ``path`` (a regular expression,
searched), ``times`` times (None: for ever). Its kind:

- ``status``: answered with status, headers and body, and not handled;
- ``lost``: handled, but the answer is status, headers and body instead (a proxy's 502 after the fact);
- ``cut``: the connection ends without an answer, and the request is not handled;
- ``cut-after``: handled, and then the connection ends without an answer;
- ``cut-body``: handled, and the connection ends in the middle of the answer's body;
- ``slow``: handled after ``seconds``.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .state import Instance

KINDS = ("status", "lost", "cut", "cut-after", "cut-body", "slow")
ADMIN = "/.admin/"
_SECRET = ("authorization",)


class Faults:
    """Stands in front of the whole app, except of the tests' own channel."""

    def __init__(self, app: ASGIApp, instance: Instance) -> None:
        self._app, self._instance = app, instance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(ADMIN):
            await self._app(scope, receive, send)
            return
        request, fault = self._noted(scope)
        if fault is None:
            await self._app(scope, receive, _Answer(self._instance, request, send))
        elif fault["kind"] == "slow":
            await asyncio.sleep(fault["seconds"])
            await self._app(scope, receive, _Answer(self._instance, request, send))
        elif fault["kind"] == "cut-body":
            await self._app(scope, receive, _cut_in_body(send))
        else:
            if fault["kind"] in ("lost", "cut-after"):
                await self._app(scope, receive, _nowhere)
            if fault["kind"].startswith("cut"):
                _cut(send)
            else:
                await _answer(fault, _Answer(self._instance, request, send))

    def _noted(self, scope: Scope) -> tuple[int, sqlite3.Row | None]:
        """The request's number, and the first fault whose turn it is."""
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        path = scope["path"] + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        with self._instance.transaction() as db:
            fault = _due(db, scope["method"], path)
            noted = db.execute(
                "INSERT INTO requests (method, path, headers, fault) VALUES (?, ?, ?, ?)",
                (scope["method"], path, json.dumps(headers), fault["kind"] if fault else None),
            )
            assert noted.lastrowid is not None
            return noted.lastrowid, fault


class _Answer:
    """Sends on, and notes the status."""

    def __init__(self, instance: Instance, request: int, send: Send) -> None:
        self._instance, self._request, self._send = instance, request, send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            with self._instance.transaction() as db:
                db.execute("UPDATE requests SET status = ? WHERE id = ?", (message["status"], self._request))
        await self._send(message)


def _due(db: sqlite3.Connection, method: str, path: str) -> sqlite3.Row | None:
    for fault in db.execute("SELECT * FROM faults WHERE times IS NULL OR times > 0 ORDER BY id").fetchall():
        if fault["method"] not in ("", method) or not re.search(fault["path"], path):
            continue
        db.execute("UPDATE faults SET seen = seen + 1 WHERE id = ?", (fault["id"],))
        if (fault["seen"] + 1) % fault["every"] == 0:
            db.execute("UPDATE faults SET times = times - 1 WHERE id = ?", (fault["id"],))
            row: sqlite3.Row = fault
            return row
    return None


async def _answer(fault: sqlite3.Row, send: Any) -> None:
    body = fault["body"].encode()
    headers = {"Content-Type": "text/plain", "Content-Length": str(len(body)), **json.loads(fault["headers"])}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault["status"], "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def _nowhere(message: Message) -> None:
    pass


def _cut_in_body(send: Send) -> Send:
    async def half(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
        elif message.get("body"):
            body = message["body"]
            await send({**message, "body": body[: len(body) // 2], "more_body": True})
            await asyncio.sleep(0.05)  # so that what was sent leaves before the reset
            _cut(send)

    return half


def _cut(send: Send) -> None:
    """End the connection at once. uvicorn hands out a bound method, and its owner has the connection."""
    send.__self__.transport.abort()  # type: ignore[attr-defined]
