"""Passwords of registries, given as the `auths` of a Docker configuration (DOCKER_AUTH_CONFIG)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from docker.auth import resolve_repository_name

_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"})


class CredentialsInvalid(ValueError):
    """The configuration cannot be understood. The message shows none of it."""


class RegistryCredentials:
    """Which user and password go to which registry."""

    def __init__(self, config: str) -> None:
        """``config``: the JSON of a Docker configuration with `auths`. Raises CredentialsInvalid."""
        try:
            document = json.loads(config)
        except ValueError:
            raise CredentialsInvalid("registry credentials are not JSON; expected a Docker config with auths") from None
        auths = document.get("auths") if isinstance(document, dict) else None
        if not isinstance(auths, dict):
            raise CredentialsInvalid("registry credentials have no auths; helpers and stores are not supported here")
        self._by_host = {_host(registry): _login(registry, entry) for registry, entry in auths.items()}

    def for_image(self, reference: str) -> dict[str, str] | None:
        """What docker-py wants as ``auth_config`` to pull ``reference``; None if we know nothing about its registry."""
        host, _ = resolve_repository_name(reference)
        return self._by_host.get(_host(host))


def _host(registry: str) -> str:
    """The host and port of a key of `auths`, which may be an address with scheme and path; the hub's names are one."""
    host = registry.partition("://")[2] or registry
    host = host.partition("/")[0].lower()
    return "docker.io" if host in _HUB else host


def _login(registry: str, entry: object) -> dict[str, str]:
    if not isinstance(entry, Mapping):
        raise CredentialsInvalid(f"registry credentials for {registry} are not an object")
    if token := entry.get("identitytoken") or entry.get("identityToken"):
        return {"identitytoken": str(token), "serveraddress": registry}
    user, password = entry.get("username"), entry.get("password")
    if entry.get("auth"):
        user, password = _decoded(registry, str(entry["auth"]))
    if not user or password is None:
        raise CredentialsInvalid(f"registry credentials for {registry} need auth, or username and password")
    return {"username": str(user), "password": str(password), "serveraddress": registry}


def _decoded(registry: str, auth: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        user, colon, password = "", "", ""
    if not colon:
        raise CredentialsInvalid(f"registry credentials for {registry}: auth is not base64 of user:password")
    return user, password.rstrip("\0")
