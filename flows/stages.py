"""A workspace as Prefect shows it: each of its stages is a task. The rules live elsewhere."""

import logging
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect.tasks import Task, exponential_backoff

from . import progress
from .batches.results import Failure, WorkspaceResult
from .execution import WorkspaceRun
from .failures import RETRIES, is_temporary
from .shares import Share
from .stage_runs import run_stage, short_events

log = logging.getLogger(__name__)


def _says_something(record: logging.LogRecord) -> bool:
    """Not so `Finished in state Completed()`: the task's row says it, and the line costs a fifth of the whole task."""
    return not (record.levelno == logging.INFO and str(record.msg).startswith("Finished in state"))


logging.getLogger("prefect.task_runs").addFilter(_says_something)


def error_of(state: State[Any]) -> BaseException:
    """What ended a stage that did not complete."""
    error = state.result(raise_on_failure=False)
    return error if isinstance(error, BaseException) else RuntimeError(state.message)


def _is_worth_another_try(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return is_temporary(error_of(state))


STAGE: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _is_worth_another_try,
}
"""Results are in the ledger and in the step cache: Prefect keeps none, and retries temporary errors only."""


def run_workspace(run: Share, number: int) -> WorkspaceResult:
    """One workspace: set-up, step by step, diff collection."""
    notify = progress.observer.get()
    if run.cancel.is_set():
        result = run.leave_out(number)
    else:
        workspace = run.open_workspace(number)
        try:
            with short_events():
                result = _run_stages(run, number, workspace)
        finally:
            workspace.close()
    notify(progress.WorkspaceEnded(number, result))
    return result


def _run_stages(run: Share, number: int, workspace: WorkspaceRun) -> WorkspaceResult:
    name, notify = run.title(number), progress.observer.get()
    notify(progress.WorkspaceStage(number, name, "set-up"))
    state = run_stage(set_up, name, workspace)
    if workspace.is_cached:
        return run.collect(number, workspace)
    for index, step in enumerate(run.spec.steps):
        if not state.is_completed():
            break
        notify(progress.WorkspaceStage(number, name, f"step {index + 1}"))
        state = run_stage(run_step, name, index + 1, " ".join(step.container.split()), workspace)
    failure = None if state.is_completed() else workspace.fail(error_of(state))
    notify(progress.WorkspaceStage(number, name, "diff"))
    result: WorkspaceResult = run_stage(collect_diff, name, run, number, workspace, failure).result()
    return result


@task(name="set-up", task_run_name="{workspace} · set-up", **STAGE)
def set_up(workspace: str, run: WorkspaceRun) -> State[Any]:
    """Look up what the step cache has, and check the repository out if something is left to run."""
    run.set_up()
    if run.is_cached:
        return Completed(name="Cached", message=f"{workspace}: nothing new, all results are in the store")
    return Completed(message=f"{len(run.results)} steps need no container" if run.results else None)


@task(name="step", task_run_name="{workspace} · step {number} · {image}", **STAGE)
def run_step(workspace: str, number: int, image: str, run: WorkspaceRun) -> State[Any]:
    """Run one step's container, unless its condition is false or its result is known."""
    run.show = get_run_logger().info
    result = run.run_step(number - 1)
    if result.failure is not None:
        return Failed(message=result.failure.message)
    if result.state == "skipped":
        return Completed(name="Skipped", message=result.skip_reason)
    if result.index in run.cached:
        return Completed(name="Cached", message=f"{workspace}: the result of the same step on the same inputs")
    return Completed(message=f"{result.diffstat.files} files changed so far, {result.seconds:.1f} s")


@task(name="diff", task_run_name="{workspace} · diff", **STAGE)
def collect_diff(
    workspace: str, run: Share, number: int, ended: WorkspaceRun, failure: Failure | None
) -> WorkspaceResult:
    """Build the changeset specs from the last step's diff, and keep the workspace's records."""
    return run.collect(number, ended, failure)
