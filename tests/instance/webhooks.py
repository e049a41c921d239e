"""Outgoing webhooks: events wait in a table, one thread posts them, again if any receiver did not take one."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import threading
import time
from typing import Any

import httpx
from fastapi import APIRouter

from .state import Instance

SCHEMA = """
CREATE TABLE IF NOT EXISTS webhooks (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL, secret TEXT NOT NULL, event TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS webhook_jobs (
    id INTEGER PRIMARY KEY, event TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
    attempts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS webhook_logs (
    id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, webhook_id INTEGER NOT NULL, status INTEGER, answer TEXT);
"""
_POLL_SECONDS = 0.2
_ATTEMPTS = 4


def enqueue(db: sqlite3.Connection, event: str, payload: dict[str, Any]) -> None:
    """Have an event told to all hooks that want it."""
    db.execute("INSERT INTO webhook_jobs (event, body) VALUES (?, ?)", (event, json.dumps(payload)))


def start_sender(instance: Instance) -> None:
    """One thread for the whole instance, as long as the process lives."""
    threading.Thread(target=_send_for_ever, args=(instance,), daemon=True).start()


def signature(secret: str, body: bytes) -> str:
    """Hex, and nothing before it."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def admin_router(instance: Instance) -> APIRouter:
    """What tests may do: register hooks, have an event told."""
    routes = APIRouter()

    @routes.post("/webhooks")
    def add(url: str, secret: str, event: str) -> int | None:
        with instance.transaction() as db:
            return db.execute(
                "INSERT INTO webhooks (url, secret, event) VALUES (?, ?, ?)", (url, secret, event)
            ).lastrowid

    @routes.post("/events/{event}")
    def tell(event: str, payload: dict[str, Any]) -> None:
        with instance.transaction() as db:
            enqueue(db, event, payload)

    return routes


def _send_for_ever(instance: Instance) -> None:
    while True:
        with instance.transaction() as db:
            job = db.execute("SELECT * FROM webhook_jobs WHERE state = 'queued' ORDER BY id LIMIT 1").fetchone()
            hooks = db.execute("SELECT * FROM webhooks WHERE event = ?", (job["event"],)).fetchall() if job else []
        if job is None:
            time.sleep(_POLL_SECONDS)
            continue
        answers = [_post(instance, job, hook) for hook in hooks]  # all are told, whatever the first one says
        taken = all(answers)
        state = "completed" if taken else "queued" if job["attempts"] + 1 < _ATTEMPTS else "failed"
        with instance.transaction() as db:
            db.execute("UPDATE webhook_jobs SET state = ?, attempts = attempts + 1 WHERE id = ?", (state, job["id"]))
        if not taken:
            time.sleep(_POLL_SECONDS)


def _post(instance: Instance, job: sqlite3.Row, hook: sqlite3.Row) -> bool:
    """Whether the receiver took it."""
    body = job["body"].encode()
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "X-Sourcegraph-Webhook-Event-Type": job["event"],
        "X-Sourcegraph-Webhook-Signature": signature(hook["secret"], body),
    }
    status, text = None, ""
    try:
        answer = httpx.post(hook["url"], content=body, headers=headers, timeout=20)
        status, text = answer.status_code, answer.text
    except httpx.TransportError as error:
        text = str(error)
    with instance.transaction() as db:
        db.execute(
            "INSERT INTO webhook_logs (job_id, webhook_id, status, answer) VALUES (?, ?, ?, ?)",
            (job["id"], hook["id"], status, text),
        )
    return status is not None and status < 400
