"""A Sourcegraph instance as a Prefect block: repositories come from it, changeset specs go to it."""

from __future__ import annotations

from threading import Event
from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr, field_validator

from blocks.instance_api import GitAccess, InstanceApi
from blocks.instance_client import Access

GIT_ADDRESS = "{url}/.executors/git/{repository}"


class SourcegraphInstance(Block):
    """Find repositories through a Sourcegraph instance, and propose changesets on it.

    What the token's user may see is what batch changes see. The block is nothing but its settings; `api()` does the
    work.

    Example:
        ```python
        from blocks.sourcegraph import SourcegraphInstance

        instance = SourcegraphInstance.load("BLOCK_NAME")
        instance.api().find("repo:acme file:go.mod", keyword=False)
        ```
    """

    _block_type_name = "Sourcegraph Instance"
    _block_type_slug = "sourcegraph-instance"
    _description = "Find repositories through a Sourcegraph instance, and propose changesets on it."
    _documentation_url = HttpUrl("https://sourcegraph.com/docs/batch-changes")

    url: str = Field(description="The instance's address, like https://sourcegraph.example.com.")
    token: SecretStr | None = Field(
        default=None, description="An access token of the user for whom batch changes run (scope user:all)."
    )
    namespace: str = Field(
        default="",
        description="The organization or user that batch changes belong to. If it is empty, the token's user.",
    )
    resolve_with: Literal["workspaces", "search"] = Field(
        default="workspaces",
        description="Who works out where a batch spec runs: the instance, in one request (workspaces), or batchwright, "
        "with the instance's search for queries (search).",
    )
    executor_token: SecretStr | None = Field(
        default=None,
        description="The instance's executors.accessToken. With it git fetches what runs from the instance. It opens "
        "every repository, so each is looked up with the user's token first.",
    )
    git_address: str = Field(
        default=GIT_ADDRESS,
        description="Where git fetches a repository. {url} and {repository} are replaced. Without an executor token, "
        "git shows the user's token there.",
    )
    verify: bool = Field(default=True, description="Whether the instance's certificate must be trusted.")
    ca_bundle: str = Field(
        default="", description="A file with the certificates to trust, for a private CA. If empty, the usual ones."
    )
    timeout_seconds: float = Field(default=60.0, gt=0, description="How long to wait for an answer, or the next piece.")
    patience_seconds: float = Field(
        default=60.0, ge=0, description="How long to repeat what failed for a moment: 429, 5xx, a broken connection."
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")):
            raise ValueError("an instance's address begins with https:// or http://")
        if "@" in url.split("/")[2]:
            raise ValueError("an instance's address holds no user and no token: give the token by itself")
        return url.rstrip("/")

    @field_validator("git_address")
    @classmethod
    def _names_the_repository(cls, address: str) -> str:
        if "{repository}" not in address:
            raise ValueError("git_address needs {repository}")
        return address

    def api(self, cancel: Event | None = None) -> InstanceApi:
        """The instance, to be asked and told. ``cancel`` set: waiting for it ends. Cheap; asks nobody."""
        access = Access(
            url=self.url,
            token=self.token,
            verify=self.verify,
            ca_bundle=self.ca_bundle,
            timeout_seconds=self.timeout_seconds,
            patience_seconds=self.patience_seconds,
        )
        git = GitAccess(self.git_address, self.executor_token)
        return InstanceApi(access, git, resolves_specs=self.resolve_with == "workspaces", cancel=cancel)

    def answers(self, cancel: Event | None = None) -> InstanceApi:
        """The instance as a source of repositories."""
        return self.api(cancel)
