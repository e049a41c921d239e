"""The webhook service: an instance's (or a code host's) event becomes a run of a deployment, once.

A delivery is read within bounds, its signature checked, its event matched with rules; it is answered well only when
what it starts is safely with Prefect, so that whoever sends it sends it again otherwise.
"""

# No `from __future__ import annotations`: FastAPI looks at the annotations of functions made inside of functions.

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any, Protocol

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from blocks.payload_templates import FieldMissing, look_up, rendered
from blocks.webhook_rules import WebhookRule, WebhookRules

from .webhook_guard import Believed, Ignored, InstanceAway, LastEmitted, examine, ran_last, tag_of
from .webhook_metrics import OTHER, Metrics, known
from .webhook_runs import PrefectAway, RunRefused, Runs, Started
from .webhook_senders import SENDERS

log = logging.getLogger(__name__)

READ_SECONDS = 10.0
"""How long a sender may take for a body."""
RETRY_SECONDS = 30
"""When to send again what could not be taken now."""
_EVENT_CHARACTERS = 100


class Refused(Exception):
    """The delivery is answered with this status, and counted under this outcome."""

    def __init__(self, status: int, outcome: str, message: str, retry_after_seconds: int = 0) -> None:
        super().__init__(status, outcome, message)
        self.status, self.outcome, self.message = status, outcome, message
        self.retry_after_seconds = retry_after_seconds


class RunStarted(BaseModel):
    """A flow run that a delivery started. ``new``: false if an earlier delivery of the same did."""

    deployment: str
    flow_run: str
    new: bool


class Answer(BaseModel):
    """What became of a delivery: started, repeated, ignored (with a reason)."""

    outcome: str
    reason: str = ""
    runs: list[RunStarted] = []


class Problem(BaseModel):
    """Why a delivery was not taken."""

    error: str


class RuleBooks(Protocol):
    """The rules of each sender, as they are now."""

    def names(self) -> Sequence[str]:
        """The senders that there are."""
        ...

    def rules(self, name: str) -> WebhookRules:
        """The rules of one. Raises PrefectAway if they cannot be read, and never were."""
        ...


@dataclass
class _Bucket:
    """So many deliveries a minute; a moment's more at once than that is fine, twice as many are not."""

    level: float = 0.0
    at: float = field(default_factory=time.monotonic)

    def take(self, per_minute: int) -> float:
        """0, or the seconds after which there is room."""
        moment = time.monotonic()
        self.level = max(0.0, self.level - (moment - self.at) * per_minute / 60)
        self.at = moment
        if self.level + 1 > per_minute:
            return (self.level + 1 - per_minute) * 60 / per_minute
        self.level += 1
        return 0.0


class Receiver:
    """Takes deliveries. For many threads."""

    def __init__(self, books: RuleBooks, runs: Runs, metrics: Metrics) -> None:
        self._books, self._runs, self._metrics = books, runs, metrics
        self._emitted = LastEmitted()
        self._buckets: dict[str, _Bucket] = {}
        self._lock = Lock()

    def rules(self, sender: str) -> WebhookRules:
        """The rules of a sender. Raises Refused."""
        if sender not in self._books.names():
            raise Refused(404, "unknown_sender", "there is no such sender")
        try:
            return self._books.rules(sender)
        except PrefectAway as error:
            raise _later(str(error)) from error

    def take(self, sender: str, rules: WebhookRules, headers: Mapping[str, str], body: bytes) -> tuple[str, Answer]:
        """Check a delivery and do what the rules say; gives its event too. Raises Refused."""
        kind = SENDERS[rules.kind]
        secrets = [secret.get_secret_value().encode() for secret in rules.secrets]
        if not kind.is_genuine(headers, body, secrets):
            raise Refused(401, "forged", "the signature is wrong or missing")
        event = headers.get(kind.event_header, "")
        if not event or len(event) > _EVENT_CHARACTERS or not event.isprintable():
            raise Refused(400, "malformed", f"the header {kind.event_header} names no event")
        payload = _payload(headers, body)
        fields: dict[str, Any] = {"payload": payload, "event": event}
        matching = [rule for rule in rules.rules if _matches(rule, event, fields)]
        if not matching:
            return event, Answer(outcome="ignored", reason="no rule is for this")
        self._make_room(sender, rules)
        key = kind.identity(event, headers, payload, body)
        return event, self._follow(sender, rules, matching, fields, key)

    def _follow(
        self, sender: str, rules: WebhookRules, matching: Sequence[WebhookRule], fields: dict[str, Any], key: str
    ) -> Answer:
        try:
            believed = examine(rules, fields["event"], fields["payload"]) if rules.kind == "sourcegraph" else Believed()
            if isinstance(believed, Ignored):
                return Answer(outcome="ignored", reason=believed.reason)
            fields["instance"] = believed.fields
            planned = [(rule, rendered(rule.parameters, fields)) for rule in matching]
            return self._start(sender, rules, planned, believed, f"{sender}:{key}")
        except FieldMissing as error:
            raise Refused(422, "unfit", str(error)) from error
        except RunRefused as error:
            raise Refused(422, "unfit", str(error)) from error
        except (PrefectAway, InstanceAway) as error:
            raise _later(str(error)) from error

    def _start(
        self,
        sender: str,
        rules: WebhookRules,
        planned: Sequence[tuple[WebhookRule, dict[str, Any]]],
        believed: Believed,
        key: str,
    ) -> Answer:
        started: list[Started] = []
        emitted = repeats = 0
        for rule, parameters in planned:
            rules_key = f"{key}:{rule.mark}"  # two rules may be for one deployment
            if rule.emit_event and self._emitted.holds(sender, rule, believed):
                repeats += 1
            elif rule.emit_event:
                event = f"batchwright.webhook.{rules.kind}"
                self._runs.emit(event, f"batchwright.webhook.{sender}", parameters, key=rules_key)
                self._emitted.keep(sender, rule, believed)
                emitted += 1
            if not rule.deployment:
                continue
            if ran_last(self._runs, rule, believed):
                repeats += 1
                continue
            tags = ("webhook", f"webhook:{sender}", tag_of(rule), *believed.tags)
            started.append(self._runs.start(rule.deployment, parameters, key=rules_key, tags=tags))
        self._metrics.prefect_is(True)
        for run in started:
            if run.new:
                self._metrics.started(sender, run.deployment)
        if repeats and not started and not emitted:
            return Answer(outcome="ignored", reason="the last run had the same batch spec")
        new = emitted or any(run.new for run in started)
        return Answer(
            outcome="started" if new else "repeated",
            runs=[RunStarted(deployment=run.deployment, flow_run=run.flow_run, new=run.new) for run in started],
        )

    def _make_room(self, sender: str, rules: WebhookRules) -> None:
        with self._lock:
            wait = self._buckets.setdefault(sender, _Bucket()).take(rules.deliveries_per_minute)
        if wait:
            raise Refused(429, "too_many", "too many deliveries; send this again later", int(wait) + 1)


def create_app(books: RuleBooks, runs: Runs) -> FastAPI:
    """The service as an ASGI app."""
    metrics = Metrics()
    receiver = Receiver(books, runs, metrics)
    app = FastAPI(
        title="batchwright webhooks", description="Events in, runs of deployments out.", docs_url=None, redoc_url=None
    )
    app.add_exception_handler(HTTPException, _plain_problem)

    @app.post(
        "/webhooks/{sender}",
        status_code=202,
        response_model=Answer,
        responses={200: {"model": Answer}, **{status: {"model": Problem} for status in _PROBLEMS}},
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    )
    async def receive(sender: str, request: Request) -> Response:
        """Take a delivery: 202 it started something, 200 it started nothing new."""
        began, event, events = time.monotonic(), OTHER, frozenset[str]()
        known_sender = OTHER
        try:
            rules = await run_in_threadpool(receiver.rules, sender)
            known_sender, events = sender, frozenset(rule.event for rule in rules.rules)
            body = await _body(request, rules.most_bytes)
            headers = {name.lower(): value for name, value in request.headers.items()}
            event, answer = await run_in_threadpool(receiver.take, sender, rules, headers, body)
            outcome, response = (
                answer.outcome,
                JSONResponse(answer.model_dump(), 202 if answer.outcome == "started" else 200),
            )
            log.info("%s: %r %s %s", sender, event, outcome, answer.reason or _run_ids(answer))
        except Refused as refused:
            outcome, response = refused.outcome, _problem(refused)
            log.warning("%s: %s: %s", known_sender, outcome, refused.message)
            if outcome == "prefect_away":
                metrics.prefect_is(False)
        metrics.delivered(known_sender, known(event, events), outcome, time.monotonic() - began)
        response.headers["Connection"] = "close"
        return response

    @app.get("/healthz")
    def health() -> dict[str, str]:
        """The service lives; and whether Prefect does."""
        up = runs.is_reachable()
        metrics.prefect_is(up)
        return {"status": "ok", "prefect": "reachable" if up else "away"}

    @app.get("/metrics", response_class=Response)
    def expose() -> Response:
        """What is counted, as Prometheus reads it."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


_PROBLEMS = (400, 401, 404, 408, 413, 415, 422, 429, 503)


async def _body(request: Request, most_bytes: int) -> bytes:
    """The body, counted while it comes in. Raises Refused."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "malformed", "the body is compressed: send it plain")
    declared = request.headers.get("content-length", "0")
    too_large = Refused(413, "too_large", f"the body has more than {most_bytes} bytes")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise too_large
    pieces, size = [], 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > most_bytes:
                    raise too_large
                pieces.append(piece)
    except TimeoutError as error:
        raise Refused(408, "too_slow", f"the body was not whole after {READ_SECONDS:g} s") from error
    except ClientDisconnect as error:
        raise Refused(400, "malformed", "the connection ended in the body") from error
    return b"".join(pieces)


def _payload(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises Refused."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "malformed", "the body is no application/json: choose that content type for the webhook")
    try:
        payload = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "malformed", "the body is not JSON") from error
    if not isinstance(payload, dict):
        raise Refused(400, "malformed", "the body is no JSON object")
    return payload


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _matches(rule: WebhookRule, event: str, fields: Mapping[str, Any]) -> bool:
    """Whether a rule is for a delivery. A field that is missing has no value."""
    if not fnmatchcase(event, rule.event):
        return False
    for path, wanted in rule.where.items():
        try:
            value = look_up(path.removesuffix("?"), fields)
        except FieldMissing:
            return False
        if not fnmatchcase(value, wanted):
            return False
    return True


def _later(reason: str) -> Refused:
    log.warning("%s", reason)
    return Refused(503, "prefect_away", "it cannot be started now; send it again later", RETRY_SECONDS)


def _problem(refused: Refused) -> JSONResponse:
    headers = {"Retry-After": str(refused.retry_after_seconds)} if refused.retry_after_seconds else {}
    return JSONResponse({"error": refused.message}, refused.status, headers)


async def _plain_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _run_ids(answer: Answer) -> str:
    return " ".join(run.flow_run for run in answer.runs)
