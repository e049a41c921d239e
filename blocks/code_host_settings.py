"""What the settings of all code hosts have in common, as a Prefect block to build on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from threading import Event
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator

from blocks.code_hosts import CodeHost
from blocks.pacing import Pace
from blocks.sources import Credentials, RepositoryLocation, Route, host_of

TIMEOUT_SECONDS = 60.0
"""Of one request."""


class CodeHostBlock(Block, ABC):
    """A code host with an interface over HTTP. The block is nothing but its settings; ``connect()`` gives the host."""

    # Pydantic's errors would otherwise print the secrets that they complain about.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str = Field(description="The code host's address, as people open it in a browser.")
    names: str = Field(
        default="",
        description="What the names of its repositories begin with in batch specs. Empty: the host of the address.",
    )
    proxy: SecretStr | None = Field(
        default=None, description="The address of a proxy, with its password if it wants one."
    )
    ca_bundle: str = Field(
        default="", description="A file on the workers with the certificates to trust, if not the usual ones."
    )
    requests_at_once: int = Field(default=4, ge=1, le=64, description="How many requests are made at the same time.")
    seconds_between_writes: float = Field(
        default=0.0, ge=0, description="How long to wait between two requests that change something."
    )
    patience_seconds: float = Field(
        default=3700.0, ge=0, description="The longest wait for a rate limit; a longer one is an error."
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("give the host's address, like https://github.com")
        if "@" in parts.netloc:
            raise ValueError("give the token in its own field, not in the address")
        return url.rstrip("/")

    @abstractmethod
    def connect(self, stop: Event | None = None) -> CodeHost:
        """The host that these settings describe. Asks nobody. ``stop`` set: whoever waits for it gets HostStopped."""

    @property
    def route(self) -> Route:
        """How the host is reached."""
        return Route(self.proxy, self.ca_bundle)

    @property
    def prefix(self) -> str:
        """What its repositories' names begin with."""
        return self.names.strip("/") or host_of(self.url)

    def pace(self, stop: Event | None = None) -> Pace:
        """How fast it is asked; ``stop`` ends the waiting."""
        return Pace(
            where=host_of(self.url),
            at_once=self.requests_at_once,
            seconds_between_writes=self.seconds_between_writes,
            patience_seconds=self.patience_seconds,
            stop=stop or Event(),
        )

    def proxies(self) -> dict[str, str]:
        """The proxy, as the library requests wants it."""
        return {} if self.proxy is None else dict.fromkeys(("http", "https"), self.proxy.get_secret_value())


_S = TypeVar("_S", bound=CodeHostBlock)


class HttpHost(Generic[_S]):
    """What every ``CodeHost`` with an interface over HTTP has in common."""

    has_requests = True

    def __init__(self, settings: _S, stop: Event | None = None) -> None:
        self._settings = settings
        self._pace = settings.pace(stop)
        self._where = urlsplit(settings.url).netloc

    @property
    def names(self) -> str:
        return self._settings.prefix

    def _location(self, repository: str, credentials: Credentials) -> RepositoryLocation:
        return RepositoryLocation(
            f"{self.names}/{repository}", f"{self._settings.url}/{repository}.git", credentials, self._settings.route
        )
