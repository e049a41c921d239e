"""The flow runs of an executor's jobs on a Prefect server: made, run in this process, retried, and buried.

Prefect shows, the instance and the store know: whatever fails here, a job goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.flow_engine import run_flow
from prefect.states import Crashed, Pending
from prefect.utilities.callables import parameter_schema

from ..locks import FileLock
from .job_flow import FLOW_NAME, desk, executor_job
from .job_run import JobRun
from .plain_work import run_plainly

log = logging.getLogger(__name__)

DEPLOYMENT = "jobs"
LOCKS = "executors"
"""The folder, in the state folder, with a lock of each executor that lives on this machine."""

_TAG = "executor:"
_TROUBLE = (httpx.HTTPError, PrefectException)


class FlowRuns:
    """The flow runs of the executor that is called ``name``."""

    def __init__(self, name: str, home: Path) -> None:
        self._name, self._home = name, home
        self._deployment: UUID | None = None

    def register(self) -> None:
        """Make the deployment, once per server. Raises Prefect's errors."""
        with get_client(sync_client=True) as client:
            try:
                self._deployment = client.read_deployment_by_name(f"{FLOW_NAME}/{DEPLOYMENT}").id
            except ObjectNotFound:
                self._deployment = client.create_deployment(
                    client.create_flow(executor_job),
                    DEPLOYMENT,
                    description="The jobs of an instance's executor queue. `batchwright executor` runs them itself.",
                    tags=["batchwright", "executor"],
                    parameter_openapi_schema=parameter_schema(executor_job).model_dump_for_openapi(),
                )

    def run(self, run: JobRun) -> None:
        """Run a job as a flow run, to its report; if Prefect fails, without it. Raises QueueTrouble."""
        try:
            flow_run = self._make(run)
            desk.put(flow_run.id, run)
            run_flow(executor_job, flow_run=flow_run, parameters=flow_run.parameters, return_type="state")
        except _TROUBLE as trouble:
            log.warning("job %s is not seen in Prefect: %s", run.job.id, trouble)
        finally:
            # Nothing is left to do here, unless Prefect failed in the middle: then the rest, and the report.
            if run.outcome is None:
                run_plainly(run)

    @contextmanager
    def minded(self, seconds: float = 3.0) -> Iterator[None]:
        """Answer *Retry* as long as this is open; before that, bury the runs of executors that died here."""
        folder = self._home / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{self._name}.lock")
        lock.take()
        ended = Event()
        minder = Thread(target=self._mind, args=(ended, seconds), name="flow-runs", daemon=True)
        try:
            self._bury_the_dead()
            minder.start()
            yield
        finally:
            ended.set()
            if minder.ident is not None:
                minder.join()
            lock.remove()

    def _make(self, run: JobRun) -> FlowRun:
        job = run.job
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(
                self._deployment,  # type: ignore[arg-type]  # without one Prefect says so, and the job runs unseen
                name=job.title,
                parameters={
                    "job": job.id,
                    "repository": job.repository,
                    "commit": job.commit,
                    "executor": self._name,
                },
                state=Pending(),  # nobody else may take it
                tags=["executor", f"{_TAG}{self._name}"],
            )

    def _mind(self, ended: Event, seconds: float) -> None:
        while not ended.wait(seconds):
            try:
                for flow_run in self._in_state(StateType.SCHEDULED):
                    log.info("flow run %s was asked to run again", flow_run.name)
                    run_flow(executor_job, flow_run=flow_run, parameters=flow_run.parameters, return_type="state")
            except Exception as trouble:  # whatever it was: the next look may be better
                log.debug("cannot see which jobs should be retried: %s", trouble)

    def _bury_the_dead(self) -> None:
        """Say of jobs whose executor was killed that they crashed. The instance gives them out again by itself."""
        dead = {lock.path.stem: lock for lock in self._locks_of_the_dead()}
        try:
            with get_client(sync_client=True) as client:
                for flow_run in self._in_state(StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
                    if dead.keys() & {tag.removeprefix(_TAG) for tag in flow_run.tags if tag.startswith(_TAG)}:
                        self._bury(client, flow_run)
            for lock in dead.values():
                lock.remove()
        except _TROUBLE as trouble:
            log.warning("cannot say which jobs died with their executor: %s", trouble)
        finally:
            for lock in dead.values():
                lock.release()

    def _locks_of_the_dead(self) -> Iterator[FileLock]:
        for file in (self._home / LOCKS).glob("*.lock"):
            if file.stem != self._name:
                lock = FileLock(file)
                if lock.try_take():
                    yield lock

    def _bury(self, client: SyncPrefectClient, flow_run: FlowRun) -> None:
        message = "The executor died. The instance gives the job to another one; finished steps are not repeated."
        client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)

    def _in_state(self, *types: StateType) -> list[FlowRun]:
        wanted = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[self._deployment] if self._deployment else []),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
        )
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(flow_run_filter=wanted, limit=50)
