"""The executor queue: dequeue, heartbeat, log entries, mark..., files and git, with upstream's checks and states."""

from __future__ import annotations

import hmac
import json
import secrets
import sqlite3
import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .accounts import Refused, digest
from .git import git_response
from .queue_jobs import job_of, results_in, wire_version
from .state import Instance

SCHEMA = """
CREATE TABLE IF NOT EXISTS executions (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL DEFAULT 'queued', record TEXT NOT NULL, worker TEXT,
    last_heartbeat REAL, cancel INTEGER NOT NULL DEFAULT 0, num_resets INTEGER NOT NULL DEFAULT 0,
    logs TEXT NOT NULL DEFAULT '[]', failure TEXT);
CREATE TABLE IF NOT EXISTS job_tokens (
    sha256 TEXT PRIMARY KEY, job INTEGER NOT NULL, queue TEXT NOT NULL, repository TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cache_entries (key TEXT NOT NULL, value TEXT NOT NULL, job INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS stored_files (key TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS marks (job INTEGER NOT NULL, verb TEXT NOT NULL, worker TEXT NOT NULL, status INTEGER);
"""

QUEUES = ("batches", "codeintel")
MOST_RESETS = 3
STALLED_SECONDS = 25.0
"""The setting `fake.stalledSeconds` makes it shorter."""
_ENTRY = ("key", "command", "startTime", "exitCode", "out", "durationMs")


def router(instance: Instance) -> APIRouter:
    """The routes below /.executors/."""
    routes = APIRouter(prefix="/.executors")

    @routes.get("/test/auth")
    def test_auth(request: Request) -> Response:
        _check_executor(instance, request)
        return PlainTextResponse("ok")

    @routes.post("/queue/dequeue")
    async def dequeue_any(request: Request) -> Response:
        _check_executor(instance, request)
        body = await _body(request)
        _check_queues(body.get("queues"))
        return _dequeue(instance, body)

    @routes.post("/queue/heartbeat")
    async def heartbeat_any(request: Request) -> Response:
        _check_executor(instance, request)
        body = await _body(request)
        _check_queues(body.get("queueNames"))
        ids = [id for part in body.get("jobIdsByQueue") or () for id in part.get("jobIds") or ()]
        return _heartbeat(instance, body, ids, "-batches")

    @routes.post("/queue/{queue}/dequeue")
    async def dequeue(request: Request, queue: str) -> Response:
        _check_executor(instance, request)
        _check_queues([queue])
        return _dequeue(instance, await _body(request))

    @routes.post("/queue/{queue}/heartbeat")
    async def heartbeat(request: Request, queue: str) -> Response:
        _check_executor(instance, request)
        _check_queues([queue])
        body = await _body(request)
        return _heartbeat(instance, body, body.get("jobIds") or [], "")

    @routes.post("/queue/{queue}/addExecutionLogEntry")
    async def add_log_entry(request: Request, queue: str) -> Response:
        _check_job(instance, request, queue)
        body = await _body(request)
        with instance.transaction() as db:
            row = _owned(db, body)
            logs = [*json.loads(row["logs"]), _entry(body)]
            db.execute("UPDATE executions SET logs = ? WHERE id = ?", (json.dumps(logs), row["id"]))
        return JSONResponse(len(logs))

    @routes.post("/queue/{queue}/updateExecutionLogEntry")
    async def update_log_entry(request: Request, queue: str) -> Response:
        _check_job(instance, request, queue)
        body = await _body(request)
        with instance.transaction() as db:
            row = _owned(db, body)
            logs = json.loads(row["logs"])
            number = body.get("entryId")
            if not isinstance(number, int) or not 1 <= number <= len(logs):
                raise _problem("unknown entry")
            logs[number - 1] = _entry(body)
            db.execute("UPDATE executions SET logs = ? WHERE id = ?", (json.dumps(logs), row["id"]))
        return Response(status_code=204)

    @routes.post("/queue/{queue}/{verb}")
    async def mark(request: Request, queue: str, verb: str) -> Response:
        if verb not in ("markComplete", "markErrored", "markFailed"):
            return PlainTextResponse("404 page not found\n", 404)
        _check_job(instance, request, queue)
        return _mark(instance, verb, await _body(request))

    @routes.api_route("/files/{bucket}/{key:path}", methods=["GET", "HEAD"])
    def stored_file(request: Request, bucket: str, key: str) -> Response:
        _check_job(instance, request, "batches")
        with instance.transaction() as db:
            row = db.execute("SELECT content FROM stored_files WHERE key = ?", (key,)).fetchone()
        if bucket != "batch-changes" or row is None:
            return PlainTextResponse("not found\n", 404)
        return Response(row["content"], media_type="application/octet-stream")

    @routes.api_route("/git/{path:path}", methods=["GET", "POST"])
    async def git(request: Request, path: str) -> Response:
        repository, _, service = path.partition("/info/refs") if path.endswith("/info/refs") else path.rpartition("/")
        _check_job(instance, request, None, repository)
        return await git_response(instance, request, repository, service or "info/refs")

    return routes


def admin_router(instance: Instance) -> APIRouter:
    """What tests order and look at."""
    routes = APIRouter()

    @routes.post("/executions")
    def enqueue(record: dict[str, Any]) -> int | None:
        """A queued execution; ``files`` hold their content, in base64 under ``content``."""
        with instance.transaction() as db:
            for file in record.get("files", {}).values():
                content = bytes.fromhex(file.pop("hex"))
                db.execute("INSERT OR REPLACE INTO stored_files VALUES (?, ?)", (file["key"], content))
            return db.execute("INSERT INTO executions (record) VALUES (?)", (json.dumps(record),)).lastrowid

    @routes.post("/executions/{number}/cancel")
    def cancel(number: int) -> None:
        """What the button does: queued ones are canceled at once, running ones asked to stop."""
        with instance.transaction() as db:
            db.execute("UPDATE executions SET cancel = 1 WHERE id = ? AND state = 'processing'", (number,))
            db.execute("UPDATE executions SET state = 'canceled' WHERE id = ? AND state = 'queued'", (number,))

    @routes.post("/executions/{number}/revoke")
    def revoke(number: int) -> None:
        with instance.transaction() as db:
            db.execute("DELETE FROM job_tokens WHERE job = ?", (number,))

    @routes.post("/executions/{number}/take-away")
    def take_away(number: int) -> None:
        """As the resetter does with one whose executor is silent."""
        with instance.transaction() as db:
            _reset(db, number)

    @routes.get("/executions/{number}")
    def look(number: int) -> dict[str, Any]:
        with instance.transaction() as db:
            _reset_stalled(instance, db)
            row = dict(db.execute("SELECT * FROM executions WHERE id = ?", (number,)).fetchone())
            entries = db.execute("SELECT key, value FROM cache_entries WHERE job = ? ORDER BY rowid", (number,))
            cache = [{"key": entry["key"], "value": json.loads(entry["value"])} for entry in entries.fetchall()]
            marks = db.execute("SELECT verb, worker, status FROM marks WHERE job = ?", (number,)).fetchall()
        return {**row, "logs": json.loads(row["logs"]), "cache": cache, "marks": [dict(mark) for mark in marks]}

    return routes


def _check_executor(instance: Instance, request: Request) -> None:
    """The executors' shared token. Raises Refused."""
    header = request.headers.get("Authorization")
    if header is None:
        hint = "no token value in the HTTP Authorization request header (recommended) or basic auth (deprecated)"
        raise Refused(PlainTextResponse(f"{hint}\n", 401))
    shared = _shared_token(instance)
    scheme, _, value = header.partition(" ")
    if scheme != "token-executor" or not hmac.compare_digest(value, shared):
        raise Refused(Response(status_code=401))


def _shared_token(instance: Instance) -> str:
    token = instance.setting("executors.accessToken")
    if not token:
        raise Refused(PlainTextResponse("Executors are not configured on this instance\n", 500))
    return token


def _check_job(instance: Instance, request: Request, queue: str | None, repository: str | None = None) -> None:
    """A job's own token, or the executors'. Raises Refused."""
    shared = _shared_token(instance)
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme == "token-executor":
        if not hmac.compare_digest(value, shared):
            raise Refused(Response(status_code=403))
        return
    if scheme != "Bearer" or not value:
        raise Refused(Response(status_code=401))
    try:
        number = int(request.headers.get("X-Sourcegraph-Job-ID", ""))
    except ValueError:
        raise Refused(PlainTextResponse("failed to parse Job ID\n", 400)) from None
    if not request.headers.get("X-Sourcegraph-Executor-Name"):
        raise Refused(PlainTextResponse("worker hostname cannot be empty\n", 400))
    with instance.transaction() as db:
        row = db.execute("SELECT * FROM job_tokens WHERE sha256 = ?", (digest(value),)).fetchone()
    if row is None:
        raise Refused(PlainTextResponse("invalid token\n", 401))
    if (
        row["job"] != number
        or (queue is not None and row["queue"] != queue)
        or (repository is not None and row["repository"] != repository)
    ):
        raise Refused(PlainTextResponse("invalid token\n", 403))


async def _body(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.body())
    except ValueError as error:
        raise Refused(PlainTextResponse(f"Failed to unmarshal payload: {error}\n", 400)) from None
    if not isinstance(found, dict):
        raise Refused(PlainTextResponse("Failed to unmarshal payload: no object\n", 400))
    return found


def _check_queues(names: Any) -> None:
    if not names:
        raise _problem("queueNames must be set")
    for name in names:
        if name not in QUEUES:
            raise _problem(f"no queue {name!r}")


def _problem(message: str) -> Refused:
    return Refused(JSONResponse({"error": message}, 500))


def _executor_name(body: dict[str, Any]) -> str:
    name = body.get("executorName")
    if not isinstance(name, str) or not name:
        raise _problem("worker hostname cannot be empty")
    return name


def _dequeue(instance: Instance, body: dict[str, Any]) -> Response:
    worker = _executor_name(body)
    with instance.transaction() as db:
        _reset_stalled(instance, db)
        row = db.execute("SELECT * FROM executions WHERE state = 'queued' ORDER BY id LIMIT 1").fetchone()
        if row is None:
            return Response(status_code=204)
        token = secrets.token_hex(20)
        record = json.loads(row["record"])
        try:
            job = job_of(row["id"], record, token, wire_version(body.get("version") or ""))
        except KeyError as error:
            failure = f"transforming the record failed: {error}"
            db.execute("UPDATE executions SET state = 'failed', failure = ? WHERE id = ?", (failure, row["id"]))
            return JSONResponse({"error": failure}, 500)
        db.execute(
            "UPDATE executions SET state = 'processing', worker = ?, last_heartbeat = ?, logs = '[]' WHERE id = ?",
            (worker, time.time(), row["id"]),
        )
        db.execute("DELETE FROM job_tokens WHERE job = ?", (row["id"],))
        db.execute(
            "INSERT INTO job_tokens VALUES (?, ?, 'batches', ?)", (digest(token), row["id"], job["repositoryName"])
        )
    return JSONResponse(job)


def _heartbeat(instance: Instance, body: dict[str, Any], ids: list[Any], suffix: str) -> Response:
    worker = _executor_name(body)
    known, cancel = [], []
    with instance.transaction() as db:
        _reset_stalled(instance, db)
        for number in (int(str(id)) for id in ids):
            row = db.execute(
                "SELECT * FROM executions WHERE id = ? AND state = 'processing' AND worker = ?", (number, worker)
            ).fetchone()
            if row is None:
                continue
            db.execute("UPDATE executions SET last_heartbeat = ? WHERE id = ?", (time.time(), number))
            known.append(f"{number}{suffix}")
            if row["cancel"]:
                cancel.append(f"{number}{suffix}")
    # Go writes a nil slice as null.
    return JSONResponse({"knownIds": known or None, "cancelIds": cancel or None})


def _mark(instance: Instance, verb: str, body: dict[str, Any]) -> Response:
    worker, number = _executor_name(body), body.get("jobId")
    with instance.transaction() as db:
        row = db.execute(
            "SELECT * FROM executions WHERE id = ? AND state = 'processing' AND worker = ?", (number, worker)
        ).fetchone()
        status = 404 if row is None else 204
        db.execute("INSERT INTO marks VALUES (?, ?, ?, ?)", (number, verb, worker, status))
        if row is None:
            return JSONResponse(None, 404)
        results = results_in(json.loads(row["logs"]))
        state, failure = ("completed", None) if verb == "markComplete" else ("failed", body.get("errorMessage"))
        if state == "completed" and not results:
            state, failure = "failed", "found no step results"
        if state == "failed" and row["cancel"]:
            state = "canceled"
        for result in results:
            db.execute(
                "INSERT INTO cache_entries VALUES (?, ?, ?)", (result["key"], json.dumps(result["value"]), number)
            )
        db.execute("UPDATE executions SET state = ?, failure = ? WHERE id = ?", (state, failure, number))
        db.execute("DELETE FROM job_tokens WHERE job = ?", (number,))
    return Response(status_code=204)


def _owned(db: sqlite3.Connection, body: dict[str, Any]) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM executions WHERE id = ? AND state = 'processing' AND worker = ?",
        (body.get("jobId"), _executor_name(body)),
    ).fetchone()
    if row is None:
        raise _problem("unknown job")
    return row


def _entry(body: dict[str, Any]) -> dict[str, Any]:
    entry = {
        name: body[name] for name in ("key", "command", "startTime", "exitCode", "out", "durationMs") if name in body
    }
    if not isinstance(entry.get("key"), str) or not isinstance(entry.get("command"), list):
        raise Refused(PlainTextResponse("Failed to unmarshal payload: key and command are wanted\n", 400))
    return entry


def _reset_stalled(instance: Instance, db: sqlite3.Connection) -> None:
    row = db.execute("SELECT value FROM settings WHERE name = 'fake.stalledSeconds'").fetchone()
    oldest = time.time() - (float(row["value"]) if row else STALLED_SECONDS)
    stalled = db.execute("SELECT id FROM executions WHERE state = 'processing' AND last_heartbeat < ?", (oldest,))
    for found in stalled.fetchall():
        _reset(db, found["id"])


def _reset(db: sqlite3.Connection, number: int) -> None:
    died = "job processor died while handling this message too many times"
    db.execute(
        "UPDATE executions SET state = 'failed', failure = ? WHERE id = ? AND num_resets >= ?",
        (died, number, MOST_RESETS),
    )
    db.execute(
        "UPDATE executions SET state = 'queued', num_resets = num_resets + 1, worker = NULL"
        " WHERE id = ? AND state = 'processing'",
        (number,),
    )
