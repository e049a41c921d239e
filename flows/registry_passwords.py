"""Passwords of registries that come with a run instead of with its engine: `DOCKER_AUTH_CONFIG`, as upstream has it.

Upstream: the executor secret of that name goes before the executor's own variable, then the Docker configuration of the
user who works. Only `auths` count, no helpers.
"""

from __future__ import annotations

from pydantic import SecretStr

from blocks.docker_runtime import DockerRuntime
from blocks.secrets import StepSecrets

from . import settings

NAME = "DOCKER_AUTH_CONFIG"


def with_registry_passwords(engine: DockerRuntime, secrets: StepSecrets | None) -> DockerRuntime:
    """The engine, with the passwords of the run's secrets or of the worker's environment unless it has its own."""
    config = (secrets.by_name() if secrets else {}).get(NAME) or settings.environment().get(NAME)
    if not config or engine.registry_credentials is not None:
        return engine
    return engine.model_copy(update={"registry_credentials": SecretStr(config)})
