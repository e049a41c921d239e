"""Executions for the fake instance's queue: what tests enqueue, and an executor of this process to work them off."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blocks.folder import FolderStore
from blocks.queue_client import Executor, QueueClient
from blocks.runtime import Runtime
from flows.batches.jobs import Job
from flows.executor.job_run import JobRun, Workshop
from flows.executor.loop import LiveJob, Loop, Pace
from flows.executor.plain_work import run_plainly
from tests.fakes import FakeRuntime
from tests.instance.launcher import RunningInstance

TOKEN = "executors-shared-token-of-the-tests"
WAIT_SECONDS = 60


@dataclass(frozen=True)
class Repository:
    name: str
    id: int
    commit: str


class Executions:
    """A fake instance with one repository, and its queue."""

    def __init__(self, instance: RunningInstance, repository: Repository) -> None:
        self.instance, self.repository = instance, repository

    def enqueue(self, *steps: Mapping[str, Any] | str, native: bool = False, **more: Any) -> int:
        """An execution of these steps (a text: its script); ``more`` goes into the record, or into its input."""
        given = {
            "BatchChangeAttributes": {"Name": "change", "Description": "A change"},
            "repository": {"id": "UmVwb3NpdG9yeTox", "name": self.repository.name},
            "branch": {"name": "refs/heads/main", "target": {"oid": self.repository.commit}},
            "path": "",
            "onlyFetchWorkspace": False,
            "steps": [step_of(step) for step in steps],
            "searchResultPaths": [],
            "cachedStepResultFound": False,
            "cachedStepResult": {},
            "skippedSteps": {},
        }
        record = {name: more.pop(name) for name in ("secrets", "files", "dockerAuthConfig") if name in more}
        record |= {"native": native, "input": {**given, **more}}
        number: int = self.instance.admin("POST", "executions", record)
        return number

    def look(self, number: int) -> dict[str, Any]:
        """The execution as the instance has it."""
        found: dict[str, Any] = self.instance.admin("GET", f"executions/{number}")
        return found

    def ended(self, number: int) -> dict[str, Any]:
        """The execution, once it has ended."""
        eventually(lambda: self.look(number)["state"] in ("completed", "failed", "canceled"))
        return self.look(number)

    def client(self, name: str = "host-1", version: str = "0.0.0+dev", **settings: Any) -> QueueClient:
        return QueueClient(self.instance.url, SecretStr(TOKEN), Executor(name, version), **settings)


@dataclass
class Machine:
    """An executor in this process: a state folder, a runtime, a loop in a thread."""

    executions: Executions
    folder: Path
    runtime: Runtime = field(default_factory=FakeRuntime)
    pace: Pace = field(default_factory=lambda: Pace(poll_seconds=0.05, heartbeat_seconds=0.1, patience_seconds=20))
    name: str = "host-1"
    runs: list[JobRun] = field(default_factory=list)
    run_job: Callable[[JobRun], object] = run_plainly
    runtime_for: Callable[[Job, bool], Runtime] | None = None
    """In place of ``runtime``: one for each job."""

    def workshop(self) -> Workshop:
        store = FolderStore(self.folder / "store")
        runtime_for = self.runtime_for or (lambda _job, _root: self.runtime)
        return Workshop(self.folder / "home", store, runtime_for, (TOKEN,), sync_seconds=0.1)

    @contextmanager
    def working(self, *, to_the_end: bool = False, **queue: Any) -> Iterator[Loop]:
        """A loop that works; leaving gives back what still runs, or waits for it."""
        client = self.executions.client(self.name, **queue)
        loop = Loop(client, self.pace, self._work)
        thread = threading.Thread(target=copy_context().run, args=(loop.run,))
        thread.start()
        try:
            yield loop
        finally:
            loop.stop() if to_the_end else loop.give_back()
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
            client.close()

    def work_off(self, number: int, **queue: Any) -> dict[str, Any]:
        """Work until the execution has ended, and we know it; how the instance has it then."""
        with self.working(to_the_end=True, **queue):
            return self.executions.ended(number)

    def leftovers(self) -> list[str]:
        """What ended jobs left on this machine."""
        folders = (self.folder / "home" / name for name in ("workspaces", "jobs"))
        return sorted(path.name for folder in folders if folder.exists() for path in folder.iterdir())

    def _work(self, live: LiveJob) -> None:
        run = JobRun(live.job, live.client, replace(self.workshop(), job_seconds=self.pace.job_seconds), live.stopping)
        self.runs.append(run)
        try:
            self.run_job(run)
        finally:
            run.close()


def step_of(step: Mapping[str, Any] | str) -> dict[str, Any]:
    """A step as an instance sends it."""
    given = {"run": step} if isinstance(step, str) else dict(step)
    return {"container": "image:1", "env": {}, **given}


def eventually(is_true: Callable[[], Any]) -> None:
    """Wait until it is, or fail."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def keys(execution: Mapping[str, Any]) -> list[str]:
    """The keys of an execution's log entries, in their order."""
    return [entry["key"] for entry in execution["logs"]]


def entry_of(execution: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The one log entry of that key."""
    (found,) = [entry for entry in execution["logs"] if entry["key"] == key]
    return dict(found)


def results_of(execution: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The step results that the instance keeps."""
    return [entry["value"] for entry in execution["cache"]]


def diff_of(result: Mapping[str, Any]) -> str:
    """A result's diff, of either version."""
    return base64.b64decode(result["diff"]).decode() if result.get("version") == 2 else str(result["diff"])


def accepted(execution: Mapping[str, Any]) -> list[str]:
    """The reports that the instance has taken."""
    return [mark["verb"] for mark in execution["marks"] if mark["status"] == 204]


def events_in(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The event lines of a log entry."""
    lines = [line.removeprefix("stdout: ") for line in entry["out"].splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]
