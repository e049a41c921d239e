"""The executor's loop: takes jobs from the queue, keeps them alive, stops them when the instance says so.

Upstream: internal/workerutil/worker.go. One process, a thread for each job, one for the heartbeat.

Shutdown: ``stop`` takes no new jobs and lets running ones finish; ``give_back`` also ends those: their containers are
removed, nothing is reported, the heartbeat ceases, and the instance gives them to another executor after 25 s.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Condition, Event, Lock, Thread
from typing import Any, Protocol

from pydantic import SecretStr

from blocks.queue_client import Heartbeat, JobClient, Patience, QueueTrouble

from ..batches.jobs import Job, JobRefused, read_job
from .stopping import Reason, Stopping

log = logging.getLogger(__name__)

LONGEST_POLL_SECONDS = 10.0
"""Between two questions to an instance that does not answer."""


class Queue(Protocol):
    """The part of ``blocks.queue_client.QueueClient`` that the loop needs."""

    def dequeue(self) -> dict[str, Any] | None: ...

    def heartbeat(self, jobs: Any) -> Heartbeat: ...

    def job(self, number: int, token: SecretStr, *, queue: str = "", patience: Patience | None = None) -> JobClient: ...


@dataclass(frozen=True)
class Pace:
    """How many jobs at a time, and how often the loop looks. None: no limit."""

    jobs_at_once: int = 1
    poll_seconds: float = 1.0
    heartbeat_seconds: float = 5.0
    job_seconds: float = 1800.0
    total_jobs: int | None = None
    """End after as many."""
    active_seconds: float | None = None
    """Take no jobs after that time, and end."""
    patience_seconds: float = 60.0
    """How long a word about a job is tried again before it counts as unheard."""


@dataclass(eq=False)
class LiveJob:
    """A job that runs here."""

    job: Job
    client: JobClient
    stopping: Stopping
    deadline: float
    thread: Thread | None = field(default=None, repr=False)


class Loop:
    """Works off a queue. ``work`` runs one job to its end, and reports it; what it raises is a bug."""

    def __init__(self, queue: Queue, pace: Pace, work: Callable[[LiveJob], None]) -> None:
        self._queue, self._pace, self._work = queue, pace, work
        self._live: set[LiveJob] = set()
        """A job that is given out again may be among them twice, while its first attempt still ends."""
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._stopped, self._giving_back, self._heart_stopped = Event(), Event(), Event()
        self._taken = 0

    def run(self) -> None:
        """Until ``stop``, or until the pace's limits are reached; returns when the last job has ended."""
        heart = Thread(target=self._beat, name="heartbeat", daemon=True)
        heart.start()
        try:
            self._take_jobs()
        finally:
            self._wait_for_jobs()
            self._heart_stopped.set()
            heart.join()

    def stop(self) -> None:
        """Take no new jobs. Safe in a signal handler, and to call again."""
        self._stopped.set()

    def give_back(self) -> None:
        """End what runs, too, and leave it to others."""
        self._stopped.set()
        self._giving_back.set()
        for live in list(self._live):
            live.stopping.order(Reason.GIVEN_BACK)

    @property
    def jobs(self) -> list[int]:
        """The jobs that run now."""
        return sorted({live.job.id for live in list(self._live)})

    def _take_jobs(self) -> None:
        began, pause = time.monotonic(), self._pace.poll_seconds
        while not self._stopped.is_set() and not self._has_done_enough(began):
            if not self._has_room():
                self._stopped.wait(min(0.2, self._pace.poll_seconds))
                continue
            try:
                body = self._queue.dequeue()
                pause = self._pace.poll_seconds
            except QueueTrouble as trouble:
                log.warning("no job can be had: %s", trouble)
                body, pause = None, min(LONGEST_POLL_SECONDS, pause * 2)
            if body is None:
                self._stopped.wait(pause)
            else:
                self._begin(body)

    def _has_done_enough(self, began: float) -> bool:
        pace = self._pace
        enough = pace.total_jobs is not None and self._taken >= pace.total_jobs
        return enough or (pace.active_seconds is not None and time.monotonic() - began > pace.active_seconds)

    def _has_room(self) -> bool:
        with self._lock:
            return len(self._live) < self._pace.jobs_at_once

    def _begin(self, body: Mapping[str, Any]) -> None:
        self._taken += 1
        stopping = Stopping()
        patience = Patience(self._pace.patience_seconds, stopping.silence)
        number, token = _number(body.get("id")), SecretStr(str(body.get("token") or ""))
        client = self._queue.job(number, token, queue=str(body.get("queue") or ""), patience=patience)
        try:
            job = read_job(body)
        except JobRefused as refused:
            self._refuse(client, refused)
            return
        log.info("job %s: %s at %s", job.id, job.repository, job.commit)
        live = LiveJob(job, client, stopping, time.monotonic() + self._pace.job_seconds)
        live.thread = Thread(target=copy_context().run, args=(self._run, live), name=f"job-{number}")
        with self._lock:
            for older in self._live:
                if older.job.id == job.id:
                    older.stopping.order(Reason.LOST)
            self._live.add(live)
        if self._giving_back.is_set():  # it came while we were asked to
            stopping.order(Reason.GIVEN_BACK)
        live.thread.start()

    def _refuse(self, client: JobClient, refused: JobRefused) -> None:
        log.warning("job %s: %s", client.number, refused)
        try:
            client.failed(str(refused))
        except QueueTrouble as trouble:
            log.warning("job %s: %s", client.number, trouble)

    def _run(self, live: LiveJob) -> None:
        try:
            self._work(live)
        except QueueTrouble as trouble:
            log.warning("job %s: the instance has not heard how it ended: %s", live.job.id, trouble)
        except Exception:
            # Nothing is said to the instance: its heartbeat ceases, and somebody else gets the job.
            log.exception("job %s ended in a way that nobody foresaw", live.job.id)
        finally:
            with self._changed:
                self._live.discard(live)
                self._changed.notify_all()

    def _wait_for_jobs(self) -> None:
        with self._changed:
            while self._live:
                self._changed.wait(0.2)  # so that signals are heard

    def _beat(self) -> None:
        """The first beat comes at once: it says that we are there."""
        pause = 0.0
        while not self._heart_stopped.wait(pause):
            pause = self._pace.heartbeat_seconds
            try:
                self._beat_once()
            except QueueTrouble as trouble:
                log.warning("the heartbeat was not heard: %s", trouble)
            except Exception:
                # Whatever it was: without a heartbeat every job here is lost, and no limit of time is kept.
                log.exception("a heartbeat ended in a way that nobody foresaw")

    def _beat_once(self) -> None:
        self._mind_the_time()
        asked = self._told_to_be_alive()
        answer = self._queue.heartbeat(sorted({live.job.id for live in asked}))
        for live in asked:
            if live.job.id in answer.cancel:
                live.stopping.order(Reason.CANCELED)
            elif live.job.id not in answer.known:
                live.stopping.order(Reason.LOST)

    def _told_to_be_alive(self) -> list[LiveJob]:
        """The jobs to keep. One that is not ours any more must be left to die: nobody else would get it."""
        with self._lock:
            return [live for live in self._live if not live.stopping.silence.is_set()]

    def _mind_the_time(self) -> None:
        for live in list(self._live):
            if time.monotonic() > live.deadline:
                live.stopping.order(Reason.TIME_IS_OVER)


def _number(id: Any) -> int:
    """A job's number; 0 if it is none, and the job is refused."""
    try:
        return int(id or 0)
    except (TypeError, ValueError):
        return 0
