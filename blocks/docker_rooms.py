"""The place of one workspace's steps in an engine: a network that they share, their containers one after the other."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from blocks.aside import Aside
from blocks.docker_containers import Stopping, execute
from blocks.docker_engine import Engine, Removal
from blocks.docker_labels import our_labels, our_name
from blocks.docker_networks import Network, Networks
from blocks.docker_policy import ContainerPolicy, check
from blocks.docker_workspaces import WorkspaceAccess, image_volumes
from blocks.nested_files import together
from blocks.runtime import (
    ContainerRun,
    Exit,
    Image,
    ImageUnavailable,
    Layers,
    ReadOnlyFile,
    RuntimeTrouble,
    RuntimeUnavailable,
)
from blocks.store import Sink

log = logging.getLogger(__name__)

_AFTER_TIMEOUT_SECONDS = 3600
"""How long a step's container may be needed after its time limit: to be killed, read and removed."""
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"


@dataclass(frozen=True)
class RoomPlan:
    """What a room is made for. ``folder``: the workspace's own on this host."""

    name: str
    labels: Mapping[str, str]
    folder: Path
    image: Image
    """Of the first step."""
    steps: int
    """About how many will run."""
    lifetime_seconds: float
    stop_grace_seconds: float


class DockerRoom:
    """A ``Room``. For one thread at a time."""

    def __init__(
        self,
        engine: Engine,
        policy: ContainerPolicy,
        plan: RoomPlan,
        access: Callable[[], WorkspaceAccess],
        forget: Callable[[Image], None],
        networks: Networks,
    ) -> None:
        """``access`` is asked when the first container runs; ``forget`` is told of an image that the engine lost."""
        self._engine, self._policy, self._plan = engine, policy, plan
        self._make_access, self._forget, self._networks = access, forget, networks
        self._access: WorkspaceAccess | None = None
        self._removals: list[Removal] = []
        self._ran = 0
        networks.expect_a_room()
        self._shares = networks.are_worth_it(plan.steps)
        self._network = self._take_network(plan.image) if self._shares else None

    def run(
        self,
        container: ContainerRun,
        layers: Layers,
        layer: Path,
        *,
        stdout: Sink,
        stderr: Sink,
        cancel: Event,
    ) -> Exit:
        """See ``Room.run``. Raises RuntimeTrouble, and what the streams raise."""
        check(container)
        try:
            return self._run(container, layers, layer, stdout, stderr, cancel)
        except RuntimeTrouble as trouble:
            if isinstance(trouble, ImageUnavailable):
                self._forget(container.image)
            self._leave_network(intact=False)
            raise

    def close(self) -> None:
        """Remove everything that is left, and wait until it is gone. May be called more than once."""
        self._finish_removals()  # before the network is another room's
        self._leave_network()
        self._finish_removals()
        if self._access is not None:
            self._access.close()

    def _finish_removals(self) -> None:
        for removal in self._removals:
            removal.finish()
        self._removals.clear()

    def _run(
        self, container: ContainerRun, layers: Layers, layer: Path, stdout: Sink, stderr: Sink, cancel: Event
    ) -> Exit:
        if self._access is None:
            self._access = self._make_access()
        name = self._new_name()
        labels = self._labels(container)
        stopping = Stopping(
            cancel,
            container.timeout_seconds,
            self._plan.stop_grace_seconds,
            self._policy.memory_bytes is not None,
            self._plan.folder,
        )
        # In a copy the volume is that of later steps, too.
        volume_labels = our_labels({**self._plan.labels, **container.labels}, self._plan.lifetime_seconds)
        try:
            mounts = self._access.mounts(name, volume_labels, layers, layer, self._files(container))
            mounts += image_volumes(self._engine, container.image, labels, mounts)
            network = self._network_for(container.image)
            host = self._policy.step(network.name if network else None, container.image.user)
            names = network.join({os.path.normpath(mount["Target"]) for mount in mounts}) if network else {}
            mounts += names.get("Mounts", ())
            self._create(name, labels, container, {**host, **names, "Mounts": mounts})
            self._access.fill(name)
            exit = execute(self._engine, name, stopping, stdout, stderr)
            self._ran += 1
            if self._ran >= self._plan.steps or not exit.ok:
                self._leave_network()  # already: what comes now, the diff, takes a while
            return exit if exit.was_stopped else self._collect(name, exit, cancel)
        finally:
            self._removals.append(self._access.release(name))

    def _collect(self, name: str, exit: Exit, cancel: Event) -> Exit:
        assert self._access is not None
        try:
            self._access.collect(name, cancel)
        except RuntimeUnavailable:
            if cancel.is_set():
                return replace(exit, cancelled=True)
            raise
        return exit

    def _create(self, name: str, labels: Mapping[str, str], container: ContainerRun, host: dict[str, object]) -> None:
        with self._engine.trouble(f"cannot make a container of {container.image.reference}"):
            answer = self._engine.api.create_container(
                container.image.id,
                entrypoint=[container.command[0]],
                command=list(container.command[1:]),
                environment=_for_any_user(container.environment),
                working_dir=container.working_directory,
                user=self._policy.user,
                labels=dict(labels),
                name=name,
                host_config=host,
                healthcheck={"Test": ["NONE"]},  # an image's own would run beside the step
                network_disabled=self._policy.offline,
            )
        for warning in answer.get("Warnings") or ():
            log.warning("container %s: %s", name, warning)

    def _network_for(self, image: Image) -> Network | None:
        """The network that the room's containers share; None: each has its own, or none."""
        if self._shares and self._network is None:
            self._network = self._take_network(image)
        return self._network

    def _take_network(self, image: Image) -> Network:
        run = {"run": self._plan.labels["run"]} if "run" in self._plan.labels else {}
        return self._networks.take(image, run, self._plan.lifetime_seconds)

    def _leave_network(self, *, intact: bool = True) -> None:
        if self._network is not None:
            leave = self._networks.give_back if intact else self._networks.drop
            self._removals += leave(self._network)
            self._network = None

    def _files(self, container: ContainerRun) -> list[ReadOnlyFile]:
        files = together(container.files, Aside(self._plan.folder).place)
        if not self._policy.offline or any(file.target == "/etc/hosts" for file in files):
            return files
        hosts = self._plan.folder / "hosts"
        if not hosts.exists():  # without a network the engine leaves this file empty
            hosts.write_text(_HOSTS)
            hosts.chmod(0o644)
        return [*files, ReadOnlyFile(hosts, "/etc/hosts")]

    def _labels(self, container: ContainerRun) -> dict[str, str]:
        lifetime = self._plan.lifetime_seconds
        if container.timeout_seconds is not None:
            lifetime = container.timeout_seconds + _AFTER_TIMEOUT_SECONDS
        return our_labels({**self._plan.labels, **container.labels}, lifetime)

    def _new_name(self) -> str:
        readable = re.sub(r"[^A-Za-z0-9_.-]", "-", self._plan.name)[:80]
        return our_name(readable)


def _for_any_user(environment: Mapping[str, str]) -> dict[str, str]:
    """git refuses a repository of another user, as the workspace is to all but root, unless it is told not to."""
    if "GIT_CONFIG_COUNT" in environment:
        return dict(environment)
    trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    return {**trust, **environment}
