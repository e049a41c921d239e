"""Say in one line which container engine answers at DOCKER_HOST or the default socket.

Exit code 0: one answers. 1: none does. 2: there is one, but we may not use it.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing

import docker
from docker.errors import DockerException

TIMEOUT_SECONDS = 5


def main() -> int:
    address = os.environ.get("DOCKER_HOST") or "the default socket"
    try:
        with closing(docker.from_env(timeout=TIMEOUT_SECONDS)) as client:
            version = client.version()
    except DockerException as error:
        return _explain(error, address)
    print(f"{_product(version)} {version['Version']} at {address}")
    return 0


def _product(version: dict[str, object]) -> str:
    components = version.get("Components")
    names = [part.get("Name") for part in components if isinstance(part, dict)] if isinstance(components, list) else []
    return "Podman" if "Podman Engine" in names else "Docker"


def _explain(error: BaseException, address: str) -> int:
    reason = _first_reason(error)
    if isinstance(reason, PermissionError):
        print(f"{address} of a container engine is closed to this user: join its group (docker), or be root")
        return 2
    print(f"no container engine answers at {address} ({getattr(reason, 'strerror', None) or reason})")
    return 1


def _first_reason(error: BaseException) -> BaseException:
    """The error that all others are wrapped around: the operating system's."""
    while error.__context__ is not None:
        error = error.__context__
    return error


if __name__ == "__main__":
    sys.exit(main())
