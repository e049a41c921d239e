"""The changesets of a run, read from its ledger one at a time, as what is wanted on the code hosts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from blocks.store import ArtifactMissing

from ..batches.branches import fault_of_branch
from ..batches.errors import ChangesetError, PermanentError
from ..batches.glob import compile_glob
from ..batches.results import RunManifest
from ..batches.tracked import SetPeople, SetTexts, signed_body
from ..ledger import Ledger
from .commits import CommitSpec
from .options import PublishOptions

_HEADS = "refs/heads/"

Publication = Literal["no", "draft", "yes"]


class RunNotReady(PermanentError):
    """The run's changesets cannot be published as they are."""


@dataclass(frozen=True)
class Wanted:
    """A changeset as the batch spec wants it. ``external_id`` set: it is somebody else's, and only to be tracked."""

    number: int
    """Among the run's changeset specs, from 1."""
    repository: str
    external_id: str = ""
    branch: str = ""
    base_branch: str = ""
    base_commit: str = ""
    title: str = ""
    body: str = ""
    """As it stands on the host, with our marker."""
    publication: Publication = "no"
    fork: bool = False
    content: str = ""
    """Digest of the commit without its base and its time."""
    people: SetPeople = field(default_factory=SetPeople)

    @property
    def label(self) -> str:
        """What distinguishes it in its repository."""
        return f"#{self.external_id}" if self.external_id else self.branch

    @property
    def texts(self) -> SetTexts:
        """The texts, as they are remembered."""
        return SetTexts(
            title=self.title,
            body=hashlib.sha256(self.body.encode("utf-8", "surrogateescape")).hexdigest(),
            base_branch=self.base_branch,
        )


class RunChangesets:
    """The changesets of one run that has ended."""

    def __init__(self, ledger: Ledger, options: PublishOptions) -> None:
        """Raises RunNotReady, RecordError, the store's errors."""
        self._ledger, self._options = ledger, options
        self._manifest = _checked(ledger.manifest(), options)
        _check_approval(ledger, self._manifest)

    @property
    def batch_change(self) -> str:
        return self._manifest.name

    @property
    def run_id(self) -> str:
        return self._manifest.run_id

    @property
    def started_at(self) -> datetime:
        return self._manifest.started_at

    @property
    def count(self) -> int:
        return self._manifest.changeset_specs

    @property
    def unknown_repositories(self) -> frozenset[str]:
        """Repositories of which this run does not know all changesets: something failed there."""
        return frozenset(result.repository for result in self._manifest.workspaces if result.state != "completed")

    def covers(self, repository: str) -> bool:
        """Whether the run would have had the repository, had the batch spec asked for it."""
        return compile_glob(self._ledger.only()).match(repository)

    def wanted(self, number: int) -> Wanted:
        """One changeset, counted from 1. Raises ChangesetError if no code host can have it."""
        content = json.loads(self._ledger.store.get(self._ledger.key(f"changesets/{number}.json")))
        repository = str(content["baseRepository"])
        if external_id := content.get("externalID"):
            return Wanted(number, repository, external_id=str(external_id))
        return self._branch(number, repository, content)

    def identities(self) -> Iterator[tuple[str, str]]:
        """Repository and branch (or `#ID`) of every changeset."""
        for number in range(1, self.count + 1):
            content = json.loads(self._ledger.store.get(self._ledger.key(f"changesets/{number}.json")))
            external = content.get("externalID")
            yield (
                str(content["baseRepository"]),
                f"#{external}" if external else str(content["headRef"]).removeprefix(_HEADS),
            )

    def commit(self, wanted: Wanted) -> CommitSpec:
        """The commit of a changeset. All commits of a run carry the time at which it began."""
        content = json.loads(self._ledger.store.get(self._ledger.key(f"changesets/{wanted.number}.json")))
        commit = content["commits"][0]
        return CommitSpec(
            base=wanted.base_commit,
            diff=self._ledger.store.get(self._ledger.key(f"changesets/{wanted.number}.patch")),
            message=commit["message"],
            author_name=commit.get("authorName", ""),
            author_email=commit.get("authorEmail", ""),
            time=self.started_at,
        )

    def _branch(self, number: int, repository: str, content: Mapping[str, object]) -> Wanted:
        options = self._options
        branch = str(content["headRef"]).removeprefix(_HEADS)
        base = str(content.get("baseRef", "")).removeprefix(_HEADS)
        if fault := fault_of_branch(branch) or fault_of_branch(base):
            raise ChangesetError(f"{repository}: {fault}")
        fork = bool(content.get("fork", options.fork))
        if branch == base and not fork:
            raise ChangesetError(f"{repository}: the changeset's branch {branch!r} is the branch that it goes to")
        return Wanted(
            number=number,
            repository=repository,
            branch=branch,
            base_branch=base,
            base_commit=str(content.get("baseRev", "")),
            title=str(content.get("title", "")),
            body=signed_body(str(content.get("body", "")), self.batch_change, repository, branch, options.link),
            publication=_publication(content.get("published"), options),
            fork=fork,
            content=hashlib.sha256(json.dumps(content["commits"], sort_keys=True).encode()).hexdigest(),
            people=SetPeople(labels=options.labels, reviewers=options.reviewers, assignees=options.assignees),
        )


def _publication(published: object, options: PublishOptions) -> Publication:
    if published is None:
        return {"leave": "no", "draft": "draft", "publish": "yes"}[options.undecided]  # type: ignore[return-value]
    return "draft" if published == "draft" else "yes" if published else "no"


def _check_approval(ledger: Ledger, manifest: RunManifest) -> None:
    """What people have to approve goes nowhere before they did, and nowhere else than where they saw it."""
    try:
        approval = ledger.approval()
    except ArtifactMissing:
        if not ledger.needs_approval():
            return
        raise RunNotReady(f"the run {manifest.run_id} waits for somebody to approve it in the dashboard") from None
    if not approval.holds_for(ledger.changesets_digest(manifest)):
        raise RunNotReady(f"the run {manifest.run_id} is not approved: {approval.sentence}")


def _checked(manifest: RunManifest, options: PublishOptions) -> RunManifest:
    if manifest.ended_at is None:
        raise RunNotReady(f"the run {manifest.run_id} has not ended; publish it when it has")
    if manifest.state != "completed" and not options.incomplete:
        raise RunNotReady(
            f"the run {manifest.run_id} is {manifest.state}, so some changesets are missing or old: mend it and run "
            "again (nothing that has a result is repeated), or publish what it has with --incomplete"
        )
    return manifest
