"""Each job as a flow run: seen in the dashboard, cancelled there, its stages retried after temporary errors.

A job runs in the executor's own process, so its flow run needs no worker. It belongs to a deployment only so that the
dashboard offers *Retry*; see ``executor_job`` for what that does.
"""

# No `from __future__ import annotations`: Prefect reads the flow's annotations, and names in text get lost.

import logging
from threading import Lock
from typing import Any
from uuid import UUID

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from ..cancellation import watched
from ..stage_runs import run_stage
from ..stages import STAGE, error_of
from .job_run import JobRun, Outcome

log = logging.getLogger(__name__)

FLOW_NAME = "executor-job"

_RETRY_MEANS = (
    "Job {job} of {repository} is over: the instance was told how it ended, or gave it to another executor, and its "
    "token is not valid any more. Retry it at the instance (the batch spec's execution page): the steps that finished "
    "here are in the step cache, and are not repeated."
)


class Desk:
    """Where flow runs find the jobs of this process: a job holds tokens, and must not become a parameter."""

    def __init__(self) -> None:
        self._jobs: dict[UUID, JobRun] = {}
        self._lock = Lock()

    def put(self, flow_run: UUID, job: JobRun) -> None:
        with self._lock:
            self._jobs[flow_run] = job

    def take(self, flow_run: UUID) -> JobRun | None:
        """The job of a flow run, once: a second attempt of the run finds none."""
        with self._lock:
            return self._jobs.pop(flow_run, None)


desk = Desk()


@flow(name=FLOW_NAME, persist_result=False)
def executor_job(job: int, repository: str, commit: str, executor: str) -> State[Any]:
    """Run one job of an instance's executor queue.

    Retry: what failed for a moment was tried again while the job was ours. Afterwards only the instance can give it out
    again, so the run says that, and where. The steps that finished are not repeated then.

    Args:
        job: The job's number at the instance.
        repository: The repository that it is about.
        commit: The commit that its steps work on.
        executor: The executor that took it.
    """
    flow_run = UUID(str(runtime.flow_run.id))
    run = desk.take(flow_run)
    if run is None:
        return Failed(message=_RETRY_MEANS.format(job=job, repository=repository))
    with watched(flow_run, run.stopping.cancel):
        state = run_stage(prepare, run.job.title, run)
        for index, image in run.steps:
            if not state.is_completed() or run.failure is not None:
                break
            state = run_stage(run_step, run.job.title, index + 1, " ".join(image.split()), run)
        if not state.is_completed() and run.failure is None:
            run.fail(error_of(state))
    report(run.job.title, run)
    return _final_state(run)


@task(name="job-set-up", task_run_name="{title} · set-up", **STAGE)
def prepare(title: str, run: JobRun) -> State[Any]:
    """Fetch the repository through the instance, write the job's files, take up what is known."""
    run.prepare()
    if run.failure is not None:
        return Failed(message=run.failure.message)
    return Completed(message=f"{len(run.steps)} steps to run")


@task(name="job-step", task_run_name="{title} · step {number} · {image}", **STAGE)
def run_step(title: str, number: int, image: str, run: JobRun) -> State[Any]:
    """Run one step's container, unless its condition is false or its result is known."""
    result = run.run_step(number - 1, get_run_logger().info)
    failure = run.failure if result is None else result.failure
    if failure is not None:
        return Failed(message=failure.message)
    if result is not None and result.state == "skipped":
        return Completed(name="Skipped", message=result.skip_reason)
    if result is not None:
        return Completed(message=f"{result.diffstat.files} files changed so far, {result.seconds:.1f} s")
    return Completed()


@task(name="job-report", task_run_name="{title} · report", cache_policy=NO_CACHE, persist_result=False)
def report(title: str, run: JobRun) -> State[Any]:
    """Remove what the job needed, and tell the instance how it ended."""
    return Completed(message=run.report().value)


def _final_state(run: JobRun) -> State[Any]:
    """How the flow run ends. Prefect shows the message beside the state."""
    match run.outcome:
        case Outcome.COMPLETED:
            return Completed(message="the instance has the results")
        case Outcome.CANCELED:
            return Cancelled(message=run.message)
        case Outcome.NOT_OURS:
            return Cancelled(message=f"{run.message}; nothing more was reported")
    return Failed(message=run.message)
