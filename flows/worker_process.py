"""A worker's process: two of Prefect's process workers, one for batch changes, one for shards, with slots of their own.

A run that is spread waits for its shards. If both took their slots from the same few, runs that wait would hold all of
them, and no shard would ever begin.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.logging import get_logger
from prefect.utilities.processutils import command_to_string
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

SHARDS_QUEUE = "shards"
"""The work queue of the deployment workspace-shard (infra/prefect.yaml)."""

_QUEUES: Mapping[str, str] = {"default": "", SHARDS_QUEUE: "-shards"}
"""The queues of the pool, with what the worker's name ends in."""


class _Configuration(ProcessJobConfiguration):
    """Starts a flow run as one process.

    Prefect starts two, of which the first prepares code and dependencies for the second and waits for it. Ours are the
    installed package, and importing Prefect once more would cost seconds of CPU and 100 MB for every flow run.
    """

    def prepare_for_flow_run(self, *arguments: Any, **more: Any) -> None:
        super().prepare_for_flow_run(*arguments, **more)
        if not self._command_configured:
            self.command = command_to_string([sys.executable, "-P", "-m", "flows.flow_process"])
        self._command_configured = True


class Worker(ProcessWorker):
    """A process worker that outlives an absence of its server, and runs that are retried at once.

    Prefect's own ends, and kills its flow runs, after some two minutes without an answer.
    """

    job_configuration = _Configuration
    _known = False
    """Whether the server has known this worker: until then Prefect's own start is patient enough, and says more."""
    _away = False

    @classmethod
    def __dispatch_key__(cls) -> str:
        """Beside the one that Prefect's own command chooses."""
        return f"batchwright-{cls.type}"

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        with self._patience():
            return await super().get_and_submit_flow_runs()
        return []

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """But those of which an earlier attempt still has its slot: they are asked for again in a moment.

        A run that people retry at once is scheduled before the process of its last attempt is gone. Prefect's worker
        then wants a second slot for it, and ends by the error, with all that runs.
        """
        slots = self._limiter.statistics().borrowers if self._limiter else ()
        free = [each for each in flow_run_response if each.flow_run.id not in slots]
        return await super()._submit_scheduled_flow_runs(free)

    async def sync_with_backend(self) -> None:
        if not self._known:
            await super().sync_with_backend()
            self._known = True
            return
        with self._patience():
            await super().sync_with_backend()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Take note of an error of the server or of the way there; the next attempt is seconds away."""
        try:
            yield
        except httpx.HTTPError as error:
            if not self._away:
                get_logger("worker").warning("the Prefect server does not answer, and is asked on and on: %s", error)
            self._away = True
        else:
            if self._away:
                get_logger("worker").info("the Prefect server answers again")
            self._away = False


async def work(name: str, pool: str, limit: int) -> None:
    """Take flow runs from the pool until this is cancelled: at most ``limit`` batch changes and ``limit`` shards."""
    say = get_logger("worker").info
    async with anyio.create_task_group() as group:
        for queue, suffix in _QUEUES.items():
            worker = Worker(work_pool_name=pool, work_queues=[queue], name=f"{name}{suffix}", limit=limit)
            group.start_soon(partial(worker.start, printer=say))


def main() -> None:
    """``NAME POOL LIMIT``."""
    name, pool, limit = sys.argv[1:]
    # nohup, and a shell's `&`, let their programs inherit an ignored SIGINT: then neither signal would end us.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As Prefect's own command does it: what ends us by a signal ends our flow runs too.
    signal.signal(signal.SIGTERM, lambda _number, _frame: os.kill(os.getpid(), signal.SIGINT))
    try:
        anyio.run(work, name, pool, int(limit))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
