"""Which review request is a changeset's: by the number that we noted, by its branch, by the marker in its body."""

from __future__ import annotations

from blocks.code_hosts import CodeHost, NotThere, ReviewRequest

from ..batches.tracked import TrackedChangeset, marker


def has_mark(request: ReviewRequest, tracked: TrackedChangeset) -> bool:
    """Whether the marker of the changeset stands in it."""
    return marker(tracked.batch_change, tracked.repository, tracked.branch) in request.body


def read_own(host: CodeHost, path: str, tracked: TrackedChangeset) -> ReviewRequest:
    """The review request that has the changeset's number. Raises NotThere also if it is another one's by now.

    A repository that was made anew under the same name numbers from one again.
    """
    found = host.read(path, tracked.external_id)
    if tracked.imported or found.head_branch == tracked.branch or has_mark(found, tracked):
        return found
    raise NotThere(host.names, f"{path} has another review request under the number {found.id}")


def find_own(host: CodeHost, path: str, tracked: TrackedChangeset) -> ReviewRequest | None:
    """The changeset's review request, also if we were killed before its number was noted; None if it has none yet.

    Raises NotThere if the one that was noted is gone.
    """
    if tracked.external_id:
        return read_own(host, path, tracked)
    found = host.find(path, tracked.branch, tracked.head_repository)
    return found if found is not None and has_mark(found, tracked) else None
