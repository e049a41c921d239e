"""Changesets after they were published: looked at again, closed, merged when they are green, or let go of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

from blocks.code_hosts import CodeHost, Health, HostStopped, HostTrouble, MergeMethod, NotThere, ReviewRequest
from blocks.store import ArtifactConflict, StoreTrouble

from ..batches.errors import BatchError, Stopped
from ..batches.glob import compile_glob
from ..batches.records import now
from ..batches.tracked import TrackedChangeset
from .hosts import Hosts
from .outcomes import Done, Outcome
from .recognition import find_own
from .reconciler import GONE, state_of
from .remotes import Remote
from .tracking import Document, NothingTracked, Tracking

_MEETINGS = 5
_NONE_YET = "it has no review request yet; publish again"
_NOT_OURS = "it is somebody else's, and only tracked here"

Verb = Callable[[str], Outcome]
"""What is done with the changeset of a key."""


@dataclass(frozen=True)
class Selection:
    """Which changesets of a batch change: by globs on repository and branch."""

    repositories: str = "*"
    branches: str = "*"

    def takes(self, tracked: TrackedChangeset) -> bool:
        """Whether it is one of them."""
        return compile_glob(self.repositories).match(tracked.repository) and (
            self.branches == "*" or compile_glob(self.branches).match(tracked.branch)
        )


class Rate:
    """At most so many a minute, evenly. The first one goes at once."""

    def __init__(self, per_minute: float, stop: Event) -> None:
        self._seconds, self._stop, self._next = 60.0 / per_minute, stop, time.monotonic()

    def wait(self) -> None:
        """Wait for the next turn. Raises Stopped."""
        if self._stop.wait(max(0.0, self._next - time.monotonic())):
            raise Stopped
        self._next = time.monotonic() + self._seconds


class Keeper:
    """Looks after the changesets of one batch change. With a dry run it asks and tells, and changes nothing."""

    def __init__(
        self, tracking: Tracking, hosts: Hosts, home: Path, stop: Event | None = None, *, dry_run: bool = False
    ) -> None:
        self._tracking, self._hosts = tracking, hosts
        self._scratch = home / "publishing"
        self._stop, self._dry_run = stop or Event(), dry_run

    def each(
        self, verb: Verb, selection: Selection, *, per_minute: float | None, at_once: int = 4
    ) -> Iterator[Outcome]:
        """Do something with all live changesets of the selection. Raises NothingTracked, Stopped."""
        keys = [key for key, tracked in self._tracking.changesets() if tracked.is_live and selection.takes(tracked)]
        if not keys and not self._tracking.documents():
            raise NothingTracked(self._tracking.batch_change, self._tracking.store.location)
        if per_minute is not None:
            rate = Rate(per_minute, self._stop)
            for key in keys:
                rate.wait()
                yield self._guarded(verb, key)
            return
        with ThreadPoolExecutor(at_once, thread_name_prefix="changeset") as pool:
            try:
                yield from pool.map(lambda key: self._guarded(verb, key), keys)
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def refresh(self, key: str) -> Outcome:
        """Note how a changeset fares on its host. Raises the errors of host and store."""
        document, tracked = self._opened(key)
        host, path = self._place(tracked)
        if not host.has_requests:
            return self.outcome(tracked, "left")
        try:
            request = find_own(host, path, tracked)
        except NotThere:
            self._write(document, tracked, state="gone", problem=GONE)
            return self.outcome(tracked, "failed", GONE)
        if request is None:
            return self.outcome(tracked, "left", _NONE_YET)
        health = host.health(path, request) if request.state == "open" else None
        tracked = self._write(document, tracked, **_seen(tracked, request, health), refreshed_at=now())
        return self.outcome(tracked, "left")

    def close(self, key: str, *, by: Literal["removal", "request"] = "request") -> Outcome:
        """Close a changeset's review request; on a host without them, remove the branch. Not somebody else's."""
        document, tracked = self._opened(key)
        if tracked.imported:
            return self.outcome(tracked, "kept", _NOT_OURS)
        host, path = self._place(tracked)
        if not host.has_requests:
            return self._remove_branch(host, path, document, by)
        request = find_own(host, path, tracked)
        if request is None:
            return self._remove_branch(host, tracked.head_repository or path, document, by)
        if request.state != "open":
            self._write(document, tracked, external_id=request.id, url=request.url, state=state_of(request))
            return self.outcome(tracked, "left", f"it is {request.state} already")
        tracked = self._write(document, tracked, external_id=request.id, url=request.url, closed_by=by)
        if not self._dry_run:
            host.close(path, request)
        self._write(document, tracked, state="closed", closed_by=by, problem="")
        return self.outcome(tracked, "closed", actions=("close the review request",))

    def merge(self, key: str, *, method: MergeMethod = "merge", approved: bool = False) -> Outcome:
        """Merge a changeset if it is green: see ``why_not_green``. Not somebody else's."""
        document, tracked = self._opened(key)
        if tracked.imported:
            return self.outcome(tracked, "left", _NOT_OURS)
        host, path = self._place(tracked)
        if not host.has_requests:
            return self.outcome(tracked, "left", "plain git has no review requests; merge the branch yourself")
        request = find_own(host, path, tracked)
        if request is None:
            return self.outcome(tracked, "left", _NONE_YET)
        if request.state != "open":
            tracked = self._write(document, tracked, external_id=request.id, url=request.url, state=state_of(request))
            return self.outcome(tracked, "left", f"it is {request.state} already")
        health = host.health(path, request)
        tracked = self._write(document, tracked, **_seen(tracked, request, health), refreshed_at=now())
        if reason := why_not_green(tracked, request, health, approved=approved):
            return self.outcome(tracked, "left", reason)
        if not self._dry_run:
            host.merge(path, request, method)
        self._write(document, tracked, state="merged", problem="")
        return self.outcome(
            tracked, "merged", actions=(f"{method} {request.head_commit[:10]} into {request.base_branch}",)
        )

    def detach(self, key: str, *, by: Literal["removal", "request"] = "request") -> Outcome:
        """Let go of a changeset: it stays on the host as it is, and is nobody's business here any more.

        By removal: until a batch spec has it again.
        """
        document, tracked = self._opened(key)
        self._write(document, tracked, state="detached", closed_by=by, problem="")
        return self.outcome(tracked, "detached", actions=("let go of it; the host keeps it as it is",))

    def outcome(
        self, tracked: TrackedChangeset, done: Done, reason: str = "", actions: tuple[str, ...] = ()
    ) -> Outcome:
        """What became of a changeset."""
        branch = tracked.branch or f"#{tracked.external_id}"
        return Outcome(
            repository=tracked.repository, branch=branch, done=done, url=tracked.url, reason=reason, actions=actions
        )

    def _remove_branch(
        self, host: CodeHost, path: str, document: Document, by: Literal["removal", "request"]
    ) -> Outcome:
        tracked = document.content
        assert tracked is not None, "it was opened"
        remote = Remote(host.location(path), self._scratch, self._stop)
        head = remote.head(tracked.branch)
        if head is not None and head not in tracked.ours:
            problem = f"somebody else put commits on {tracked.branch}, so it stays"
            self._write(document, tracked, problem=problem)
            return self.outcome(tracked, "conflict", problem)
        if head is not None and not self._dry_run:
            remote.remove(tracked.branch, expected=head)
        self._write(document, tracked, state="closed", closed_by=by, commit="", pushing="", unsure=(), problem="")
        return self.outcome(tracked, "closed", actions=(f"remove the branch {tracked.branch}",))

    def _guarded(self, verb: Verb, key: str) -> Outcome:
        if self._stop.is_set():
            raise Stopped
        meetings = 0
        while True:
            try:
                return verb(key)
            except ArtifactConflict as error:
                meetings += 1
                if meetings >= _MEETINGS:
                    return self._failed(key, error)
            except HostStopped as error:
                raise Stopped from error
            except Stopped:
                raise
            except (HostTrouble, StoreTrouble, BatchError) as error:
                return self._failed(key, error)

    def _failed(self, key: str, error: Exception) -> Outcome:
        _, tracked = self._opened(key)
        return self.outcome(tracked, "failed", str(error))

    def _opened(self, key: str) -> tuple[Document, TrackedChangeset]:
        document = self._tracking.open(key)
        assert document.content is not None, "documents are never removed"
        return document, document.content

    def _place(self, tracked: TrackedChangeset) -> tuple[CodeHost, str]:
        place = self._hosts.place(tracked.repository)
        return place.host, place.path

    def _write(self, document: Document, tracked: TrackedChangeset, **changes: object) -> TrackedChangeset:
        changed = TrackedChangeset.model_validate(
            {**{name: getattr(tracked, name) for name in TrackedChangeset.model_fields}, **changes}
        )
        if not self._dry_run:
            document.write(changed)
        return changed


def why_not_green(tracked: TrackedChangeset, request: ReviewRequest, health: Health, *, approved: bool) -> str:
    """Why a review request is not to be merged now; "" if it is green. ``approved``: only with an approving review."""
    if request.draft:
        return "it is a draft"
    if request.head_commit not in tracked.ours:
        return "somebody else put commits on its branch; merge it on the code host"
    if health.conflicts is not False:
        return "it conflicts with its base branch" if health.conflicts else "the host does not know yet if it conflicts"
    if health.checks not in ("passed", "none"):
        return f"its checks are not green: {health.checks}"
    if health.review == "changes_requested":
        return "changes are requested"
    if approved and health.review != "approved":
        return "nobody approved it"
    return ""


def _seen(tracked: TrackedChangeset, request: ReviewRequest, health: Health | None) -> dict[str, object]:
    keeps = tracked.state == "conflict" and request.state == "open"
    state = tracked.state if keeps else state_of(request)
    seen: dict[str, object] = {"external_id": request.id, "url": request.url, "state": state}
    if health is not None:
        seen |= {"review": health.review, "checks": health.checks, "conflicts": health.conflicts}
    return seen
