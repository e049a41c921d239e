"""The block that says where containers run: any engine that speaks Docker's API."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

from docker.errors import DockerException
from docker.utils import parse_bytes
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, PrivateAttr, SecretStr, field_validator

from blocks.aside import Aside
from blocks.docker_engine import Engine, missing_limits
from blocks.docker_images import Images, PullPolicy
from blocks.docker_networks import Networks
from blocks.docker_policy import PACKAGE_MANAGER_CAPABILITIES, ContainerPolicy
from blocks.docker_probe import why_no_overlay
from blocks.docker_reaper import Reaped, reap_abandoned, remove_run
from blocks.docker_rooms import DockerRoom, RoomPlan
from blocks.docker_workspaces import CopyAccess, OverlayAccess, WorkspaceAccess
from blocks.registry_credentials import CredentialsInvalid, RegistryCredentials
from blocks.runtime import Image, ImageRefused, Room, WorkspaceMode

log = logging.getLogger(__name__)


@dataclass
class _Connection:
    """What a runtime needs an engine for; made at the first use."""

    engine: Engine
    images: Images
    networks: Networks
    lock: Lock = field(default_factory=Lock)
    modes: dict[int, tuple[WorkspaceMode, str]] = field(default_factory=dict)
    """By device: folders of one file system are all alike."""
    looked_at: bool = False
    """Whether people know which limits the engine does not keep."""


def _warn_of_limits(connection: _Connection) -> None:
    """Say it once: a step without them can take the whole machine."""
    with connection.lock:
        if not connection.looked_at:
            connection.looked_at = True
            if missing := missing_limits(connection.engine.info()):
                log.warning(
                    "the engine at %s keeps no limits of %s: a step can take all of the machine; let it use cgroups",
                    connection.engine.address,
                    " and ".join(missing),
                )


class _Link:
    """A block's way to its connection. A copy of the block, pickled or with other settings, makes its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: tuple[dict[str, Any], _Connection] | None = None

    def connection(self, settings: dict[str, Any], connect: Callable[[], _Connection]) -> _Connection:
        with self._lock:
            if self._made is None or self._made[0] != settings:
                self._made = deepcopy(settings), connect()
            return self._made[1]

    def __reduce__(self) -> tuple[type[_Link], tuple[()]]:
        return _Link, ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Link)

    __hash__ = None  # type: ignore[assignment]


class DockerRuntime(Block):
    """
    Run steps in containers of a Docker engine, or of anything with its API: Docker 20.10 and later, Podman, rootless
    and remote engines.

    A container has no capability that a package manager does not need and can gain none; the engine's socket is never
    inside. What a network lets it reach is the network's matter: on the default bridge that is all this host reaches,
    a cloud's metadata service (169.254.169.254) included. Block that address in the host's firewall (chain
    DOCKER-USER), or use network none or a network of your own.

    A repository at its commit is shared by all workspaces, as a layer below each, where the engine is on this machine
    and we are root; else every workspace is a copy that is sent to the engine and read back.

    Example:
        Load a runtime and remove what an earlier, killed worker left:
        ```python
        from blocks.docker_runtime import DockerRuntime

        runtime = DockerRuntime.load("BLOCK_NAME")
        runtime.reap()
        ```
    """

    _block_type_name = "Docker Runtime"
    _block_type_slug = "docker-runtime"
    _documentation_url = HttpUrl("https://docs.docker.com/reference/api/engine/")
    _description = "Run the steps of batch changes in containers of a Docker-compatible engine."

    docker_host: str | None = Field(
        default=None,
        title="Engine",
        description="The engine's address, such as unix:///run/podman/podman.sock or tcp://builder:2376. "
        "If empty: what DOCKER_HOST says where the worker runs, else the default socket.",
    )
    tls_folder: str | None = Field(
        default=None,
        description="A folder with ca.pem, cert.pem and key.pem, for an engine at a tcp address that wants TLS.",
    )
    pull_policy: PullPolicy = Field(
        default="missing",
        description="When to pull an image: if the engine does not have it, once in every run, or never.",
    )
    platform: str | None = Field(
        default=None, description="Pull and run images for this platform, such as linux/amd64. If empty: the engine's."
    )
    registry_credentials: SecretStr | None = Field(
        default=None,
        description="User names and passwords of registries: the JSON of a Docker configuration (DOCKER_AUTH_CONFIG), "
        '{"auths": {"registry.example.com": {"auth": "..."}}}. If empty: what DOCKER_AUTH_CONFIG is '
        "among the run's secrets or in the worker's environment, else the Docker configuration of the user who works.",
    )
    network: str = Field(
        default="bridge", description="The network of the containers: bridge, none, or the name of one that exists."
    )
    run_as: str = Field(
        default="image",
        description="Who runs the steps: image (the user that the image names), root, or numbers as in 1000:1000. "
        "The workspace is open to any of them.",
    )
    memory: str | None = Field(
        default=None,
        description="How much memory a container may use, such as 512m or 4g. If empty: three quarters of what the "
        "engine's machine has, where the engine can limit it.",
    )
    cpus: float | None = Field(
        default=None, gt=0, description="How many processors a container may keep busy. If empty: all."
    )
    pids_limit: int = Field(
        default=4096, gt=0, description="How many processes and threads a container may have at a time."
    )
    disk: str | None = Field(
        default=None,
        description="How much a container may write outside of its workspace, such as 10g. Only some storage drivers "
        "can limit that (overlay2 on XFS with project quotas, btrfs, zfs); others refuse the container.",
    )
    changes: str = Field(
        default="16g",
        description="How much a step may leave changed in its workspace, such as 500m or 16g. A step that leaves more "
        "has failed; a sparse file counts as if it were full.",
    )
    capabilities: list[str] = Field(
        default=list(PACKAGE_MANAGER_CAPABILITIES),
        description="What root in a container may do. The default is what package managers need.",
    )
    init: bool = Field(
        default=True,
        description="Run a small init as the first process, so that signals arrive and zombies are reaped.",
    )
    stop_grace_seconds: float = Field(
        default=0,
        ge=0,
        description="On a time limit or a cancel: how long a container has after SIGTERM before SIGKILL. 0: none.",
    )
    extra_hosts: dict[str, str] = Field(
        default_factory=dict, description="Host names to know beside those of the network, with their addresses."
    )
    workspaces: Literal["auto", "overlay", "copy"] = Field(
        default="auto",
        description="How a container gets its workspace: as an overlay of folders of this machine, as a copy in a "
        "volume of the engine, or whatever a trial at the first use says.",
    )
    abandoned_after_hours: float = Field(
        default=24,
        gt=0,
        description="After how long the reaper takes what another machine made in a shared engine for abandoned. "
        "Longer than the longest workspace runs.",
    )

    _link: _Link = PrivateAttr(default_factory=lambda: _Link())

    @field_validator("network")
    @classmethod
    def _network_is_of_its_own(cls, value: str) -> str:
        if value == "host" or value.startswith(("container:", "ns:")) or not re.fullmatch(r"[\w.-]+", value):
            raise ValueError("must be bridge, none or the name of a network; steps never share the host's")
        return value

    @field_validator("run_as")
    @classmethod
    def _run_as_is_known(cls, value: str) -> str:
        if not re.fullmatch(r"image|root|\d+(:\d+)?", value):
            raise ValueError("must be image, root, or numbers as in 1000 or 1000:1000")
        return value

    @field_validator("memory", "changes")
    @classmethod
    def _size_can_be_read(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_bytes(value)
            except DockerException as error:
                raise ValueError("must be a size such as 512m or 4g") from error
        return value

    def resolve_image(self, reference: str, cancel: Event | None = None) -> Image:
        """Find, or pull as the pull policy says, and try its shell: once in the life of this object.

        Raises ImageRefused, ImageUnavailable, RuntimeUnavailable, and PullStopped once ``cancel`` is set.
        """
        return self._connected().images.resolve(reference, cancel or Event())

    def workspace_mode(self, folder: Path) -> tuple[WorkspaceMode, str]:
        """How workspaces below ``folder`` are made, and why. Raises RuntimeUnavailable."""
        if self.workspaces != "auto":
            return self.workspaces, "the block says so"
        connection = self._connected()
        folder.mkdir(parents=True, exist_ok=True)
        device = folder.stat().st_dev
        with connection.lock:
            if device not in connection.modes:
                hindrance = why_no_overlay(connection.engine, folder)
                connection.modes[device] = ("copy", hindrance) if hindrance else ("overlay", "the engine can mount it")
            return connection.modes[device]

    def sharing(self, rooms: int, at_once: int) -> AbstractContextManager[None]:
        """Until this is left, one room takes the network that another one has left. Raises RuntimeUnavailable."""
        return self._connected().networks.kept(rooms, at_once)

    @contextmanager
    def open_room(
        self, name: str, labels: Mapping[str, str], *, folder: Path, image: Image, steps: int
    ) -> Iterator[Room]:
        """The place for one workspace's steps. Leaving it removes all of it.

        ``labels``: such as run and workspace; the engine shows them with the prefix ``batchwright.``.
        """
        connection = self._connected()
        plan = RoomPlan(name, labels, folder, image, steps, self.abandoned_after_hours * 3600, self.stop_grace_seconds)

        def access() -> WorkspaceAccess:
            _warn_of_limits(connection)
            aside, limit_bytes = Aside(folder), int(parse_bytes(self.changes))
            if self.workspace_mode(folder)[0] == "overlay":
                return OverlayAccess(connection.engine, aside, limit_bytes)
            return CopyAccess(connection.engine, aside, limit_bytes, has_network=not policy.offline)

        policy = self._policy(connection.engine.memory_ceiling)
        room = DockerRoom(connection.engine, policy, plan, access, connection.images.forget, connection.networks)
        try:
            yield room
        finally:
            room.close()

    def fingerprint(self) -> Mapping[str, str]:
        """The settings that can change a step's result. Raises RuntimeUnavailable."""
        platform = self.platform or self._connected().engine.platform
        return {"user": self.run_as, "network": self.network, "platform": platform}

    def describe(self) -> str:
        """The engine in one line, for people. Raises RuntimeUnavailable."""
        engine = self._connected().engine
        info = engine.info()
        told = f"version {info['ServerVersion']} at {engine.address}, {engine.platform}, storage {info['Driver']}"
        missing = missing_limits(info)
        return f"{told}, without limits of {' and '.join(missing)}" if missing else told

    def reap(self, over: Collection[str] = (), *, run: str | None = None) -> Reaped:
        """Remove what dead processes left in the engine; with ``run`` all of that run, dead or alive.

        ``over``: lives (the label ``life`` of rooms) that have certainly ended, whatever can be seen of their process.
        Of other machines' things only those whose time is over. Raises RuntimeUnavailable.
        """
        engine = self._connected().engine
        return reap_abandoned(engine, over) if run is None else remove_run(engine, run)

    def _connected(self) -> _Connection:
        return self._link.connection(dict(self), self._connect)

    def _connect(self) -> _Connection:
        engine, policy = Engine(self.docker_host, self.tls_folder), self._policy()
        images = Images(engine, policy, self.pull_policy, self.platform, self._credentials())
        return _Connection(engine, images, Networks(engine, policy))

    def _credentials(self) -> RegistryCredentials | None:
        if self.registry_credentials is None:
            return None
        try:
            return RegistryCredentials(self.registry_credentials.get_secret_value())
        except CredentialsInvalid as error:
            raise ImageRefused(str(error)) from None

    def _policy(self, ceiling_bytes: int | None = None) -> ContainerPolicy:
        return ContainerPolicy(
            network=self.network,
            user={"image": None, "root": "0:0"}.get(self.run_as, self.run_as),
            memory_bytes=int(parse_bytes(self.memory)) if self.memory else None,
            ceiling_bytes=ceiling_bytes,
            cpus=self.cpus,
            pids_limit=self.pids_limit,
            disk=self.disk,
            capabilities=tuple(self.capabilities),
            init=self.init,
            extra_hosts=self.extra_hosts,
        )
