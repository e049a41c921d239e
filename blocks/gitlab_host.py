"""The block of GitLab: gitlab.com or an own server."""

from __future__ import annotations

from threading import Event

from pydantic import Field, HttpUrl, SecretStr

from blocks.code_host_settings import CodeHostBlock
from blocks.code_hosts import CodeHost


class GitLab(CodeHostBlock):
    """Propose changesets as merge requests on GitLab.

    The token needs the scopes `api` and `write_repository`.

    Example:
        ```python
        from blocks.gitlab_host import GitLab

        host = GitLab.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "GitLab Host"
    _block_type_slug = "gitlab-host"
    _description = "Propose changesets as merge requests on GitLab."
    _documentation_url = HttpUrl("https://docs.gitlab.com/user/project/merge_requests/")

    url: str = Field(default="https://gitlab.com", description="The address of GitLab.")
    token: SecretStr = Field(description="A personal, group or project access token.")

    def connect(self, stop: Event | None = None) -> CodeHost:
        """The host. Asks nobody."""
        from blocks.gitlab_client import GitLabHost  # only for those who publish

        return GitLabHost(self, stop)
