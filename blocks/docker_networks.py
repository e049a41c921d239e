"""Networks for the steps of one workspace at a time, each held by a small container that does nothing else.

A network of its own for each container would double what a short step costs.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from blocks.docker_engine import Engine, Removal
from blocks.docker_labels import our_labels, our_name
from blocks.docker_policy import ContainerPolicy
from blocks.docker_workspaces import bind
from blocks.runtime import Image

_NAMES = {"HostsPath": "/etc/hosts", "ResolvConfPath": "/etc/resolv.conf", "HostnamePath": "/etc/hostname"}
"""What the engine tells a container of its network: where that lies on the engine's machine, and in the container."""


class Network:
    """A network in the making: by another thread, while the workspace is prepared."""

    def __init__(
        self, engine: Engine, policy: ContainerPolicy, image: Image, labels: Mapping[str, str], lifetime_seconds: float
    ) -> None:
        self.name = our_name("network")
        self.image_id = image.id
        self._engine, self._policy, self._image = engine, policy, image
        self._labels, self._lifetime_seconds = labels, lifetime_seconds
        self._old_at = time.monotonic() + lifetime_seconds / 2
        self._started = Future[dict[str, str]]()
        self._id, self._pid = "none", 0
        self._maker = Thread(target=self._make, name=self.name, daemon=True)
        self._maker.start()

    @property
    def is_old(self) -> bool:
        """Whether a reaper elsewhere might soon take it for abandoned."""
        return time.monotonic() > self._old_at

    @property
    def winds_up(self) -> bool:
        """Whether connections of those who left it can be seen in it: for a minute they hold their ports.

        Can be seen where the engine's processes are this machine's; elsewhere the next ones may find a port taken.
        """
        process = Path(f"/proc/{self._pid}")
        try:
            if self._id not in (process / "cgroup").read_text():
                return False
            # A line each, below one that names the columns.
            return any((process / "net" / table).read_text().count("\n") > 1 for table in ("tcp", "tcp6"))
        except OSError:
            return False

    def join(self, mounted: Collection[str]) -> dict[str, Any]:
        """Wait until a container can join it. Returns what its host configuration must hold. Raises RuntimeTrouble.

        The engine shows the same files to all who share a network, and lets them write: a step could tell the steps
        after it, another workspace's too, where a host is. So a container mounts these files itself, not to be written,
        where nothing of its own is ``mounted``.
        """
        files = [(source, target) for target, source in self._started.result().items() if target not in mounted]
        if self._engine.has_selinux:  # z: labelled for all containers. No other form of a mount can say that.
            return {"Binds": [f"{source}:{target}:ro,z" for source, target in files]}
        return {"Mounts": [bind(source, target) for source, target in files]}

    def remove(self) -> Removal:
        """Remove it, by another thread."""
        self._maker.join()
        return self._engine.remove_later(container=self.name)

    def _make(self) -> None:
        try:
            with self._engine.trouble("cannot make the network that the steps share"):
                self._create()
                self._engine.api.start(self.name)
                told = self._engine.api.inspect_container(self.name)
            self._id, self._pid = told["Id"], int(told["State"]["Pid"])
            self._started.set_result({target: told[path] for path, target in _NAMES.items() if told.get(path)})
        except Exception as error:
            self._started.set_exception(error)

    def _create(self) -> None:
        self._engine.api.create_container(
            self._image.id,
            entrypoint=[self._image.shell],
            command=["-c", "read _"],  # blocks for ever, with nothing but the shell
            user=self._policy.user,
            labels=our_labels({**self._labels, "role": "network"}, self._lifetime_seconds),
            name=self.name,
            stdin_open=True,
            host_config=self._policy.pause(limits_memory=self._engine.memory_ceiling is not None),
            healthcheck={"Test": ["NONE"]},
        )


class Networks:
    """The networks of a runtime. Safe for many threads."""

    def __init__(self, engine: Engine, policy: ContainerPolicy) -> None:
        self._engine, self._policy = engine, policy
        self._lock = Lock()
        self._idle: list[Network] = []
        self._keepers = self._to_come = 0
        self._one_after_another = 1.0

    @contextmanager
    def kept(self, rooms: int, at_once: int) -> Iterator[None]:
        """While this is open, a network that a room gives back is kept for the next one, as long as one may come.

        About ``rooms`` will be opened, ``at_once`` at a time. Leaving it removes what is kept, and waits for that.
        """
        with self._lock:
            self._keepers += 1
            self._to_come += rooms
            self._one_after_another = max(self._one_after_another, rooms / at_once)
        try:
            yield
        finally:
            for removal in [network.remove() for network in self._leave()]:
                removal.finish()

    def are_worth_it(self, steps: int) -> bool:
        """Whether a room for so many steps should take a network; a single container has its own for less."""
        return not self._policy.offline and steps * self._one_after_another >= 2

    def expect_a_room(self) -> None:
        """Note that one of the rooms to come has come."""
        with self._lock:
            self._to_come = max(0, self._to_come - 1)

    def take(self, image: Image, labels: Mapping[str, str], lifetime_seconds: float) -> Network:
        """A network that nobody else uses: one that was given back, or a new one.

        Made by a shell of ``image``, and never by that of another one: who made it may listen to all that is in it.
        """
        with self._lock:
            for network in self._idle:
                if network.image_id == image.id:
                    self._idle.remove(network)
                    return network
        return Network(self._engine, self._policy, image, labels, lifetime_seconds)

    def give_back(self, network: Network) -> list[Removal]:
        """Nothing runs in it any more. Returns what is being removed."""
        with self._lock:
            is_of_use = self._keepers and len(self._idle) < self._to_come
            if is_of_use and not network.is_old and not network.winds_up:
                self._idle.append(network)
                return []
        return [network.remove()]

    def drop(self, network: Network) -> list[Removal]:
        """It may be broken, and all others too: an engine that was restarted has stopped them."""
        with self._lock:
            doubtful, self._idle = [network, *self._idle], []
        return [one.remove() for one in doubtful]

    def _leave(self) -> list[Network]:
        with self._lock:
            self._keepers -= 1
            if self._keepers:
                return []
            left, self._idle = self._idle, []
            self._to_come, self._one_after_another = 0, 1.0
            return left
