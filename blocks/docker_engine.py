"""The connection to a container engine, and what its errors mean: worth another try or not."""

from __future__ import annotations

import logging
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from docker.transport import UnixHTTPAdapter
from docker.utils import kwargs_from_env

from blocks.engine_folders import empty_container, empty_volume, is_too_deep
from blocks.runtime import ContainerRefused, ImageUnavailable, RuntimeTrouble, RuntimeUnavailable

log = logging.getLogger(__name__)

ENGINE_ERRORS = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What docker-py lets through when an engine answers badly or not at all."""

_TIMEOUT_SECONDS = 180
"""For a single answer: a loaded engine takes minutes to make a container."""

_CONNECTIONS = 128
_REMOVAL_TRIES = 6
_TOLD_CHARACTERS = 500
"""Of an engine's words in a log: they may hold a path that a step made."""
_MEMORY_SHARE = 0.75
"""Of the engine's machine, for one container at the most."""


class Engine:
    """One container engine. Safe for many threads."""

    def __init__(self, host: str | None, tls_folder: str | None = None) -> None:
        """``host`` None: what DOCKER_HOST and the like say, else the default socket. Raises RuntimeUnavailable."""
        settings = kwargs_from_env() if host is None else {"base_url": host, "tls": _tls(tls_folder)}
        self.address = str(settings.get("base_url") or "the default socket")
        with self.trouble("cannot connect"):
            self.api = _Client(
                **settings,
                version="auto",
                timeout=_TIMEOUT_SECONDS,
                max_pool_size=_CONNECTIONS,
                use_ssh_client=self.address.startswith("ssh://"),
            )
        _share_connections(self.api)
        self._background = ThreadPoolExecutor(max_workers=4, thread_name_prefix="docker-removal")
        # Blocks have no end of life: the connections go when nobody holds the engine any more.
        weakref.finalize(self, self.api.close)

    @contextmanager
    def trouble(self, doing: str) -> Iterator[None]:
        """Turn the errors of docker-py into RuntimeTrouble; ``doing`` begins the message."""
        try:
            yield
        except ENGINE_ERRORS as error:
            raise translated(error, doing, self.address) from error

    @property
    def platform(self) -> str:
        """Operating system and architecture, such as linux/amd64. Raises RuntimeUnavailable."""
        return f"{self._version.get('Os', 'linux')}/{self._version.get('Arch', '')}"

    @property
    def is_podman(self) -> bool:
        """Whether this is Podman behind Docker's API. Raises RuntimeUnavailable."""
        return any(part.get("Name") == "Podman Engine" for part in self._version.get("Components") or ())

    @cached_property
    def _version(self) -> dict[str, Any]:
        with self.trouble("cannot ask for its version"):
            answer: dict[str, Any] = self.api.version()
        return answer

    @cached_property
    def memory_ceiling(self) -> int | None:
        """The most memory that one container may ever have, in bytes; None where the engine cannot limit it.

        Raises RuntimeUnavailable.
        """
        info = self._first_info
        can_limit = info.get("MemoryLimit") and info.get("SwapLimit")
        return int(info["MemTotal"] * _MEMORY_SHARE) if can_limit and info.get("MemTotal") else None

    @property
    def has_selinux(self) -> bool:
        """Whether SELinux keeps each container from what has not been labelled for it. Raises RuntimeUnavailable."""
        return self._has("selinux")

    @property
    def is_rootless(self) -> bool:
        """Whether the engine runs without root's rights. Raises RuntimeUnavailable."""
        return self._has("rootless")

    def _has(self, security_option: str) -> bool:
        options = self._first_info.get("SecurityOptions") or ()
        return any(f"name={security_option}" in option for option in options)

    @cached_property
    def _first_info(self) -> dict[str, Any]:
        return self.info()

    def info(self) -> dict[str, Any]:
        """What the engine says of itself. Raises RuntimeUnavailable."""
        with self.trouble("cannot ask about the engine"):
            answer: dict[str, Any] = self.api.info()
        return answer

    def remove_later(self, *, container: str | None = None, volume: str | None = None) -> Removal:
        """Remove a container, then a volume, by another thread."""
        try:
            first_try = self._background.submit(self.remove, container, volume)
        except RuntimeError:  # the interpreter shuts down and takes no new work for other threads
            first_try = Future()
            first_try.set_result(self.remove(container, volume))
        return Removal(self, first_try, container, volume)

    def remove(self, container: str | None, volume: str | None) -> bool:
        """Remove a running or stopped container, then a volume. Never raises: the reaper takes what stays."""
        gone = container is None or _insist(f"container {container}", lambda: self.remove_container(container))
        return (volume is None or _insist(f"volume {volume}", lambda: self.remove_volume(volume))) and gone

    def remove_container(self, container: str) -> None:
        """Remove a running or stopped container with its unnamed volumes. Raises ENGINE_ERRORS."""
        try:
            self.api.remove_container(container, v=True, force=True)
        except APIError as error:
            if not is_too_deep(error):
                raise
            empty_container(self.api, container)
            self.api.remove_container(container, v=True, force=True)

    def remove_volume(self, volume: str) -> None:
        """Remove a volume that nobody uses. Raises ENGINE_ERRORS."""
        try:
            self.api.remove_volume(volume, force=True)
        except APIError as error:
            if not is_too_deep(error):
                raise
            empty_volume(self.api, volume)
            self.api.remove_volume(volume, force=True)


@dataclass(frozen=True)
class Removal:
    """Something that is being removed."""

    engine: Engine
    first_try: Future[bool]
    container: str | None
    volume: str | None

    def finish(self) -> None:
        """Wait until it is gone; if the engine was away, try again. Never raises: the reaper takes what stays."""
        if not self.first_try.result():
            self.engine.remove(self.container, self.volume)


def missing_limits(info: Mapping[str, Any]) -> list[str]:
    """What an engine that says this of itself lets its containers have without a limit, whatever it is asked for."""
    kept = {"memory": "MemoryLimit", "processes": "PidsLimit", "processor time": "CpuCfsQuota"}
    return [what for what, key in kept.items() if info.get(key) is False]


def translated(error: Exception, doing: str, address: str) -> RuntimeTrouble:
    """What an error of docker-py means for a container."""
    if not isinstance(error, APIError):
        hint = "check that it runs and that DOCKER_HOST, or the block's docker_host, is right"
        return RuntimeUnavailable(f"{doing}: the container engine at {address} does not answer ({error}); {hint}")
    text, status = explanation(error), error.status_code or 500
    for kind, pattern, hint in _MEANINGS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{doing}: {text}{hint and f'; {hint}'}")
    return (ContainerRefused if 400 <= status < 500 and status != 429 else RuntimeUnavailable)(f"{doing}: {text}")


def explanation(error: APIError) -> str:
    """The engine's own words."""
    return str(error.explanation or error).strip()


_MEANINGS: tuple[tuple[type[RuntimeTrouble], str, str], ...] = (
    (RuntimeUnavailable, r"no space left on device|disk quota exceeded", "the engine's disk is full: free some space"),
    (
        RuntimeUnavailable,
        r"could not find bridge",
        "the engine lost its default bridge: restart it, or set network to none or to a network that exists",
    ),
    (ImageUnavailable, r"no such image", "it was removed from the engine after it had been found; it is pulled again"),
    (ContainerRefused, r"argument list too long", "put long values into files"),
    (ContainerRefused, r"storage-opt", "leave the disk limit out: the engine's storage driver cannot"),
    (
        ContainerRefused,
        r"container-init binary not found",
        "install the engine's init (catatonit), or set init to false",
    ),
    (ContainerRefused, r"unable to find (user|group)", "set run_as to a user that the image has"),
    (
        ContainerRefused,
        r"network \S+ not found|no such network|unable to find network",
        "make the network, or choose another one",
    ),
    (
        RuntimeUnavailable,
        r"no such container|non.running container|is not running|marked for removal|container state",
        "",
    ),
    (
        RuntimeUnavailable,
        r"[0-9a-f]{64}\S*/(hosts|resolv\.conf|hostname)\b",
        "the container of the steps' network is gone",
    ),
    (ContainerRefused, r"cannot mkdir.*not a directory", "the image has a working directory that is a file"),
    (ContainerRefused, r"oci runtime.*(not a directory|no such file|not found|permission denied|invalid argument)", ""),
)
"""Text before status: engines and their versions give the same fault different numbers."""


class _OneEngine(UnixHTTPAdapter):
    """Any connection to the engine is good for any call; docker-py keeps apart those of each URL, and reuses none."""

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
        return super().get_connection("http+docker://localhost", proxies)


def _share_connections(api: docker.APIClient) -> None:
    """Spare each call to an engine on this machine a connection of its own, and a look for proxies: 8 ms of CPU."""
    for prefix, adapter in list(api.adapters.items()):
        if type(adapter) is UnixHTTPAdapter:
            shared = _OneEngine(adapter.socket_path, adapter.timeout, max_pool_size=adapter.max_pool_size)
            api.mount(prefix, shared)
            api.trust_env = False
            adapter.close()


class _Client(docker.APIClient):
    """Trusts the authority that the engine's settings name, though REQUESTS_CA_BUNDLE may name others.

    requests takes that variable before what a session says (https://github.com/psf/requests/issues/3829).
    """

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """What requests adds to a request."""
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


def _tls(folder: str | None) -> TLSConfig | bool:
    if folder is None:
        return False
    files = Path(folder).expanduser()
    return TLSConfig(
        client_cert=(str(files / "cert.pem"), str(files / "key.pem")), ca_cert=str(files / "ca.pem"), verify=True
    )


def _insist(what: str, remove: Callable[[], object]) -> bool:
    for attempt in range(_REMOVAL_TRIES):
        try:
            remove()
            return True
        except ENGINE_ERRORS as error:
            if isinstance(error, APIError) and error.status_code == 404:
                return True
            failure = str(error)[:_TOLD_CHARACTERS]
        # 409: the engine is removing it already, or the volume's container is not quite gone. Else: it is restarting.
        time.sleep(0.1 * 2**attempt)
    log.warning("%s could not be removed and is left to the reaper: %s", what, failure)
    return False
