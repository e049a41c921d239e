"""Which code host has a repository, by the repository's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.code_hosts import CodeHost

from ..batches.errors import PermanentError


class NoHost(PermanentError):
    """No code host was given for a repository."""

    def __init__(self, repository: str, known: tuple[str, ...]) -> None:
        super().__init__(repository, known)
        self.repository, self.known = repository, known

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"{self.repository} is on none of the given code hosts ({known}); give its host too, or set its `names`"


@dataclass(frozen=True)
class Place:
    """A repository on its host: ``path`` is what the host calls it."""

    host: CodeHost
    path: str


class Hosts:
    """The code hosts that were given. The one with the longest matching beginning of the name has a repository."""

    def __init__(self, hosts: Sequence[CodeHost]) -> None:
        self._hosts = sorted(hosts, key=lambda host: len(host.names), reverse=True)

    def place(self, repository: str) -> Place:
        """Where a repository is. Raises NoHost."""
        for host in self._hosts:
            if not host.names:
                return Place(host, repository)
            if repository.startswith(f"{host.names}/"):
                return Place(host, repository.removeprefix(f"{host.names}/"))
        raise NoHost(repository, tuple(host.names for host in self._hosts))
