"""An instance's executor queue over HTTP: one method per route, retries, and errors that say who has to act.

Upstream: cmd/executor/internal/apiclient/queue. Bodies are JSON values; what a job means is not known here.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from blocks.store import Sink

log = logging.getLogger(__name__)

JsonObject = dict[str, Any]

FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 3.0
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""How long an answer is waited for: a dequeue may transform a large job first."""
HEARTBEAT_SECONDS = 8.0
"""The same for a heartbeat: the next one must come before the instance gives our jobs away, 25 s after the last."""
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNKNOWN_JOB = "unknown job"
_SURROGATE = re.compile("[\ud800-\udfff]")
"""What is left of bytes that are no UTF-8, in the output of a step for instance: JSON cannot hold it."""


class QueueTrouble(Exception):
    """The queue did not do what was asked. ``temporary`` says whether another try may work."""

    temporary = False

    def __init__(self, what: str, said: str) -> None:
        super().__init__(what, said)
        self.what, self.said = what, said

    def __str__(self) -> str:
        return f"{self.what}: {self.said}"


class QueueUnavailable(QueueTrouble):
    """The instance does not answer, or failed by itself, and went on doing so through our retries."""

    temporary = True


class QueueRefused(QueueTrouble):
    """The instance will not have it: a wrong token, a queue that it does not know, a body that it does not take."""


class JobGone(QueueTrouble):
    """The job is not ours any more: it was taken away, has ended, or its token is not valid."""


@dataclass(frozen=True)
class Heartbeat:
    """Which of our jobs the instance still takes for ours, and which of them it wants to be stopped."""

    known: frozenset[int]
    cancel: frozenset[int]


@dataclass(frozen=True)
class Executor:
    """How an executor calls itself, and what it is."""

    name: str
    version: str
    os: str = "linux"
    architecture: str = "amd64"
    cpus: int = 0
    memory: str = ""
    disk: str = ""
    docker_version: str = ""
    git_version: str = ""


@dataclass(frozen=True)
class Patience:
    """How long a call is tried again after failures of the network or the instance."""

    seconds: float = 60.0
    stop: Event = field(default_factory=Event)
    """Set: no further try."""


class QueueClient:
    """The queue of ``url`` for one executor. Safe to use from many threads; close it.

    With ``queues`` it uses the routes for several queues, else those of ``queue``.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr,
        executor: Executor,
        *,
        queue: str = "batches",
        queues: tuple[str, ...] = (),
        transport: httpx.Client | None = None,
    ) -> None:
        self.url, self.executor = url.rstrip("/"), executor
        self._token, self._queue, self._queues = token, queue, queues
        self._http = transport or httpx.Client()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def check(self) -> None:
        """Whether the instance knows us. Raises QueueRefused, QueueUnavailable."""
        self.heartbeat(())

    def dequeue(self) -> JsonObject | None:
        """The next job, None if there is none. One try: who polls comes again. Raises QueueTrouble."""
        executor = self.executor
        body: JsonObject = {
            "executorName": executor.name,
            "version": executor.version,
            "numCPUs": executor.cpus,
            "memory": executor.memory,
            "diskSpace": executor.disk,
        }
        if self._queues:
            body["queues"] = list(self._queues)
        answer = self._call("POST", self._queue_path("dequeue"), body, Patience(0), self._headers())
        if answer.status_code == 204 or not answer.content:
            return None
        job = _object(answer, "dequeue")
        job.setdefault("queue", self._queue)
        return job

    def heartbeat(self, jobs: Iterable[int]) -> Heartbeat:
        """Say that we live, with these jobs. One try: the next one is soon. Raises QueueTrouble."""
        executor = self.executor
        body: JsonObject = {
            "version": "V2",
            "executorName": executor.name,
            "os": executor.os,
            "architecture": executor.architecture,
            "dockerVersion": executor.docker_version,
            "executorVersion": executor.version,
            "gitVersion": executor.git_version,
            "igniteVersion": "",
            "srcCliVersion": "",
            "prometheusMetrics": "",
        }
        ids = sorted(set(jobs))
        if self._queues:
            body["queueNames"] = list(self._queues)
            named = [{"queueName": name, "jobIds": [str(job) for job in ids]} for name in self._queues[:1]]
            body["jobIdsByQueue"] = named if ids else []
        else:
            body["jobIds"] = ids
        path = self._queue_path("heartbeat")
        answer = self._call("POST", path, body, Patience(0), self._headers(), timeout_seconds=HEARTBEAT_SECONDS)
        found = _object(answer, "heartbeat")
        return Heartbeat(_ids(found.get("knownIds")), _ids(found.get("cancelIds")))

    def job(self, number: int, token: SecretStr, *, queue: str = "", patience: Patience | None = None) -> JobClient:
        """What can be said of one job."""
        return JobClient(self, number, token, queue or self._queue, patience or Patience())

    def _queue_path(self, verb: str) -> str:
        return (
            f"/.executors/queue/{verb}" if self._queues else f"/.executors/queue/{quote(self._queue, safe='')}/{verb}"
        )

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"token-executor {self._token.get_secret_value()}"}

    def _call(
        self,
        method: str,
        path: str,
        body: JsonObject | None,
        patience: Patience,
        headers: Mapping[str, str],
        *,
        refused: Callable[[httpx.Response, bool], httpx.Response | None] = lambda _answer, _again: None,
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> httpx.Response:
        """One call, tried again as long as ``patience`` lasts. ``refused`` may take an answer that is no success.

        It is told whether an earlier try may have arrived, though we heard nothing good of it.
        """
        content = None if body is None else _SURROGATE.sub("\ufffd", json.dumps(body, ensure_ascii=False)).encode()
        headers = headers if content is None else {**headers, "Content-Type": "application/json"}
        timeout = httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
        verb, deadline, tries = path.rpartition("/")[2], time.monotonic() + patience.seconds, 0
        while True:
            wait = _delay(tries)
            try:
                answer = self._http.request(method, self.url + path, content=content, headers=headers, timeout=timeout)
            except (httpx.TransportError, httpx.DecodingError) as error:
                said = f"{self.url} cannot be reached ({error or type(error).__name__})"
            else:
                if answer.is_success:
                    return answer
                if taken := refused(answer, tries > 0):
                    return taken
                said = _said(answer)
                if answer.status_code not in _RETRIED:
                    raise QueueRefused(verb, said)
                wait = max(wait, _retry_after(answer))
            tries += 1
            if time.monotonic() + wait > deadline or patience.stop.wait(wait):
                raise QueueUnavailable(verb, said)
            log.debug("%s: %s; trying again", verb, said)


class JobClient:
    """One job's routes, opened by the job's own token. Every verb raises JobGone, QueueUnavailable, QueueRefused."""

    def __init__(self, queue: QueueClient, number: int, token: SecretStr, name: str, patience: Patience) -> None:
        self.number = number
        self._queue, self._token, self._name, self._patience = queue, token, name, patience

    @property
    def headers(self) -> dict[str, SecretStr]:
        """What opens the job's routes, git's among them."""
        executor = self._queue.executor
        if token := self._token.get_secret_value():
            authorization = f"Bearer {token}"
        else:  # instances before 4.3 give jobs no token
            authorization = self._queue._headers()["Authorization"]
        return {
            "Authorization": SecretStr(authorization),
            "X-Sourcegraph-Job-ID": SecretStr(str(self.number)),
            "X-Sourcegraph-Executor-Name": SecretStr(executor.name),
        }

    def repository_url(self, repository: str) -> str:
        """Where git finds the job's repository."""
        return f"{self._queue.url}/.executors/git/{quote(repository)}"

    def add_log_entry(self, entry: Mapping[str, Any]) -> int:
        """Add an entry; its number, from 1. If an answer gets lost it may be there twice: the number tells."""
        answer = self._post("addExecutionLogEntry", entry)
        number = _value(answer)
        if not isinstance(number, int):
            raise QueueUnavailable("addExecutionLogEntry", f"answered {answer.text[:100]!r} in place of a number")
        return number

    def update_log_entry(self, number: int, entry: Mapping[str, Any]) -> None:
        """Replace an entry."""
        self._post("updateExecutionLogEntry", {"entryId": number, **entry})

    def complete(self) -> None:
        """The job has succeeded."""
        self._mark("markComplete")

    def errored(self, message: str) -> None:
        """The job could not be run: another try may work."""
        self._mark("markErrored", errorMessage=message)

    def failed(self, message: str) -> None:
        """The job has failed."""
        self._mark("markFailed", errorMessage=message)

    def copy_file(self, bucket: str, key: str, target: Sink) -> None:
        """Write a file of the instance's file store to ``target``."""
        path = f"/.executors/files/{quote(bucket)}/{quote(key)}"
        answer = self._queue._call("GET", path, None, self._patience, self._plain_headers(), refused=self._gone)
        target.write(answer.content)

    def _mark(self, verb: str, **more: str) -> None:
        """Once an answer got lost, a job that is gone by now was most likely marked by us."""

        def gone(answer: httpx.Response, again: bool) -> httpx.Response | None:
            if again and answer.status_code in (401, 403, 404):
                log.info("job %s: %s most likely arrived before: the job is not ours any more", self.number, verb)
                return answer
            if answer.status_code == 404:
                raise JobGone(verb, "the instance has no such job of ours")
            self._gone(answer, again)
            return None

        self._post(verb, more, gone)

    def _post(
        self, verb: str, more: Mapping[str, Any], refused: Callable[[httpx.Response, bool], Any] | None = None
    ) -> httpx.Response:
        body = {"executorName": self._queue.executor.name, "jobId": self.number, **more}
        path = f"/.executors/queue/{quote(self._name, safe='')}/{verb}"
        headers = self._plain_headers()
        return self._queue._call("POST", path, body, self._patience, headers, refused=refused or self._gone)

    def _gone(self, answer: httpx.Response, _again: bool) -> None:
        verb = answer.request.url.path.rpartition("/")[2]
        if answer.status_code in (401, 403):
            raise JobGone(verb, f"the job's token is not valid any more ({_said(answer)})")
        if answer.status_code == 500 and _UNKNOWN_JOB in answer.text:
            raise JobGone(verb, "the instance has no such job of ours")

    def _plain_headers(self) -> dict[str, str]:
        return {name: value.get_secret_value() for name, value in self.headers.items()}


def _object(answer: httpx.Response, verb: str) -> JsonObject:
    found = _value(answer)
    if not isinstance(found, dict):
        raise QueueUnavailable(verb, "the answer is no JSON object")
    return found


def _value(answer: httpx.Response) -> Any:
    """The JSON value of an answer; None if it is none."""
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _ids(found: Any) -> frozenset[int]:
    """The ids of a heartbeat: numbers, texts, or texts with the queue's name (``42-batches``); null is none."""
    try:
        return frozenset(int(str(item).partition("-")[0]) for item in found or ())
    except (TypeError, ValueError) as error:
        raise QueueUnavailable("heartbeat", f"the answer holds ids that are none ({error})") from error


def _said(answer: httpx.Response) -> str:
    text = " ".join(answer.text[:300].split())
    return f"status {answer.status_code}{f': {text}' if text else ''}"


def _delay(tries: int) -> float:
    return random.uniform(0.5, 1.0) * min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(tries, 10))


def _retry_after(answer: httpx.Response) -> float:
    """What the instance asks for, in seconds; upstream waits 3 s at most. A date, or nonsense, is not understood."""
    value: str = answer.headers.get("Retry-After", "")
    return min(LONGEST_DELAY_SECONDS, int(value)) if value.isdecimal() else 0.0
