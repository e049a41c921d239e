"""A branch on a git server: where it is, moving it, removing it. Only ever from the commit that we know to another."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event

from blocks.sources import RepositoryLocation

from ..access import access
from ..batches.errors import TemporaryError
from ..gitcommand import GitFailed, git
from .commits import bare_repository

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 600.0


class BranchMoved(TemporaryError):
    """Somebody moved the branch after we looked at it; nothing was pushed. Looking again tells what to do."""

    def __init__(self, repository: str, branch: str) -> None:
        super().__init__(repository, branch)
        self.repository, self.branch = repository, branch

    def __str__(self) -> str:
        return f"{self.repository}: the branch {self.branch} was moved by somebody else just now"


class Remote:
    """The branches of one repository on its server. ``scratch``: a folder for what git needs for a moment."""

    def __init__(self, location: RepositoryLocation, scratch: Path, cancel: Event | None = None) -> None:
        self._location, self._scratch, self._cancel = location, scratch, cancel

    def head(self, branch: str) -> str | None:
        """The commit that a branch is at; None if there is no such branch. Raises GitError."""
        return self.heads(branch).get(branch)

    def heads(self, *branches: str) -> dict[str, str]:
        """The commits that those of some branches are at which are there. Raises GitError."""
        wanted = {f"refs/heads/{branch}": branch for branch in branches}
        listed = self._git("ls-remote", "--refs", "--", self._location.url, *wanted).decode("utf-8", "surrogateescape")
        found = (line.partition("\t") for line in listed.splitlines())
        return {wanted[name]: commit for commit, _, name in found if name in wanted}

    def push(self, git_dir: Path, commit: str, branch: str, *, expected: str | None, negotiate: bool) -> None:
        """Move a branch from ``expected`` (None: none) to a commit of ``git_dir``. Raises BranchMoved, GitError.

        ``negotiate``: no branch of the server is at the commit's base. Without asking, git would send the whole base.
        """
        settings = ("-c", "push.negotiate=true") if negotiate else ()
        self._move(branch, expected, commit, *settings, git_dir=git_dir)

    def remove(self, branch: str, *, expected: str) -> None:
        """Remove a branch that is at ``expected``. Raises BranchMoved, GitError."""
        with bare_repository(self._scratch) as git_dir:
            self._move(branch, expected, "", git_dir=git_dir)

    def _move(self, branch: str, expected: str | None, commit: str, *settings: str, git_dir: Path) -> None:
        reference = f"refs/heads/{branch}"
        options = ("--quiet", "--no-verify", "--no-recurse-submodules", "--no-signed", "--no-follow-tags")
        lease = f"--force-with-lease={reference}:{expected or ''}"
        try:
            self._git(
                *settings, "push", *options, lease, "--", self._location.url, f"{commit}:{reference}", git_dir=git_dir
            )
        except GitFailed as error:
            said = error.stderr.lower()
            if "stale info" in said or "cannot lock ref" in said or "failed to update ref" in said:
                raise BranchMoved(self._location.name, branch) from error
            raise

    def _git(self, *args: str, git_dir: Path | None = None) -> bytes:
        with access(self._location, self._scratch) as (env, secrets):
            return git(
                args,
                git_dir=git_dir,
                env=env,
                secrets=secrets,
                cancel=self._cancel,
                timeout_seconds=_TIMEOUT_SECONDS,
            )
