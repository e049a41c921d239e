"""How a stage of a workspace runs as a task: with one event for the server where Prefect sends three, and short ones.

Events are what a task costs: the server parses, matches, stores and sends on each of them, with a row for every
resource that it names. A stage begins at once, so that it is pending first is not told; that it runs is told when it
has run for a moment, as most have ended by then; and of its flow run's surroundings it names the flow and the
deployment, not the work pool, the queue and the tags (the flow run's own events name them all). Its task run has all
of its times either way: the event of its end carries them. Measured by ``tests.benchmarks.scale``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Lock, Timer
from typing import Any, ParamSpec
from uuid import uuid4

from prefect.client.schemas.objects import State, TaskRun, TaskRunPolicy
from prefect.context import FlowRunContext, TagsContext
from prefect.states import Running
from prefect.task_engine import SyncTaskRunEngine
from prefect.tasks import Task
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.engine import emit_task_run_state_change_event

_P = ParamSpec("_P")

TOLD_AFTER_SECONDS = 2.0
"""How long a stage runs before the server hears of it: less than the dashboard takes to ask again."""


def run_stage(stage: Task[_P, Any], *args: _P.args, **kwargs: _P.kwargs) -> State[Any]:
    """The state in which ``stage`` ended, as ``stage(..., return_state=True)`` gives it."""
    run = _StageRun(stage, parameters=get_call_parameters(stage.fn, args, kwargs), task_run=_running(stage))
    with run.start():  # what follows is Prefect's run_task_sync
        while run.is_running():
            run.wait_until_ready()
            with run.asset_context(), run.run_context(), run.transaction_context() as transaction:
                run.call_task_fn(transaction)
    return run.state


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


class _StageRun(SyncTaskRunEngine[..., Any]):
    """Prefect's engine, with a task run that runs when it is made, and is told of a moment later."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._lock = Lock()
        self._teller: Timer | None = None

    def begin_run(self) -> None:
        self._teller = Timer(TOLD_AFTER_SECONDS, copy_context().run, (self._tell,))
        self._teller.daemon = True
        self._teller.start()

    def set_state(self, state: State[Any], force: bool = False) -> State[Any]:
        with self._lock:
            if self._teller is not None:
                self._teller.cancel()
                self._teller = None
            return super().set_state(state, force)

    def _tell(self) -> None:
        with self._lock:
            if self._teller is not None and self.task_run is not None:
                self._last_event = emit_task_run_state_change_event(self.task_run, None, self.state)


def _running(stage: Task[..., Any]) -> TaskRun:
    """A task run that runs, as Prefect makes it; one that is given is not announced."""
    context, tags = FlowRunContext.get(), TagsContext.get()
    flow_run = context.flow_run if context else None
    running: State[Any] = Running()
    made = TaskRun(
        name=stage.name,
        flow_run_id=flow_run.id if flow_run else None,
        flow_run_run_count=flow_run.run_count if flow_run else 0,
        task_key=stage.task_key,
        dynamic_key=str(uuid4()),
        task_version=stage.version,
        empirical_policy=TaskRunPolicy(
            retries=stage.retries,
            retry_delay=stage.retry_delay_seconds,
            retry_jitter_factor=stage.retry_jitter_factor,
        ),
        tags=sorted(stage.tags | tags.current_tags),
        expected_start_time=running.timestamp,
        start_time=running.timestamp,
        run_count=1,
        state=running,
        state_id=running.id,
        state_type=running.type,
        state_name=running.name,
    )
    running.state_details.task_run_id, running.state_details.flow_run_id = made.id, made.flow_run_id
    return made
