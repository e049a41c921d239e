"""The block of GitHub: github.com or an Enterprise server, as a person (token) or as an App."""

from __future__ import annotations

from threading import Event
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, SecretStr, model_validator

from blocks.code_host_settings import CodeHostBlock
from blocks.code_hosts import CodeHost


class GitHub(CodeHostBlock):
    """Propose changesets as pull requests on GitHub, or on a GitHub Enterprise server.

    Either with a token (fine-grained: contents and pull requests, read and write) or as a GitHub App that is installed
    where the repositories are.

    Example:
        ```python
        from blocks.github_host import GitHub

        host = GitHub.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "GitHub Host"
    _block_type_slug = "github-host"
    _description = "Propose changesets as pull requests on GitHub."
    _documentation_url = HttpUrl("https://docs.github.com/en/pull-requests")

    url: str = Field(default="https://github.com", description="The address of GitHub, or of the Enterprise server.")
    api_url: str = Field(
        default="", description="The address of its interface, if it is not https://api.github.com or URL/api/v3."
    )
    token: SecretStr | None = Field(default=None, description="A personal access token. Empty for an App.")
    app_id: str = Field(default="", description="The id (or client id) of the GitHub App.")
    installation_id: int | None = Field(default=None, description="The id of the App's installation.")
    private_key: SecretStr | None = Field(default=None, description="The App's private key, as PEM text.")
    seconds_between_writes: float = Field(
        default=1.0, ge=0, description="How long to wait between two requests that change something. GitHub asks for 1."
    )

    @model_validator(mode="after")
    def _knows_who_it_is(self) -> Self:
        app = (self.app_id, self.installation_id, self.private_key)
        if self.token is None and not all(app):
            raise ValueError("give a token, or all of app_id, installation_id and private_key")
        if self.token is not None and any(app):
            raise ValueError("give a token or an App, not both")
        return self

    def connect(self, stop: Event | None = None) -> CodeHost:
        """The host. Asks nobody."""
        from blocks.github_client import GitHubHost  # PyGithub is large, and most runs publish nothing

        return GitHubHost(self, stop)

    @property
    def interface(self) -> str:
        """The address of its REST interface."""
        if self.api_url:
            return self.api_url.rstrip("/")
        parts = urlsplit(self.url)
        return "https://api.github.com" if parts.hostname == "github.com" else f"{self.url}/api/v3"
