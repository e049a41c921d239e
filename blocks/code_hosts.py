"""Where changesets are proposed: the interface to a code host, its values and its errors. No Prefect, no clients.

``GitHub``, ``GitLab``, ``Gitea`` and ``PlainGit`` are blocks whose ``connect()`` gives a ``CodeHost``.
A *review request* is what the host makes of a changeset: a pull request, a merge request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import Event
from typing import Literal, Protocol

from blocks.sources import RepositoryLocation

RequestState = Literal["open", "closed", "merged"]
Review = Literal["pending", "approved", "changes_requested"]
Checks = Literal["none", "running", "passed", "failed"]
MergeMethod = Literal["merge", "squash", "rebase"]


class HostTrouble(Exception):
    """A code host could not do what was asked. ``temporary`` says whether another try may work."""

    temporary = False

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where, self.what = where, what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class HostUnavailable(HostTrouble):
    """The host does not answer, or failed by itself, and went on doing so through our retries."""

    temporary = True


class HostLimited(HostUnavailable):
    """The host wants to be asked less. ``retry_after_seconds`` None: it does not say when again."""

    def __init__(self, where: str, what: str, retry_after_seconds: float | None) -> None:
        super().__init__(where, what)
        self.args = (where, what, retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class HostRefused(HostTrouble):
    """The host will not do it: a wrong token, missing rights, a wrong state. The same again is refused again."""


class NotThere(HostRefused):
    """The host has no such thing, or does not show it to this token."""


class RequestExists(HostRefused):
    """There is an open review request for this branch already."""


class HostStopped(HostTrouble):
    """Somebody stopped us while we waited for our turn."""


@dataclass(frozen=True)
class ReviewRequest:
    """A review request, as the host has it."""

    id: str
    """What the host calls it within its repository: the number in its address."""
    url: str
    state: RequestState
    draft: bool
    title: str
    body: str
    head_branch: str
    head_commit: str
    """Empty where the host does not say it."""
    base_branch: str
    labels: tuple[str, ...] = ()
    handle: str = ""
    """What the host's interface needs beside the id, if anything."""


@dataclass(frozen=True)
class Health:
    """How a review request fares. ``conflicts`` None: the host does not know yet."""

    review: Review
    checks: Checks
    conflicts: bool | None


@dataclass(frozen=True)
class Proposal:
    """A review request to be."""

    title: str
    body: str
    head_branch: str
    base_branch: str
    draft: bool = False
    head_repository: str = ""
    """The path of the fork that has the branch; empty: the repository itself."""


@dataclass(frozen=True)
class People:
    """What is set on a review request beside its text. Only what is new is asked for: nobody is asked twice."""

    labels: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    """Users; where the host has teams, `team:NAME` is one."""
    assignees: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.reviewers or self.assignees)


class CodeHost(Protocol):
    """One code host, asked at its pace: every verb waits for its turn and obeys the host's limits.

    ``repository`` is the repository's path on the host (``acme/shop``), ``id`` a review request's. Safe to use from
    many threads. Every verb raises HostUnavailable (temporary, after some retries), HostRefused, NotThere, HostStopped.
    """

    @property
    def names(self) -> str:
        """What the names of its repositories begin with in batch specs (``github.com``); empty: it takes them all."""
        ...

    @property
    def has_requests(self) -> bool:
        """Whether it has review requests. Without them a changeset is a branch, and only ``location`` is asked."""
        ...

    def disconnect(self) -> None:
        """Let go of all connections. The next verb makes new ones."""
        ...

    def location(self, repository: str) -> RepositoryLocation:
        """Where git reaches a repository, and what opens it."""
        ...

    def fork(self, repository: str, owner: str) -> str:
        """The path of a repository's fork, made if there is none. ``owner`` empty: whoever the token belongs to."""
        ...

    def find(self, repository: str, branch: str, head_repository: str) -> ReviewRequest | None:
        """The open review request of a branch (``head_repository``: of a fork, or empty), else the newest one."""
        ...

    def read(self, repository: str, id: str) -> ReviewRequest:
        """A review request as it is now."""
        ...

    def open(self, repository: str, proposal: Proposal) -> ReviewRequest:
        """Make a review request. Raises RequestExists if the branch has an open one."""
        ...

    def edit(self, repository: str, request: ReviewRequest, *, title: str, body: str, base_branch: str) -> None:
        """Change a review request's texts and where it goes to."""
        ...

    def mark_ready(self, repository: str, request: ReviewRequest) -> None:
        """Make a draft a review request that is ready for review."""
        ...

    def ask(self, repository: str, request: ReviewRequest, add: People, drop_labels: Iterable[str]) -> None:
        """Add labels, reviewers and assignees; remove labels."""
        ...

    def close(self, repository: str, request: ReviewRequest) -> None:
        """Close a review request without merging it."""
        ...

    def reopen(self, repository: str, request: ReviewRequest) -> None:
        """Open a closed review request again."""
        ...

    def merge(self, repository: str, request: ReviewRequest, method: MergeMethod) -> None:
        """Merge, if the branch is still at ``request.head_commit``; else HostRefused."""
        ...

    def health(self, repository: str, request: ReviewRequest) -> Health:
        """What reviewers, checks and the base branch say to a review request."""
        ...


class CodeHostSettings(Protocol):
    """What a block of a code host gives."""

    def connect(self, stop: Event | None = None) -> CodeHost:
        """The host that these settings describe. Asks nobody. ``stop`` set: whoever waits for it gets HostStopped."""
        ...
