"""An executor's settings, from the environment variables that upstream's executor has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError

from blocks.docker_runtime import DockerRuntime
from blocks.executor_queue import BATCHES, ExecutorQueue

from ..batches.errors import PermanentError
from ..batches.jobs import Job
from ..batches.records import explain
from .durations import go_seconds
from .loop import Pace

PREFIX = "EXECUTOR_"

_V = TypeVar("_V")


class BadConfiguration(PermanentError):
    """A variable is missing or cannot be understood. Names it, and never shows a secret."""


@dataclass(frozen=True)
class Configuration:
    """What to work off, how fast, and with what engine. ``ignored``: variables of upstream's that mean nothing here."""

    queue: ExecutorQueue
    pace: Pace
    engine: DockerRuntime
    ignored: tuple[str, ...] = ()

    def runtime_for(self, job: Job, as_root: bool) -> DockerRuntime:
        """The engine for one job: with its passwords for registries, which go before ours."""
        changes: dict[str, Any] = {}
        if job.docker_auth_config.get("auths"):
            changes["registry_credentials"] = SecretStr(json.dumps(job.docker_auth_config))
        if as_root and self.engine.run_as == "image":
            changes["run_as"] = "root"
        return self.engine.model_copy(update=changes) if changes else self.engine


def read_configuration(environment: Mapping[str, str], engine: DockerRuntime | None = None) -> Configuration:
    """The settings of an environment. Raises BadConfiguration.

    ``engine``: a stored block; what the environment says of memory, processors and registries goes before it.
    """
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value}
    reader = _Reader(given)
    configuration = Configuration(
        queue=_queue(reader),
        pace=_pace(reader),
        engine=_engine(reader, engine or DockerRuntime()),
    )
    ignored = tuple(sorted(given.keys() - reader.read))
    return Configuration(configuration.queue, configuration.pace, configuration.engine, ignored)


class _Reader:
    """Variables, and which of them somebody has asked for."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self.read: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        self.read.add(PREFIX + name)
        return self._given.get(PREFIX + name, default)

    def required(self, name: str, what: str) -> str:
        if not (value := self.text(name)):
            raise BadConfiguration(f"{PREFIX}{name} is not set: {what}")
        return value

    def value(self, name: str, read: Callable[[str], _V], default: _V, what: str) -> _V:
        text = self.text(name)
        try:
            return read(text) if text else default
        except ValueError:
            raise BadConfiguration(f"{PREFIX}{name}={text} is no {what}") from None


def _queue(reader: _Reader) -> ExecutorQueue:
    name, names = reader.text("QUEUE_NAME"), reader.text("QUEUE_NAMES")
    if name and names:
        raise BadConfiguration(f"{PREFIX}QUEUE_NAME and {PREFIX}QUEUE_NAMES are both set: set one of them")
    several = [each.strip() for each in names.split(",") if each.strip()]
    if other := [each for each in (name, *several) if each not in ("", BATCHES)]:
        raise BadConfiguration(f"the queue {other[0]!r} needs upstream's executor: this one works off {BATCHES!r} only")
    url = reader.required("FRONTEND_URL", "the instance's address")
    password = reader.required("FRONTEND_PASSWORD", "the site configuration's executors.accessToken")
    try:
        version = reader.text("VERSION") or ExecutorQueue.model_fields["executor_version"].default
        return ExecutorQueue(url=url, access_token=SecretStr(password), queue_names=several, executor_version=version)
    except ValidationError as error:
        raise BadConfiguration(f"{PREFIX}FRONTEND_URL: {explain(error)}") from None


def _pace(reader: _Reader) -> Pace:
    duration, usual = "duration; write it as in 30s, 5m or 1h30m", Pace()
    return Pace(
        jobs_at_once=reader.value("MAXIMUM_NUM_JOBS", _positive, usual.jobs_at_once, "whole number above 0"),
        poll_seconds=reader.value("QUEUE_POLL_INTERVAL", go_seconds, usual.poll_seconds, duration),
        heartbeat_seconds=reader.value("HEARTBEAT_INTERVAL", go_seconds, usual.heartbeat_seconds, duration),
        job_seconds=reader.value("MAXIMUM_RUNTIME_PER_JOB", go_seconds, usual.job_seconds, duration),
        total_jobs=reader.value("NUM_TOTAL_JOBS", int, 0, "whole number") or None,
        active_seconds=reader.value("MAX_ACTIVE_TIME", go_seconds, 0.0, duration) or None,
    )


def _engine(reader: _Reader, engine: DockerRuntime) -> DockerRuntime:
    settings = engine.model_dump()
    cpus = reader.value("JOB_NUM_CPUS", float, 0.0, "number")
    # Upstream writes 12G, and 0 for no limit.
    memory = reader.text("JOB_MEMORY").lower()
    registries = reader.text("DOCKER_AUTH_CONFIG")
    if cpus:
        settings["cpus"] = cpus
    if memory not in ("", "0"):
        settings["memory"] = memory
    if registries:
        settings["registry_credentials"] = SecretStr(registries)
    if reader.text("DOCKER_ADD_HOST_GATEWAY") in ("true", "1"):
        settings["extra_hosts"] = {**engine.extra_hosts, "host.docker.internal": "host-gateway"}
    try:
        return DockerRuntime(**settings)
    except ValidationError as error:
        raise BadConfiguration(f"{PREFIX}JOB_MEMORY, {PREFIX}JOB_NUM_CPUS: {explain(error)}") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
