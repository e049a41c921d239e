"""The executor's words with an instance that answers oddly: nothing is lost, and no helper thread ends by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from blocks.queue_client import Executor, Heartbeat, JobClient, Patience, QueueClient, QueueUnavailable
from flows.batches.jobs import CliStep
from flows.batches.masking import Masker
from flows.executor.cli_mode import CliStory
from flows.executor.job_log import JobLog
from flows.executor.loop import LiveJob, Loop, Pace
from flows.executor.stopping import Reason
from tests.executions import eventually

JOB = {"id": 7, "repositoryName": "app", "commit": "1" * 40}


class Answers(httpx.BaseTransport):
    """An instance that says the same whatever it is asked."""

    def __init__(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.content, self.headers = content, headers
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(self.content), headers=self.headers)


@contextmanager
def client_of(instance: httpx.BaseTransport) -> Iterator[QueueClient]:
    with httpx.Client(transport=instance) as transport:
        yield QueueClient("http://instance", SecretStr("t"), Executor("host", "0"), transport=transport)


def test_what_is_no_text_is_told_all_the_same() -> None:
    """A step's output that is no UTF-8 may stand in a message; what JSON can hold arrives as it is."""
    instance = Answers(b"")

    with client_of(instance) as client:
        client.job(7, SecretStr("j")).failed("bad \udcff \ud800 é \U0001f600")

    (request,) = instance.asked
    assert json.loads(request.content)["errorMessage"] == "bad \ufffd \ufffd é \U0001f600"
    assert request.headers["Content-Type"] == "application/json"


def test_a_heartbeat_waits_for_less_than_the_instance_does() -> None:
    instance = Answers(b'{"knownIds": null}')

    with client_of(instance) as client:
        client.heartbeat([7, 7])
        client.job(7, SecretStr("j")).complete()

    beat, mark = instance.asked
    assert json.loads(beat.content)["jobIds"] == [7]
    assert beat.extensions["timeout"]["read"] < 10 < mark.extensions["timeout"]["read"]


@pytest.mark.parametrize("content", [b"", b"null", b"[", b'{"knownIds": ["x"]}', b'{"cancelIds": 5}', b"[" * 5000])
def test_a_heartbeats_answer_that_is_malformed_counts_as_none(content: bytes) -> None:
    with client_of(Answers(content)) as client, pytest.raises(QueueUnavailable):
        client.heartbeat([7])


@pytest.mark.parametrize("content", [b"", b"null", b"{}"])
def test_an_entry_without_a_number_was_not_heard_of(content: bytes) -> None:
    with client_of(Answers(content)) as client, pytest.raises(QueueUnavailable):
        client.job(7, SecretStr("j")).add_log_entry({"key": "k"})


def test_an_answer_that_cannot_be_unpacked_counts_as_none() -> None:
    with client_of(Answers(b"no gzip", {"Content-Encoding": "gzip"})) as client, pytest.raises(QueueUnavailable):
        client.heartbeat([7])


@dataclass
class Keeper:
    """Takes log entries, once it has failed."""

    taken: list[Mapping[str, Any]] = field(default_factory=list)
    tried: int = 0

    def add_log_entry(self, entry: Mapping[str, Any]) -> int:
        self.tried += 1
        if self.tried == 1:
            raise RuntimeError("odd")
        self.taken.append(entry)
        return len(self.taken)

    def update_log_entry(self, number: int, entry: Mapping[str, Any]) -> None:
        self.taken[number - 1] = entry


def test_an_entry_that_could_not_be_sent_is_sent_again_whatever_was_wrong() -> None:
    keeper = Keeper()
    entries = JobLog(keeper, Masker({}, {}), lambda: None, sync_seconds=0.01)

    entries.open("setup.git.init").close(0)
    eventually(lambda: keeper.taken)
    entries.finish()

    assert [entry["key"] for entry in keeper.taken] == ["setup.git.init"]


def test_the_step_of_an_older_instance_has_its_index_for_a_key() -> None:
    """Instances look for results in the entry `step.src.0` then."""
    keeper = Keeper(tried=1)
    entries = JobLog(keeper, Masker({}, {}), lambda: None)

    CliStory(entries, CliStep(command=["batch", "exec"])).close("", failed=False)
    entries.finish()

    assert [entry["key"] for entry in keeper.taken] == ["step.src.0"]


@dataclass
class GivesOut:
    """A queue with these jobs, and heartbeats as ordered."""

    bodies: list[dict[str, Any]]
    beats: list[list[int]] = field(default_factory=list)
    answer: Callable[[list[int]], Heartbeat] = lambda ids: Heartbeat(frozenset(ids), frozenset())

    def dequeue(self) -> dict[str, Any] | None:
        return self.bodies.pop(0) if self.bodies else None

    def heartbeat(self, jobs: Iterable[int]) -> Heartbeat:
        self.beats.append(list(jobs))
        return self.answer(self.beats[-1])

    def job(self, number: int, token: SecretStr, *, queue: str = "", patience: Patience | None = None) -> JobClient:
        client = QueueClient("http://instance", SecretStr("t"), Executor("host", "0"), transport=_NOBODY)
        return client.job(number, token, queue=queue, patience=patience)


_NOBODY = httpx.Client(transport=Answers(b""))
PACE = Pace(jobs_at_once=2, poll_seconds=0.01, heartbeat_seconds=0.01)


@contextmanager
def running(loop: Loop) -> Iterator[None]:
    thread = Thread(target=loop.run)
    thread.start()
    try:
        yield
    finally:
        loop.give_back()
        thread.join(60)
        assert not thread.is_alive()


def test_a_job_that_is_given_out_again_outlives_its_first_attempt() -> None:
    """While the first still ends: that one is silent from then on, and its end takes nothing from the second."""
    attempts: list[LiveJob] = []
    first_may_end = Event()

    def work(live: LiveJob) -> None:
        attempts.append(live)
        (first_may_end if len(attempts) == 1 else live.stopping.cancel).wait(60)

    queue = GivesOut([dict(JOB), dict(JOB)])
    loop = Loop(queue, PACE, work)
    with running(loop):
        eventually(lambda: len(attempts) == 2)
        first, second = attempts
        assert first.thread is not None
        first_may_end.set()
        first.thread.join(60)
        seen = len(queue.beats)
        eventually(lambda: len(queue.beats) > seen + 1)

        assert first.stopping.reason is Reason.LOST
        assert second.stopping.reason is None
        assert loop.jobs == [7]
        assert queue.beats[-1] == [7]

    assert second.stopping.reason is Reason.GIVEN_BACK


def test_a_heartbeat_goes_on_whatever_went_wrong_with_one() -> None:
    def odd(ids: list[int]) -> Heartbeat:
        raise ValueError("odd")

    queue = GivesOut([], answer=odd)

    with running(Loop(queue, PACE, lambda _live: None)):
        eventually(lambda: len(queue.beats) > 2)


@pytest.mark.parametrize("odd", [{"id": "x"}, {"dockerSteps": 5}, {"files": 5}, {"cliSteps": [5]}])
def test_a_job_that_is_malformed_ends_nothing(odd: dict[str, object]) -> None:
    queue, done = GivesOut([{**JOB, **odd}, dict(JOB)]), Event()

    with running(Loop(queue, PACE, lambda _live: done.set())):
        assert done.wait(60)
