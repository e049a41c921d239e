"""How every container of a runtime is made: limits, rights, network; and what cannot be asked of a container."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blocks.runtime import ContainerRefused, ContainerRun

PACKAGE_MANAGER_CAPABILITIES = (
    # chown, any owner's files, setuid bits and file capabilities of what is unpacked
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"),
    # apt downloads as _apt, daemons' install scripts change user
    *("SETGID", "SETUID"),
    # apk runs its scripts after chroot(".")
    "SYS_CHROOT",
)
"""What root in a container keeps: what apt, apk, dnf and dpkg need to install packages, and nothing else."""

_LITTLE_MEMORY = {"Memory": 256 << 20, "MemorySwap": 256 << 20}
"""Of a container that runs nothing but a shell."""

_STRING_BYTES = 128 * 1024
"""MAX_ARG_STRLEN of the kernel: one argument or one NAME=value of an environment, with its final NUL."""


@dataclass(frozen=True)
class ContainerPolicy:
    """The settings of a runtime that shape its containers. Sizes in the engine's notation (512m, 4g)."""

    network: str = "bridge"
    user: str | None = None
    memory_bytes: int | None = None
    ceiling_bytes: int | None = None
    """Of memory where ``memory_bytes`` does not say: one step must not take the engine's machine down."""
    cpus: float | None = None
    pids_limit: int = 4096
    disk: str | None = None
    capabilities: Sequence[str] = PACKAGE_MANAGER_CAPABILITIES
    init: bool = True
    extra_hosts: Mapping[str, str] = field(default_factory=dict)

    @property
    def offline(self) -> bool:
        """Whether containers have no network at all."""
        return self.network == "none"

    def step(self, joined: str | None, image_user: str = "") -> dict[str, Any]:
        """The host configuration of a step's container; ``joined``: the container whose network it shares."""
        # Docker gives capabilities to root only, Podman to any user; without new privileges nobody else can use them.
        rights = self.capabilities if _is_root(self.user or image_user) else ()
        config = {
            **self._harmless(rights),
            "Init": self.init,
            "PidsLimit": self.pids_limit,
            # A program that crashes would leave its memory in the workspace, and so in the diff.
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            **(self._own_network() if joined is None else {"NetworkMode": f"container:{joined}"}),
        }
        if memory := self.memory_bytes or self.ceiling_bytes:
            config |= {"Memory": memory, "MemorySwap": memory}  # the same: no swap beside it
        if self.cpus is not None:
            config["NanoCpus"] = int(self.cpus * 1e9)
        if self.disk is not None:
            config["StorageOpt"] = {"size": self.disk}
        return config

    def pause(self, *, limits_memory: bool) -> dict[str, Any]:
        """The host configuration of the container that holds the network for others: a shell of any image."""
        # With an init it ends on SIGTERM: an engine that shuts down would wait for it otherwise.
        return {
            **self._harmless(()),
            **self._own_network(),
            "Init": self.init,
            **(_LITTLE_MEMORY if limits_memory else {}),
            "PidsLimit": 16,
            "ReadonlyRootfs": True,
        }

    def probe(self, *, limits_memory: bool) -> dict[str, Any]:
        """The host configuration of a container that only tries whether a program runs."""
        memory = _LITTLE_MEMORY if limits_memory else {}
        return {**self._harmless(()), **memory, "NetworkMode": "none", "PidsLimit": 64}

    def _own_network(self) -> dict[str, Any]:
        hosts = [f"{name}:{address}" for name, address in self.extra_hosts.items()]
        return {"NetworkMode": self.network, **({"ExtraHosts": hosts} if hosts and not self.offline else {})}

    def _harmless(self, capabilities: Sequence[str]) -> dict[str, Any]:
        return {
            "CapDrop": ["ALL"],
            "CapAdd": list(capabilities),
            "SecurityOpt": ["no-new-privileges"],
            # The streams are read from the connection: a log would be a second copy that nobody reads.
            "LogConfig": {"Type": "none"},
        }


def _is_root(user: str) -> bool:
    return user.partition(":")[0] in ("", "0", "root")


_RESERVED_FOR = {"/work": "the workspace itself", "/proc": "the system's own", "/sys": "the system's own"}
_RESERVED = re.compile("/work$|/(?:proc|sys)(?=/|$)")


def check(container: ContainerRun) -> None:
    """Refuse what the kernel or the engine would refuse later in words that help nobody. Raises ContainerRefused."""
    for file in container.files:
        if not file.source.exists():
            raise ContainerRefused(f"cannot show {file.target} to the container: {file.source} does not exist")
        if reserved := _RESERVED.match(os.path.normpath("/" + file.target.lstrip("/"))):
            raise ContainerRefused(f"cannot mount at {file.target}: {reserved[0]} is {_RESERVED_FOR[reserved[0]]}")
    for name, value in container.environment.items():
        if not name or "=" in name:
            raise ContainerRefused(f"{name!r} cannot be the name of an environment variable")
        _check_string(f"environment variable {name}", f"{name}={value}")
    for number, argument in enumerate(container.command):
        _check_string(f"argument {number} of the command", argument)


def _check_string(what: str, text: str) -> None:
    if "\0" in text:
        raise ContainerRefused(f"{what} holds a NUL, which no program can be given; put it into a file")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ContainerRefused(f"{what} is not UTF-8; put it into a file") from None
    if size >= _STRING_BYTES:
        limit = f"the system's limit is {_STRING_BYTES}"
        raise ContainerRefused(f"{what} is {size} bytes long, {limit}; put it into a file (`files`) and read that")
