"""The executor in trouble: no job is lost, none is reported twice, and nothing of it stays behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.queue_client import JobGone, Patience, QueueRefused, QueueUnavailable
from flows.executor.job_run import Outcome
from tests.executions import TOKEN, Executions, Machine, Repository, accepted, eventually, keys, results_of
from tests.fakes import FakeRuntime
from tests.instance.launcher import RunningInstance

NAME = "github.com/acme/app"
STALLED_SECONDS = 1.5


@pytest.fixture(scope="module")
def executions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executions]:
    with RunningInstance(tmp_path_factory.mktemp("instance")) as instance:
        instance.set("executors.accessToken", TOKEN)
        instance.set("fake.stalledSeconds", str(STALLED_SECONDS))
        number, commit = instance.add_repository(NAME, {"README.md": "hello\n"})
        yield Executions(instance, Repository(NAME, number, commit))


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def machine(executions: Executions, runtime: FakeRuntime, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(executions, tmp_path, runtime)
    yield machine
    executions.instance.end_faults()
    executions.instance.sql("UPDATE executions SET state = 'canceled' WHERE state IN ('queued', 'processing')")
    assert runtime.open_rooms == 0
    assert machine.leftovers() == []


@pytest.mark.parametrize("kind", ["status", "lost", "cut", "cut-after"])
def test_any_call_may_fail_now_and_then(machine: Machine, executions: Executions, kind: str) -> None:
    """Every fourth call of the whole interface fails, git's too: refused or done all the same, with or without an
    answer. Log entries are there once each. Git's calls are counted apart: it needs three in a row, in four tries."""
    number = executions.enqueue("write a.txt 1", "write b.txt 2", native=True)
    for calls in ("^/.executors/git/", "^/.executors/(?!git/)"):
        executions.instance.fault(kind, calls, every=4, status=502)

    ended = machine.work_off(number)

    assert ended["state"] == "completed", ended["failure"]
    assert [result["stepIndex"] for result in results_of(ended)] == [0, 1]
    assert accepted(ended) == ["markComplete"]
    assert len(keys(ended)) == len(set(keys(ended)))


def test_five_hundred_on_every_tenth_call(machine: Machine, executions: Executions) -> None:
    executions.instance.fault("status", "^/.executors/", every=10, status=500)
    machine.pace = replace(machine.pace, jobs_at_once=2)
    numbers = [executions.enqueue("out x", "exit 3") for _ in range(3)]

    with machine.working():
        ended = [executions.ended(number) for number in numbers]

    assert [each["state"] for each in ended] == ["failed"] * 3
    assert [accepted(each) for each in ended] == [["markFailed"]] * 3
    assert [len(results_of(each)) for each in ended] == [1] * 3


@pytest.mark.parametrize("route", ["dequeue", "markComplete"])
def test_an_answer_that_is_cut_loses_no_job(machine: Machine, executions: Executions, route: str) -> None:
    """A job that was given to us unheard is given again; one that was reported unheard is not reported twice."""
    if route == "markComplete":  # a heartbeat in between would tell that the job is over, and nothing is reported then
        machine.pace = replace(machine.pace, heartbeat_seconds=3)
    number = executions.enqueue("out x")
    executions.instance.fault("cut-after", f"/{route}$", times=1)

    ended = machine.work_off(number)

    assert ended["state"] == "completed"
    assert accepted(ended) == ["markComplete"]
    assert ended["num_resets"] == (1 if route == "dequeue" else 0)
    assert machine.runs[-1].outcome is Outcome.COMPLETED


def test_a_report_whose_answers_are_all_cut_counts_once_a_heartbeat_tells(
    machine: Machine, executions: Executions
) -> None:
    number = executions.enqueue("out x")
    executions.instance.fault("cut-after", "/markComplete$")

    ended = machine.work_off(number)

    assert (ended["state"], ended["num_resets"]) == ("completed", 0)
    assert accepted(ended) == ["markComplete"]
    eventually(lambda: machine.runs[-1].outcome)
    assert machine.runs[-1].outcome is Outcome.NOT_OURS


def test_the_instance_restarts_while_a_job_runs(machine: Machine, executions: Executions) -> None:
    number = executions.enqueue("out x\nsleep 1", "out y", native=True)

    with machine.working():
        eventually(lambda: executions.look(number)["logs"])
        executions.instance.kill()
        time.sleep(0.5)
        executions.instance.start()
        ended = executions.ended(number)

    assert ended["state"] == "completed", ended["failure"]
    assert accepted(ended) == ["markComplete"]
    assert [result["stdout"] for result in results_of(ended)] == ["x\n", "y\n"]


def test_a_job_that_is_taken_away_is_stopped_and_not_reported(machine: Machine, executions: Executions) -> None:
    """It is given out again, here to the same executor, and finished steps are not repeated."""
    number = executions.enqueue("out once", "sleep 30\nout late", native=True)

    with machine.working():
        eventually(lambda: "step.docker.step.1.run" in keys(executions.look(number)))
        executions.instance.admin("POST", f"executions/{number}/take-away")
        eventually(lambda: machine.runs and machine.runs[0].outcome)
        eventually(lambda: len(machine.runs) > 1)

    assert machine.runs[0].outcome is Outcome.NOT_OURS
    assert executions.look(number)["marks"] == []
    assert isinstance(machine.runtime, FakeRuntime)
    assert machine.runtime.scripts.count("out once") == 1


def test_a_job_whose_token_is_revoked_goes_to_somebody_else(machine: Machine, executions: Executions) -> None:
    """Nothing can be said of it any more. Kept alive by our heartbeat it would be nobody's for ever."""
    number = executions.enqueue("out once\nsleep 1", "out twice", native=True)

    with machine.working():
        eventually(lambda: executions.look(number)["logs"])
        executions.instance.admin("POST", f"executions/{number}/revoke")
        ended = executions.ended(number)

    assert ended["state"] == "completed"
    assert ended["num_resets"] == 1
    assert accepted(ended) == ["markComplete"]
    assert machine.runs[0].outcome is Outcome.NOT_OURS


def test_a_job_that_the_instance_does_not_know_any_more_is_dropped(machine: Machine, executions: Executions) -> None:
    unknown, next_one = executions.enqueue("sleep 30"), executions.enqueue("out x")

    with machine.working():
        eventually(lambda: executions.look(unknown)["logs"])
        executions.instance.sql("DELETE FROM executions WHERE id = ?", unknown)
        ended = executions.ended(next_one)

    assert ended["state"] == "completed"
    assert machine.runs[0].outcome is Outcome.NOT_OURS


@pytest.mark.parametrize("queue", [{}, {"queues": ("batches",)}], ids=["one queue", "several"])
def test_a_canceled_job_ends_within_seconds(
    machine: Machine, executions: Executions, queue: dict[str, tuple[str, ...]]
) -> None:
    """Its finished steps are kept. With several queues the ids have the queue's name."""
    number = executions.enqueue("out x", "sleep 30", native=True)

    with machine.working(**queue):
        eventually(lambda: "step.docker.step.1.run" in keys(executions.look(number)))
        executions.instance.admin("POST", f"executions/{number}/cancel")
        ended = executions.ended(number)

    assert ended["state"] == "canceled"
    assert accepted(ended) == ["markFailed"]
    assert [result["stdout"] for result in results_of(ended)] == ["x\n"]
    assert machine.runs[0].outcome is Outcome.CANCELED


def test_a_job_that_takes_too_long_fails(machine: Machine, executions: Executions) -> None:
    machine.pace = replace(machine.pace, job_seconds=1.5)

    ended = machine.work_off(executions.enqueue("sleep 30"))

    assert ended["state"] == "failed"
    assert "1.5s" in ended["failure"]


def test_shutdown_lets_jobs_finish_and_takes_no_new_ones(machine: Machine, executions: Executions) -> None:
    running, waiting = executions.enqueue("sleep 1\nout x"), executions.enqueue("out y")

    with machine.working() as loop:
        eventually(lambda: executions.look(running)["logs"])
        loop.stop()
        ended = executions.ended(running)
        eventually(lambda: not loop.jobs)

    assert ended["state"] == "completed"
    assert executions.look(waiting)["state"] == "queued"


def test_a_job_that_is_given_back_is_done_by_another_executor(
    machine: Machine, executions: Executions, tmp_path: Path
) -> None:
    number = executions.enqueue("out once", "sleep 2\nout y", native=True)
    with machine.working() as loop:
        eventually(lambda: "step.docker.step.1.run" in keys(executions.look(number)))
        loop.give_back()
        eventually(lambda: not loop.jobs)
    other = Machine(executions, tmp_path / "other", name="host-2")

    ended = other.work_off(number)

    assert ended["state"] == "completed"
    assert [mark["worker"] for mark in ended["marks"]] == ["host-2"]
    assert ended["num_resets"] == 1


def test_a_record_that_the_instance_cannot_transform_stops_nobody(machine: Machine, executions: Executions) -> None:
    broken = executions.instance.admin("POST", "executions", {"native": True})

    ended = machine.work_off(executions.enqueue("out x"))

    assert ended["state"] == "completed"
    assert executions.look(broken)["state"] == "failed"


def test_a_wrong_shared_token_is_told_at_once(executions: Executions) -> None:
    executions.instance.set("executors.accessToken", "another-token-of-the-instance")
    client = executions.client()

    try:
        with pytest.raises(QueueRefused, match="401"):
            client.check()
    finally:
        client.close()
        executions.instance.set("executors.accessToken", TOKEN)


def test_calls_are_tried_again_until_patience_ends(executions: Executions) -> None:
    executions.instance.fault("status", "/markComplete$", status=429, headers={"Retry-After": "1"})
    client = executions.client()

    try:
        with pytest.raises(QueueUnavailable, match="429"):
            client.job(1, client._token, patience=Patience(0.5)).complete()
    finally:
        client.close()
        executions.instance.end_faults()


def test_another_executors_job_cannot_be_written_to(executions: Executions) -> None:
    number = executions.enqueue("out x")
    owner, other = executions.client("host-1"), executions.client("host-2")

    try:
        job = owner.dequeue()
        assert job is not None
        assert job["id"] == number
        with pytest.raises(JobGone):
            other.job(number, owner._token).add_log_entry({"key": "k", "command": []})
        with pytest.raises(JobGone):
            other.job(number, owner._token).complete()
        assert owner.heartbeat([number]).known == {number}
        assert other.heartbeat([number]).known == frozenset()
    finally:
        owner.close()
        other.close()
        executions.instance.sql("UPDATE executions SET state = 'canceled'")
