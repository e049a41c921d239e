"""One changeset on its way from what is on the code host to what the batch spec says.

The order makes every moment safe to be killed in: the commit that we are about to push is noted, the branch is moved
with a lease, the review request is looked for before it is made, and what was done is noted last. Coming again finds
what is there by the branch, and knows its own by commit and marker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from blocks.code_hosts import HostRefused, NotThere, People, Proposal, RequestExists, ReviewRequest
from blocks.sources import RepositoryLocation

from ..batches.tracked import SetPeople, TrackedChangeset, TrackedState
from ..gitcommand import GitFailed
from ..mirror import Mirror
from .changesets import RunChangesets, Wanted
from .commits import bare_repository, build_commit
from .hosts import Place
from .options import PublishOptions
from .outcomes import Done, Outcome
from .recognition import has_mark, read_own
from .remotes import Remote
from .tracking import Document

log = logging.getLogger(__name__)

GONE = "the review request is gone from the code host; --reopen makes a new one"

_FORK_SECONDS = 60.0
_SHORT = 10


@dataclass(frozen=True)
class Desk:
    """What the work on all changesets of a run shares."""

    run: RunChangesets
    options: PublishOptions
    home: Path
    dry_run: bool = False
    stop: Event = field(default_factory=Event)

    @property
    def mirrors(self) -> Path:
        return self.home / "mirrors"

    @property
    def scratch(self) -> Path:
        return self.home / "publishing"


class Halt(Exception):
    """This changeset goes no further: ``done`` and why."""

    def __init__(self, done: Done, reason: str, state: TrackedState | None = None) -> None:
        super().__init__(done, reason, state)
        self.done, self.reason, self.state = done, reason, state


class Reconciler:
    """Brings one changeset to what is wanted. With a dry run it asks and tells, and changes nothing."""

    def __init__(self, desk: Desk, place: Place, wanted: Wanted, document: Document) -> None:
        self._desk, self._host, self._path, self._wanted = desk, place.host, place.path, wanted
        self._document = document
        self._tracked = document.content or TrackedChangeset(
            batch_change=desk.run.batch_change, repository=wanted.repository, branch=wanted.branch
        )
        self._actions: list[str] = []
        self._request: ReviewRequest | None = None
        self._done: Done = "left"

    def run(self) -> Outcome:
        """Do what is to be done. Raises ArtifactConflict and BranchMoved, if somebody else was faster: come again.

        Also raises the errors of the host, of git and of the store, and ChangesetError.
        """
        reason = ""
        try:
            self._bring_about()
        except Halt as halt:
            self._done, reason = halt.done, halt.reason
            if halt.state is not None:
                self._note(state=halt.state, problem=reason)
        return Outcome(
            repository=self._wanted.repository,
            branch=self._wanted.label,
            done=self._done,
            url=self._request.url if self._request else self._tracked.url,
            actions=tuple(self._actions),
            reason=reason,
        )

    def _bring_about(self) -> None:
        self._check_order()
        if self._wanted.external_id:
            self._track_import()
            return
        self._check_publication()
        self._find_request()
        self._check_request()
        head_path = self._head_path()
        if self._has_new_content():
            self._push(head_path)
        if self._host.has_requests:
            self._open_or_update(head_path)
            self._ask_people()
        self._conclude()

    def _check_order(self) -> None:
        since = self._tracked.run_started_at
        if since is not None and since > self._desk.run.started_at and not self._desk.options.older:
            raise Halt("left", f"the later run {self._tracked.run_id} was published; --older publishes this one anyway")
        if self._tracked.closed_by == "request" and not self._desk.options.reopen:
            if self._tracked.state == "detached":
                raise Halt("left", "it was let go of; --reopen takes it up again")
            if self._tracked.state == "closed" and not self._tracked.external_id:
                raise Halt("left", "its branch was removed; --reopen makes it again")

    def _track_import(self) -> None:
        self._request = self._host.read(self._path, self._wanted.external_id)
        self._done = "imported"
        self._note(
            imported=True,
            external_id=self._request.id,
            url=self._request.url,
            branch=self._request.head_branch,
            state=state_of(self._request),
            closed_by="",
            **self._stamp(),
        )

    def _check_publication(self) -> None:
        """What is published stays so, whatever `published` says now: there is no way back to an idea."""
        if self._wanted.publication == "no" and not (self._tracked.external_id or self._tracked.commit):
            self._note(state="unpublished", problem="")
            raise Halt("unpublished", "`published` does not ask for it")

    def _find_request(self) -> None:
        if not self._host.has_requests:
            return
        if self._tracked.external_id:
            try:
                self._request = read_own(self._host, self._path, self._tracked)
                return
            except NotThere:
                if not self._desk.options.reopen:
                    raise Halt("failed", GONE, "gone") from None
        self._request = self._host.find(self._path, self._wanted.branch, self._tracked.head_repository)
        self._check_found()

    def _check_found(self) -> None:
        """A review request that we do not remember: ours by the marker, else somebody else's, or an old one."""
        found = self._request
        if found is None or has_mark(found, self._tracked):
            return
        if found.state == "open":
            raise Halt(
                "conflict", f"there is a review request for the branch that is not ours: {found.url}", "conflict"
            )
        self._request = None

    def _check_request(self) -> None:
        """What is closed or merged stays so, unless it was us who closed it for a reason that is gone."""
        request = self._request
        if request is None or request.state == "open":
            return
        same = self._tracked.content == self._wanted.content
        if request.state == "merged":
            if not self._desk.options.reopen or same:
                raise Halt("left", "it is merged", "merged")
            self._request = None
        elif not (self._closed_by_removal or self._desk.options.reopen):
            raise Halt("left", "it was closed; --reopen opens it again", "closed")

    @property
    def _closed_by_removal(self) -> bool:
        return self._tracked.closed_by == "removal" and self._tracked.state != "detached"

    def _head_path(self) -> str:
        """Where the branch goes to: the repository, or its fork."""
        if not (self._wanted.fork or self._tracked.head_repository):
            return self._path
        if self._tracked.head_repository:
            return self._tracked.head_repository
        owner = self._desk.options.fork_owner
        if self._desk.dry_run:
            self._actions.append(f"push to the fork of {owner or 'whose token it is'}, made if there is none")
            self._actions.append(f"open a review request into {self._wanted.base_branch}: {self._wanted.title}")
            raise Halt("opened", "")
        fork = self._host.fork(self._path, owner)
        self._await_fork(fork)
        self._note(head_repository=fork)
        if self._request is None:
            self._request = self._host.find(self._path, self._wanted.branch, fork)
            self._check_found()
            self._check_request()
        return fork

    def _await_fork(self, fork: str) -> None:
        """A new fork comes to be in the background."""
        deadline = time.monotonic() + _FORK_SECONDS
        while True:
            try:
                self._remote(fork).head(self._wanted.branch)
                return
            except GitFailed:
                if time.monotonic() > deadline or self._desk.stop.wait(1.0):
                    raise

    def _has_new_content(self) -> bool:
        tracked, wanted = self._tracked, self._wanted
        if not tracked.commit or tracked.pushing or tracked.content != wanted.content:
            return True
        if self._request is None and (self._host.has_requests or self._is_gone()):
            return True
        return self._desk.options.rebase and tracked.base_commit != wanted.base_commit

    def _is_gone(self) -> bool:
        return self._remote(self._path).head(self._wanted.branch) is None

    def _push(self, head_path: str) -> None:
        wanted, tracked = self._wanted, self._tracked
        mirror = Mirror(self._desk.mirrors, self._host.location(self._path), self._desk.stop)
        mirror.fetch(wanted.base_commit)
        with bare_repository(self._desk.scratch, mirror.git_dir) as git_dir:
            commit = build_commit(git_dir, self._desk.run.commit(wanted))
            remote = self._remote(head_path)
            heads = remote.heads(wanted.branch, wanted.base_branch)
            head, negotiate = heads.get(wanted.branch), heads.get(wanted.base_branch) != wanted.base_commit
            if head != commit:
                self._check_head(head)
                self._reopen_first()
                unsure = {*self._tracked.unsure, self._tracked.pushing} - {"", commit}
                self._note(pushing=commit, unsure=tuple(sorted(unsure)), **self._stamp())
                where = f"{head_path} " if head_path != self._path else ""
                self._do(
                    f"push {commit[:_SHORT]} to {where}{wanted.branch} ({_from(head)})",
                    lambda: remote.push(git_dir, commit, wanted.branch, expected=head, negotiate=negotiate),
                )
                if self._done == "left":
                    self._done = "updated" if tracked.commit else "pushed"
        self._note(
            commit=commit,
            pushing="",
            unsure=(),
            base_commit=wanted.base_commit,
            content=wanted.content,
            closed_by="",
            **self._stamp(),
        )

    def _check_head(self, head: str | None) -> None:
        """Commits of others are not replaced silently, and branches of others not at all."""
        if head is None and self._tracked.commit and not self._host.has_requests and not self._desk.options.reopen:
            raise Halt("left", "its branch was removed; --reopen makes it again", "closed")
        if head is None or head in self._tracked.ours:
            return
        if not (self._tracked.ours or self._request):
            raise Halt("conflict", f"there is a branch {self._wanted.branch} that is not ours", "conflict")
        if self._desk.options.foreign_commits == "stop":
            raise Halt(
                "conflict",
                f"somebody else put commits on {self._wanted.branch} ({head[:_SHORT]}); take them into the batch spec, "
                "or publish with --overwrite",
                "conflict",
            )
        self._actions.append(f"replace commits of others on {self._wanted.branch}")

    def _reopen_first(self) -> None:
        """Before the branch moves: GitHub does not open again what was moved while it was closed."""
        request = self._request
        if request is None or request.state != "closed":
            return
        try:
            self._do("open the review request again", lambda: self._host.reopen(self._path, request))
        except HostRefused as error:
            log.info("%s cannot be opened again, so there will be a new one: %s", request.url, error)
            self._request = None
            return
        self._request = replace(request, state="open")
        self._done = "reopened"

    def _open_or_update(self, head_path: str) -> None:
        if self._request is None:
            self._open(head_path)
            return
        if self._request.state == "closed":
            self._reopen_first()
            if self._request is None:
                self._open(head_path)
                return
        self._update(self._request)

    def _open(self, head_path: str) -> None:
        wanted, draft = self._wanted, self._wanted.publication == "draft"
        if wanted.publication == "no":
            raise Halt("unpublished", "`published` does not ask for a review request")
        fork = head_path if head_path != self._path else ""
        proposal = Proposal(wanted.title, wanted.body, wanted.branch, wanted.base_branch, draft, fork)
        kind = "draft review request" if draft else "review request"

        def make() -> None:
            try:
                self._request = self._host.open(self._path, proposal)
            except RequestExists:
                self._request = self._host.find(self._path, wanted.branch, fork)
                self._check_found()
                if self._request is None:
                    raise

        self._do(f"open a {kind} into {wanted.base_branch}: {wanted.title}", make)
        self._done = "opened"
        if self._request is not None:
            self._note(
                external_id=self._request.id,
                url=self._request.url,
                state=state_of(self._request),
                texts=wanted.texts,
                people=SetPeople(),
                publication=wanted.publication,
                closed_by="",
                problem="",
            )

    def _update(self, request: ReviewRequest) -> None:
        """What the batch spec changed since we set it. What people changed meanwhile stays."""
        wanted, last = self._wanted, self._tracked.texts
        is_new = last is None
        title = wanted.title if is_new or wanted.title != last.title else request.title  # type: ignore[union-attr]
        body = wanted.body if is_new or wanted.texts.body != last.body else request.body  # type: ignore[union-attr]
        base = wanted.base_branch if is_new or wanted.base_branch != last.base_branch else request.base_branch  # type: ignore[union-attr]
        changed = [
            name
            for name, new, old in (
                ("title", title, request.title),
                ("body", body.rstrip(), request.body.rstrip()),
                ("target branch", base, request.base_branch),
            )
            if new != old
        ]
        edited = request
        if changed:
            self._do(
                f"change the {', '.join(changed)}",
                lambda: self._host.edit(self._path, request, title=title, body=body, base_branch=base),
            )
            edited = replace(request, title=title, body=body, base_branch=base)
        if request.draft and wanted.publication == "yes" and self._tracked.publication != "yes":
            self._do("mark as ready for review", lambda: self._host.mark_ready(self._path, edited))
            changed.append("draft")
            edited = replace(edited, draft=False)
        if changed and self._done == "left":
            self._done = "updated"
        self._request = edited
        self._note(
            external_id=edited.id,
            url=edited.url,
            state=state_of(edited),
            texts=wanted.texts,
            publication="yes" if wanted.publication == "yes" else self._tracked.publication or "draft",
            closed_by="",
            problem="",
        )

    def _ask_people(self) -> None:
        last, wanted, request = self._tracked.people, self._wanted.people, self._request
        add = People(
            labels=_new(wanted.labels, last.labels),
            reviewers=_new(wanted.reviewers, last.reviewers),
            assignees=_new(wanted.assignees, last.assignees),
        )
        dropped = _new(last.labels, wanted.labels)
        told = [f"add {noun} {', '.join(names)}" for noun, names in vars(add).items() if names]
        told += [f"remove labels {', '.join(dropped)}"] if dropped else []
        if told:
            self._do("; ".join(told), lambda: self._host.ask(self._path, request, add, dropped) if request else None)
            if self._done == "left":
                self._done = "updated"
        if request is not None:
            self._note(people=wanted)

    def _conclude(self) -> None:
        if not self._host.has_requests:
            self._note(state="pushed", closed_by="", problem="")
        self._note(**self._stamp())

    def _do(self, what: str, action: Callable[[], object]) -> None:
        """Tell what is done, and do it unless this is a dry run."""
        self._actions.append(what)
        if not self._desk.dry_run:
            action()

    def _note(self, **changes: object) -> None:
        self._tracked = TrackedChangeset.model_validate(
            {**{name: getattr(self._tracked, name) for name in TrackedChangeset.model_fields}, **changes}
        )
        if not self._desk.dry_run:
            self._document.write(self._tracked)

    def _stamp(self) -> dict[str, object]:
        return {"run_id": self._desk.run.run_id, "run_started_at": self._desk.run.started_at}

    def _remote(self, path: str) -> Remote:
        return Remote(self._location(path), self._desk.scratch, self._desk.stop)

    def _location(self, path: str) -> RepositoryLocation:
        return self._host.location(path)


def state_of(request: ReviewRequest) -> TrackedState:
    """How a review request is called in our records."""
    if request.state == "open":
        return "draft" if request.draft else "open"
    return request.state


def _new(these: tuple[str, ...], those: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in these if each not in those)


def _from(head: str | None) -> str:
    return f"from {head[:_SHORT]}" if head else "new branch"
