"""Where a repository is and how to get in: the values and the interface. No Prefect, no git.

Only these addresses are taken: https, http, ssh, ``git@host:path``, file, and absolute paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol, runtime_checkable
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from pydantic import SecretStr

DEFAULT_USERNAME = "x-access-token"
"""Code hosts that take a token as the password do not care for the name, but want one."""

_SCHEMES = ("https", "http", "ssh", "file")
_SCP_STYLE = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+):(?P<path>(?!//|:)\S+)")


class SourceError(ValueError):
    """The repositories of a source cannot be told: an address or an entry is not right. Says which one."""


@dataclass(frozen=True)
class Credentials:
    """What opens a repository: a token (https) or a private key (ssh). Secrets stay out of every repr."""

    username: str = ""
    token: SecretStr | None = None
    ssh_key: SecretStr | None = None
    known_hosts: str = field(default="", repr=False)
    """Lines of an OpenSSH known_hosts file; empty: those of the user who runs the worker."""
    headers: Mapping[str, SecretStr] = field(default_factory=dict, repr=False)
    """Headers that the server wants with every request (http, https), in place of a user and a token."""


@dataclass(frozen=True)
class Route:
    """How a server is reached, where that is not the usual way."""

    proxy: SecretStr | None = None
    """The proxy's address, with its password if it wants one; None: what the worker's environment says."""
    ca_bundle: str = ""
    """A file with the certificates to trust instead of the usual ones."""
    verify: bool = True
    """Whether the server's certificate must be trusted."""


@dataclass(frozen=True)
class RepositoryLocation:
    """A repository: its name in batch specs, its address without any secret in it, and what opens it."""

    name: str
    url: str
    credentials: Credentials = Credentials()
    route: Route = Route()


class RepositorySource(Protocol):
    """Where repositories come from."""

    def locations(self) -> Mapping[str, RepositoryLocation]:
        """Every repository by its name. Raises SourceError when that cannot be told."""
        ...


@dataclass(frozen=True)
class KnownRepository:
    """A repository that a source was asked about. ``branch`` is its default branch, in short."""

    location: RepositoryLocation
    id: str
    """What the source itself calls it, in changeset specs for example."""
    branch: str
    commit: str
    """Both are "" for a repository that is empty, or not cloned yet."""
    supported: bool = True
    """Whether its code host can have changesets."""


@dataclass(frozen=True)
class FoundWorkspace:
    """A workspace as the source itself resolved it. ``branch`` in short."""

    repository: KnownRepository
    branch: str
    commit: str
    path: str
    only_fetch_workspace: bool
    ignored: bool
    supported: bool
    search_result_paths: tuple[str, ...]


class SourceAnswers(Protocol):
    """What a source that is asked can answer. Its errors have ``temporary``."""

    resolves_specs: bool
    """Whether whole batch specs are resolved by the source (``workspaces``), not entry by entry."""

    def find(self, query: str, *, keyword: bool) -> Mapping[str, tuple[str, ...]]:
        """The repositories that a query finds, with the paths found in each. ``keyword``: its default pattern type."""
        ...

    def repository(self, name: str) -> KnownRepository | None:
        """A repository by its name; None if there is none, or none that may be seen."""
        ...

    def commit_of(self, name: str, revision: str) -> str | None:
        """The commit of a branch (in full), a tag, a commit id; None if there is no such thing."""
        ...

    def workspaces(self, spec: str) -> Sequence[FoundWorkspace]:
        """Resolve `on` and `workspaces` of a batch spec's text."""
        ...


@runtime_checkable
class AskedSource(Protocol):
    """Where repositories come from if they are too many to list: asked by query and by name."""

    def answers(self, cancel: Event | None = None) -> SourceAnswers:
        """Somebody to ask. ``cancel`` set: waiting for an answer ends."""
        ...


AnySource = RepositorySource | AskedSource


def location(name: str, address: str) -> RepositoryLocation:
    """Check an address, and take a password in it out into the credentials. Raises SourceError."""
    if not name or name != name.strip() or "\n" in name:
        raise SourceError(f"a repository's name cannot be {name!r}")
    if any(char.isspace() or not char.isprintable() for char in address) or address.startswith("-"):
        raise SourceError(f"the address of {name} holds white space, or begins with a dash")
    if address.startswith("/"):
        return RepositoryLocation(name, address)
    if "://" not in address:
        if not _SCP_STYLE.fullmatch(address):
            raise _bad_address(name)
        return RepositoryLocation(name, address)
    parts = _split(name, address)
    return RepositoryLocation(name, *_without_credentials(parts))


def host_of(url: str) -> str:
    """The host of an address (with its port, if it names one), "" for a path."""
    if "://" in url:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    match = None if url.startswith("/") else _SCP_STYLE.fullmatch(url)
    return match["host"].lower() if match else ""


def is_ssh(url: str) -> bool:
    """Whether an address is reached by ssh, with keys instead of tokens."""
    return url.startswith("ssh://") or ("://" not in url and not url.startswith("/"))


def name_of(address: str) -> str:
    """The name that an address suggests: ``github.com/acme/app`` of ``https://github.com/acme/app.git``."""
    if "://" in address:
        parts = urlsplit(address)
        host, path = parts.hostname or "", parts.path
    else:
        match = _SCP_STYLE.fullmatch(address)
        host, path = (match["host"], match["path"]) if match else ("", address)
    return "/".join(part for part in (host, path.strip("/").removesuffix(".git")) if part)


def _split(name: str, address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises ValueError if it is not a number
    except ValueError:
        raise _bad_address(name) from None
    if parts.scheme not in _SCHEMES or parts.query or parts.fragment:
        raise _bad_address(name)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise _bad_address(name)
    elif not parts.hostname or parts.hostname.startswith("-"):
        raise _bad_address(name)
    return parts


def _without_credentials(parts: SplitResult) -> tuple[str, Credentials]:
    """The address with nothing but host and path; for ssh the user stays, which is part of the address there."""
    userinfo, _, host = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    if parts.scheme == "ssh":
        return urlunsplit(parts._replace(netloc=f"{username}@{host}" if username else host)), Credentials()
    bare = urlunsplit(parts._replace(netloc=host))
    if not userinfo:
        return bare, Credentials()
    if not password:  # https://TOKEN@host is a common form
        return bare, Credentials(token=SecretStr(unquote(username)))
    return bare, Credentials(unquote(username), SecretStr(unquote(password)))


def _bad_address(name: str) -> SourceError:
    # The address itself is not shown: it may hold a password.
    return SourceError(
        f"the address of {name} is none that git can fetch from here: "
        "use https://, http://, ssh://, git@host:path, file:/// or an absolute path"
    )
