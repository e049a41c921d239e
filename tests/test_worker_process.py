"""What our worker does that Prefect's own does not. Its life with a server is seen in test_deployments.py."""

from __future__ import annotations

from uuid import uuid4

import anyio
import httpx
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.workers.process import ProcessWorker

from flows.worker_process import Worker


def test_a_run_retried_at_once_waits_for_its_last_attempts_slot() -> None:
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="retried")
    found = [WorkerFlowRunResponse(work_pool_id=uuid4(), work_queue_id=uuid4(), flow_run=run)]

    async def submit() -> list[FlowRun]:
        worker = Worker(work_pool_name="pool", limit=2)
        worker._limiter = anyio.CapacityLimiter(2)
        worker._limiter.acquire_on_behalf_of_nowait(run.id)
        return await worker._submit_scheduled_flow_runs(found)

    assert anyio.run(submit) == []


def test_a_server_that_does_not_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And told of once, however often it was asked."""
    answers = iter([httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), None, httpx.ConnectError("refused")])

    async def ask(_worker: ProcessWorker) -> list[FlowRun]:
        if (answer := next(answers)) is not None:
            raise answer
        return []

    async def work() -> None:
        worker = Worker(work_pool_name="pool", limit=2)
        for _ in range(4):
            assert await worker.get_and_submit_flow_runs() == []

    monkeypatch.setattr(ProcessWorker, "get_and_submit_flow_runs", ask)
    with caplog.at_level("INFO"):
        anyio.run(work)

    said = [record.message for record in caplog.records if "server" in record.message]
    assert [line.partition(",")[0] for line in said] == [
        "the Prefect server does not answer",
        "the Prefect server answers again",
        "the Prefect server does not answer",
    ]
