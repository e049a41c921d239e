"""The block of a git server without review requests, or of a folder of repositories: a changeset is a branch there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, SecretStr

from blocks.code_hosts import Health, HostRefused, MergeMethod, NotThere, People, Proposal, ReviewRequest
from blocks.sources import Credentials, RepositoryLocation, Route, location


class PlainGit(Block):
    """Push changesets as branches to a git server, or into a folder of repositories; nothing else happens there.

    Example:
        ```python
        from blocks.plain_git_host import PlainGit

        host = PlainGit.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Plain Git Host"
    _block_type_slug = "plain-git-host"
    _description = "Push changesets as branches to a git server, or into a folder of repositories."
    _documentation_url = HttpUrl("https://git-scm.com/docs/git-push")

    model_config = ConfigDict(hide_input_in_errors=True)

    url: str = Field(
        description="What the repositories' addresses begin with (https://, ssh://, or an absolute folder); the name "
        "without `names`, and `.git` where it needs one, is added."
    )
    names: str = Field(
        default="", description="What the names of its repositories begin with in batch specs. Empty: it takes all."
    )
    username: str = Field(default="", description="The user, where the server wants a certain one.")
    token: SecretStr | None = Field(default=None, description="The token or password, for https.")
    ssh_key: SecretStr | None = Field(default=None, description="The private key, for ssh.")
    known_hosts: str = Field(default="", repr=False, description="Lines of a known_hosts file, for ssh.")
    proxy: SecretStr | None = Field(default=None, description="The address of a proxy, for https.")
    ca_bundle: str = Field(
        default="", description="A file on the workers with the certificates to trust, if not the usual ones."
    )

    def connect(self, stop: Event | None = None) -> PlainGitHost:
        """The server or folder. Asks nobody, and so waits for nobody."""
        credentials = Credentials(self.username, self.token, self.ssh_key, self.known_hosts)
        return PlainGitHost(self.url.rstrip("/"), self.names.strip("/"), credentials, Route(self.proxy, self.ca_bundle))


@dataclass(frozen=True)
class PlainGitHost:
    """A ``CodeHost`` that has branches and nothing more."""

    url: str
    names: str
    credentials: Credentials
    route: Route
    has_requests: bool = False

    def disconnect(self) -> None:
        """There are none."""

    def location(self, repository: str) -> RepositoryLocation:
        """The repository below the address. Raises NotThere for a folder that does not have it."""
        address = f"{self.url}/{repository}"
        if self.url.startswith("/"):
            found = [path for path in (address, f"{address}.git") if Path(path).is_dir()]
            if not found or ".." in repository.split("/"):
                raise NotThere(self.url, f"there is no repository {repository}")
            return location(repository, found[0])
        plain = location(repository, f"{address}.git")
        return RepositoryLocation(repository, plain.url, self.credentials, self.route)

    def fork(self, repository: str, owner: str) -> str:
        raise self._refused("forks")

    def find(self, repository: str, branch: str, head_repository: str) -> ReviewRequest | None:
        return None

    def read(self, repository: str, id: str) -> ReviewRequest:
        raise self._refused("review requests")

    def open(self, repository: str, proposal: Proposal) -> ReviewRequest:
        raise self._refused("review requests")

    def edit(self, repository: str, request: ReviewRequest, *, title: str, body: str, base_branch: str) -> None:
        raise self._refused("review requests")

    def mark_ready(self, repository: str, request: ReviewRequest) -> None:
        raise self._refused("review requests")

    def ask(self, repository: str, request: ReviewRequest, add: People, drop_labels: Iterable[str]) -> None:
        raise self._refused("review requests")

    def close(self, repository: str, request: ReviewRequest) -> None:
        raise self._refused("review requests")

    def reopen(self, repository: str, request: ReviewRequest) -> None:
        raise self._refused("review requests")

    def merge(self, repository: str, request: ReviewRequest, method: MergeMethod) -> None:
        raise self._refused("review requests")

    def health(self, repository: str, request: ReviewRequest) -> Health:
        raise self._refused("review requests")

    def _refused(self, what: str) -> HostRefused:
        return HostRefused(self.url, f"plain git has no {what}")
