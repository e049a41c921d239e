"""What is kept of a changeset once it is proposed: what we did last, and what the code host said last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

from .records import Digest, Part, Reader, Record, Time, read

TrackedState = Literal[
    "unpublished", "pushed", "draft", "open", "closed", "merged", "conflict", "failed", "detached", "gone"
]
"""``pushed``: a branch on a host without review requests. ``gone``: the host has it no more. ``conflict``: somebody
else's commits or review request are in the way."""

Review = Literal["", "pending", "approved", "changes_requested"]
Checks = Literal["", "none", "running", "passed", "failed"]


class SetTexts(Part):
    """What we set last. What people change on the host stays until the batch spec says something else."""

    title: str
    body: Digest
    base_branch: str


class SetPeople(Part):
    """What we set last beside the texts."""

    labels: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    assignees: tuple[str, ...] = ()


class TrackedChangeset(Record):
    """A changeset of a batch change, on its code host."""

    schema_version: Literal[1] = 1
    batch_change: str
    repository: str
    """The repository's name in batch specs."""
    branch: str = ""
    """The head branch; empty for an import."""
    external_id: str = ""
    """The review request's, on its host; empty as long as there is none."""
    imported: bool = False
    """Somebody else's: only looked at."""
    url: str = ""
    state: TrackedState = "unpublished"
    closed_by: Literal["", "removal", "request"] = ""
    """Why we closed it or let go of it: the batch spec had it no more, or somebody asked for it. Empty: we did not."""
    run_id: str = ""
    run_started_at: Time | None = None
    """Of the run that was published last: an older one does not undo it."""
    head_repository: str = ""
    """The path of the fork that has the branch."""
    base_commit: str = ""
    commit: str = ""
    """The branch's, as we pushed it last."""
    pushing: str = ""
    """What we are about to push, or were when we were killed."""
    unsure: tuple[str, ...] = ()
    """What we were about to push before that, without knowing how it ended."""
    content: str = ""
    """Digest of the commit without its base."""
    texts: SetTexts | None = None
    publication: Literal["", "draft", "yes"] = ""
    """As what we published it: a draft is made ready once, and not again when people take that back."""
    people: SetPeople = SetPeople()
    problem: str = ""
    """Why it is not as the batch spec says."""
    review: Review = ""
    checks: Checks = ""
    conflicts: bool | None = None
    """With the base branch; None: not known."""
    refreshed_at: Time | None = None

    @property
    def ours(self) -> frozenset[str]:
        """The commits that only we can have put on the branch."""
        return frozenset(commit for commit in (self.commit, self.pushing, *self.unsure) if commit)

    @property
    def is_live(self) -> bool:
        """Whether there is something on the host that can be closed or merged, or may be, if we were killed."""
        return self.state not in ("closed", "merged", "detached", "gone") and bool(
            self.external_id or self.commit or self.pushing
        )


_READERS: Mapping[int, Reader[TrackedChangeset]] = {1: TrackedChangeset.model_validate}


def read_tracked_changeset(raw: bytes) -> TrackedChangeset:
    """A stored tracked changeset of any version. Raises RecordError."""
    return read(raw, "tracked changeset", _READERS)


def identity(batch_change: str, repository: str, branch: str) -> str:
    """What tells a changeset from all others, as 32 hexadecimal digits; for an import, ``branch`` is `#ID`."""
    text = "\0".join((batch_change, repository, branch))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def marker(batch_change: str, repository: str, branch: str) -> str:
    """The line in a review request's body by which we know it again: no reader sees it."""
    return f"<!-- batchwright changeset {identity(batch_change, repository, branch)} -->"


def signed_body(body: str, batch_change: str, repository: str, branch: str, link: str = "") -> str:
    """The body of a review request: the changesetTemplate's, where it comes from, and the marker."""
    shown = f"[{batch_change}]({link})" if link else f"`{batch_change}`"
    parts = (body.rstrip(), f"*Proposed by the batch change {shown}.*", marker(batch_change, repository, branch))
    return "\n\n".join(part for part in parts if part) + "\n"
