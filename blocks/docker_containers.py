"""One container from its start to its exit: streams, time limit, cancel. Whoever made it removes it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

from docker.errors import APIError

from blocks.disks import DiskUser, unnamed_bytes, used_bytes
from blocks.docker_engine import ENGINE_ERRORS, Engine, translated
from blocks.docker_streams import Attachment, Demultiplexer
from blocks.runtime import Exit, RuntimeTrouble, RuntimeUnavailable
from blocks.store import Sink

_TICK_SECONDS = 0.2
"""How soon a cancel or a time limit is noticed."""
_GRACE_SECONDS = 2.0
"""After the exit: how long the stream may be silent before we stop to wait for its end."""
_KILL_SECONDS = 60.0
"""A killed container that is not gone after this long has a broken engine."""
_EVENT_SECONDS = 0.25
"""How long after a container's exit its engine may note that it was killed."""
_KILLED = 137


@dataclass(frozen=True)
class Stopping:
    """When to end a container that does not end by itself."""

    cancel: Event
    timeout_seconds: float | None
    grace_seconds: float
    """Between SIGTERM and SIGKILL; 0: SIGKILL at once."""
    limited_memory: bool
    disk: Path
    """The workspace's folder, on the disk that must not become full."""


def execute(engine: Engine, container: str, stopping: Stopping, stdout: Sink, stderr: Sink) -> Exit:
    """Start a created container, copy its output, wait for its exit. Raises RuntimeTrouble and the sinks' errors."""
    if stopping.cancel.is_set():
        return Exit(_KILLED, cancelled=True)
    with engine.trouble("cannot attach to the container"):
        attachment = Attachment(engine.api, container)
    with attachment:
        return _Execution(engine, container, stopping).run(attachment, Demultiplexer(stdout, stderr))


class _Execution:
    def __init__(self, engine: Engine, container: str, stopping: Stopping) -> None:
        self._engine, self._container, self._stopping = engine, container, stopping
        self._waiter = _Waiter(engine, container)
        self._deadline = float("inf")
        self._cancelled = self._timed_out = self._disk_full = False
        self._kill_at = self._give_up_at = float("inf")
        self._trouble: RuntimeTrouble | None = None
        self._disk_user = DiskUser(stopping.disk, self._written_bytes)

    def run(self, attachment: Attachment, output: Demultiplexer) -> Exit:
        with self._disk_user:
            return self._run(attachment, output)

    def _run(self, attachment: Attachment, output: Demultiplexer) -> Exit:
        with self._engine.trouble("cannot start the container"):
            self._engine.api.start(self._container)
        if self._stopping.timeout_seconds is not None:
            self._deadline = time.monotonic() + self._stopping.timeout_seconds
        self._waiter.start()
        self._copy(attachment, output)
        while not self._waiter.ended.wait(_TICK_SECONDS):
            self._stop_if_due()
        return self._exit(self._waiter.code())

    def _copy(self, attachment: Attachment, output: Demultiplexer) -> None:
        heard_at = time.monotonic()
        while True:
            with self._engine.trouble("lost the container's output"):
                data = attachment.receive(_TICK_SECONDS)
            if data:
                if not self._disk_full:
                    output.feed(data)
                heard_at = time.monotonic()
            elif data is not None or (self._waiter.ended.is_set() and time.monotonic() - heard_at > _GRACE_SECONDS):
                break
            self._stop_if_due()
        if not output.between_frames and not self._stopped:
            raise RuntimeUnavailable("lost the container's output: the engine ended the stream in the middle")

    @property
    def _stopped(self) -> bool:
        return self._cancelled or self._timed_out or self._disk_full

    def _stop_if_due(self) -> None:
        if self._trouble is not None:
            raise self._trouble
        now = time.monotonic()
        if not self._stopped:
            self._cancelled = self._stopping.cancel.is_set()
            self._timed_out = not self._cancelled and now >= self._deadline
            self._disk_full = not (self._cancelled or self._timed_out) and self._disk_user.must_stop()
            if self._stopped:
                grace = 0.0 if self._disk_full else self._stopping.grace_seconds
                self._kill_at = now + grace
                self._give_up_at = self._kill_at + _KILL_SECONDS
                if grace:
                    self._signal("SIGTERM")
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._signal("SIGKILL")
        if now >= self._give_up_at:
            raise RuntimeUnavailable(f"container {self._container} was killed but does not end; look at the engine")

    def _written_bytes(self) -> int:
        """What is there because of this workspace: all of its folder, volumes, its container's own layer.

        Also what has no name any more. Of an engine elsewhere only what is in the folder.
        """
        size, api = used_bytes(self._stopping.disk), self._engine.api
        try:
            container = api.inspect_container(self._container)
            for mount in container["Mounts"]:
                # An overlay that is mounted now shows all of the repository; its layer is in the folder.
                if mount["Type"] == "volume" and not os.path.ismount(mount["Source"]):
                    size += used_bytes(Path(mount["Source"]))
            size += sum(one.get("SizeRw") or 0 for one in api.containers(size=True, filters={"id": container["Id"]}))
            cgroup = Path(f"/proc/{container['State']['Pid']}/cgroup").read_text()
            if container["Id"] in cgroup:  # else the engine's processes are another machine's
                processes = api.top(self._container, "-o pid")["Processes"] or ()
                size += unnamed_bytes(int(fields[0]) for fields in processes)
        except (*ENGINE_ERRORS, OSError, KeyError, ValueError):
            pass
        return size

    def _signal(self, signal: str) -> None:
        """Beside the copying: the engine does not answer while it waits for us to read what the container writes."""
        Thread(target=self._send, args=(signal,), name=f"{signal}-{self._container}", daemon=True).start()

    def _send(self, signal: str) -> None:
        try:
            self._engine.api.kill(self._container, signal)
        except ENGINE_ERRORS as error:
            if not (isinstance(error, APIError) and error.status_code in (404, 409)):  # it has just ended
                self._trouble = translated(error, "cannot kill the container", self._engine.address)

    def _exit(self, code: int) -> Exit:
        if self._stopped:
            return Exit(code, timed_out=self._timed_out, cancelled=self._cancelled, disk_full=self._disk_full)
        if code == 0 and not self._stopping.limited_memory:
            return Exit(code)
        state = self._state()
        if code == _KILLED and not state["OOMKilled"]:  # the engine hears of the two from different places
            time.sleep(_TICK_SECONDS)
            state = self._state()
        if code != 0 and not state["OOMKilled"]:
            self._check_not_killed_from_outside(state)
        return Exit(code, oom_killed=bool(state["OOMKilled"]))

    def _state(self) -> dict[str, Any]:
        with self._engine.trouble("cannot inspect the container"):
            state: dict[str, Any] = self._engine.api.inspect_container(self._container)["State"]
        return state

    def _check_not_killed_from_outside(self, state: dict[str, Any]) -> None:
        """A step that somebody killed, an engine that shuts down for one, did not fail: it did not run."""
        with self._engine.trouble("cannot ask for the container's events"):
            api: Any = self._engine.api  # its types know whole seconds only
            events = api.events(
                since=_seconds(state["StartedAt"]),
                until=_seconds(state["FinishedAt"], later=_EVENT_SECONDS),
                filters={"type": "container", "container": self._container, "event": "kill"},
            )
            killed = any(events)
        if killed:
            raise RuntimeUnavailable(
                f"container {self._container} was killed from outside: by a person, or because its engine stopped"
            )


def _seconds(moment: str, later: float = 0) -> str:
    """A moment as the engine tells it, as the engine wants it."""
    return f"{datetime.fromisoformat(moment).timestamp() + later:.6f}"


class _Waiter(Thread):
    """Waits for a container's exit, as long as it takes. ``ended``: it exited, or cannot be waited for any more."""

    def __init__(self, engine: Engine, container: str) -> None:
        super().__init__(name=f"wait-{container}", daemon=True)
        self.ended = Event()
        self._engine, self._container = engine, container
        self._answer: Mapping[str, Any] = {}
        self._failure: Exception | None = None

    def run(self) -> None:
        try:
            self._answer = self._engine.api.wait(self._container)
        except (*ENGINE_ERRORS, ValueError) as error:  # ValueError: the answer ended before its JSON did
            self._failure = error
        self.ended.set()

    def code(self) -> int:
        """The exit code. Raises RuntimeUnavailable: without the engine's word no container has ended well."""
        problem = self._failure or (self._answer.get("Error") or {}).get("Message")
        if problem or "StatusCode" not in self._answer:
            raise RuntimeUnavailable(
                f"the engine went away before container {self._container} ended ({problem or 'no exit code'})"
            )
        self.join()
        return int(self._answer["StatusCode"])
