"""One executor process: its name, its queue, its loop, its place on this machine; from its start to its end."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING
from uuid import uuid4

from blocks.queue_client import Executor, QueueTrouble
from blocks.store import ArtifactStore

from ..gitcommand import git
from ..leftovers import remove_leftovers
from .benches import JOBS
from .configuration import Configuration
from .job_run import JobRun, Workshop
from .loop import LiveJob, Loop
from .plain_work import run_plainly

if TYPE_CHECKING:
    from .flow_runs import FlowRuns

log = logging.getLogger(__name__)


def new_name() -> str:
    """What an executor calls itself: another name with every start, so that it never owns the jobs of a dead one."""
    return f"{socket.gethostname()}-{uuid4()}"


def serve(
    configuration: Configuration, name: str, home: Path, store: ArtifactStore, flow_runs: FlowRuns | None = None
) -> None:
    """Work off the queue until SIGTERM or SIGINT: then no new job is taken, and running ones may finish.

    A second signal gives those back: their containers are removed, and the instance gives them to another executor.
    Raises QueueRefused if the instance does not take us, RuntimeTrouble if no engine answers.
    """
    remove_leftovers(home, configuration.engine.reap, JOBS)
    workshop = Workshop(
        home=home,
        store=store,
        runtime_for=configuration.runtime_for,
        secrets=(configuration.queue.access_token.get_secret_value(),),
        job_seconds=configuration.pace.job_seconds,
    )
    queue = configuration.queue.connect(_executor(name, configuration))

    def work(live: LiveJob) -> None:
        run = JobRun(live.job, live.client, workshop, live.stopping)
        try:
            if flow_runs is None:
                run_plainly(run)
            else:
                flow_runs.run(run)
            log.info("job %s: %s", live.job.id, run.outcome.value if run.outcome else "not reported")
        except QueueTrouble as trouble:
            log.warning("job %s: the instance could not be told how it ended: %s", live.job.id, trouble)
        finally:
            run.close()

    loop = Loop(queue, configuration.pace, work)
    try:
        queue.check()
        log.info("executor %s works off %s", name, configuration.queue.url)
        with flow_runs.minded() if flow_runs else nullcontext(), _ended_by_signals(loop):
            loop.run()
    finally:
        queue.close()


def _executor(name: str, configuration: Configuration) -> Executor:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    engine = configuration.engine
    return Executor(
        name=name,
        version=configuration.queue.executor_version,
        os=platform.system().lower(),
        architecture=machine,
        cpus=int(engine.cpus or os.cpu_count() or 0),
        memory=(engine.memory or "").upper(),
        docker_version=engine.describe().split()[1],
        git_version=git(["version"]).decode().split()[2],
    )


@contextmanager
def _ended_by_signals(loop: Loop) -> Iterator[None]:
    asked = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            log.warning("asked again: giving back the jobs %s", loop.jobs)
            loop.give_back()
        else:
            log.warning("asked to end: taking no new jobs, waiting for %s", loop.jobs or "none")
            loop.stop()
        asked = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
