"""How a stage of a workspace runs as a task: with two events for the server where Prefect sends three, and short ones.

Events are what a task costs: the server parses, matches, stores and sends on each of them, with a row for every
resource that it names. A stage begins at once, so that it is pending first is not told; and of its flow run's
surroundings it names the flow and the deployment, not the work pool, the queue and the tags (the flow run's own events
name them all). Measured by ``tests.benchmarks.scale``: the server needs a third less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, cast
from uuid import uuid4

from prefect.client.schemas.objects import State, TaskRun, TaskRunPolicy
from prefect.context import FlowRunContext, TagsContext
from prefect.states import Pending
from prefect.task_engine import run_task_sync
from prefect.tasks import Task
from prefect.utilities.callables import get_call_parameters

_P = ParamSpec("_P")


def run_stage(stage: Task[_P, Any], *args: _P.args, **kwargs: _P.kwargs) -> State[Any]:
    """The state in which ``stage`` ended, as ``stage(..., return_state=True)`` gives it."""
    parameters = get_call_parameters(stage.fn, args, kwargs)
    ended = run_task_sync(stage, task_run=_task_run(stage), parameters=parameters, return_type="state")
    return cast("State[Any]", ended)


@contextmanager
def short_events() -> Iterator[None]:
    """What tasks do in here is told without the flow run's work pool, queue and tags."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    unrelated: dict[str, Any] = {"work_pool_name": None, "work_queue_id": None, "tags": []}
    with context.model_copy(update={"flow_run": context.flow_run.model_copy(update=unrelated)}):
        yield


def _task_run(stage: Task[..., Any]) -> TaskRun:
    """A task run that is pending, as Prefect makes it; one that is given is not announced."""
    context, tags = FlowRunContext.get(), TagsContext.get()
    pending: State[Any] = Pending()
    return TaskRun(
        name=stage.name,
        flow_run_id=context.flow_run.id if context and context.flow_run else None,
        task_key=stage.task_key,
        dynamic_key=str(uuid4()),
        task_version=stage.version,
        empirical_policy=TaskRunPolicy(
            retries=stage.retries,
            retry_delay=stage.retry_delay_seconds,
            retry_jitter_factor=stage.retry_jitter_factor,
        ),
        tags=sorted(stage.tags | tags.current_tags),
        expected_start_time=pending.timestamp,
        state=pending,
        state_id=pending.id,
        state_type=pending.type,
        state_name=pending.name,
    )
