"""Runs to publish, without any container: repositories on a code host, and a ledger with changeset specs for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.artifacts import LocalArtifacts
from blocks.code_hosts import CodeHost
from blocks.store import ArtifactStore
from flows.batches.changesets import ChangesetSpec, Commit
from flows.batches.results import RunManifest, WorkspaceResult
from flows.batches.spec import Author
from flows.batches.tracked import TrackedChangeset
from flows.ledger import Ledger
from flows.publishing.options import PublishOptions
from flows.publishing.outcomes import Outcome
from flows.publishing.publisher import Publisher
from flows.publishing.tracking import Tracking
from tests.gitrepos import commit_files, make_repository, run_git

NAME = "new-mirror"
BRANCH = "batch/new-mirror"
FILES = {"README.md": "hello\n", "src/main.py": "print(1)\n", "old name.txt": "old\n"}


def repository_on(root: Path, path: str, files: Mapping[str, str | bytes | None] | None = None) -> str:
    """A bare repository of the host, with a commit; gives the commit."""
    commit = make_repository(root / f"{path}.work", files or FILES)
    run_git(root / f"{path}.work", "clone", "--quiet", "--bare", ".", str(root / f"{path}.git"))
    return commit


def move_base(root: Path, path: str, files: Mapping[str, str | bytes | None]) -> str:
    """One more commit on the base branch of a host's repository; gives the commit."""
    work = root / f"{path}.work"
    commit = commit_files(work, files)
    run_git(work, "push", "--quiet", str(root / f"{path}.git"), "HEAD:refs/heads/main")
    return commit


def push_as_person(root: Path, path: str, branch: str, files: Mapping[str, str | bytes | None]) -> str:
    """Somebody puts a commit on a branch; gives the commit."""
    work = root / f"{path}.person"
    run_git(root, "clone", "--quiet", str(root / f"{path}.git"), str(work))
    run_git(work, "checkout", "--quiet", branch)
    commit = commit_files(work, files, message="By hand")
    run_git(work, "push", "--quiet", "origin", f"HEAD:{branch}")
    return commit


def diff_of(root: Path, path: str, base: str, files: Mapping[str, str | bytes | None]) -> bytes:
    """The diff that some files make, as the product's runs have it."""
    work = root / f"{path}.work"
    run_git(work, "checkout", "--quiet", "--detach", base)
    for name, content in files.items():
        file = work / name
        if content is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
    run_git(work, "add", "--all", "--force")
    done = subprocess.run(
        ["git", "diff", "--cached", "--no-prefix", "--binary", base],
        cwd=work,
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
    )
    run_git(work, "reset", "--quiet", "--hard", base)
    run_git(work, "checkout", "--quiet", "main")
    return done.stdout


@dataclass
class Change:
    """A changeset spec to be."""

    path: str
    base: str
    files: Mapping[str, str | bytes | None] = field(default_factory=lambda: {"README.md": "hello, new mirror\n"})
    branch: str = BRANCH
    title: str = "Use the new mirror"
    body: str = "The old one goes."
    message: str = "Move to the new mirror\n\nAll of it."
    published: bool | str | None = True
    fork: bool | None = None


@dataclass
class Office:
    """A store with runs, and what publishes them to the hosts."""

    folder: Path
    root: Path
    names: str
    hosts: list[CodeHost] = field(default_factory=list)
    runs: int = 0

    @property
    def store(self) -> ArtifactStore:
        return LocalArtifacts(folder=self.folder / "store").store()

    @property
    def home(self) -> Path:
        return self.folder / "state"

    def run(
        self,
        *changes: Change,
        imports: Mapping[str, str] | None = None,
        failed: tuple[str, ...] = (),
        only: str = "*",
        approval: bool = False,
        diffs: Mapping[str, bytes] | None = None,
    ) -> str:
        """A run that has ended with these changeset specs; gives its id."""
        self.runs += 1
        known = diffs or {}
        specs = [self._spec(change, known.get(change.path)) for change in changes]
        specs += [
            ChangesetSpec(f"{self.names}/{path}", f"{self.names}/{path}", external_id=number)
            for path, number in (imports or {}).items()
        ]
        ledger = Ledger(self.store, f"{NAME}-{self.runs}")
        began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=self.runs)
        results = [
            WorkspaceResult.model_validate(
                {"title": path, "repository": f"{self.names}/{path}", "branch": "main", "commit": "0" * 40,
                 "state": "failed", "failure": {"reason": "step_failed", "message": "no"}}
            )
            for path in failed
        ]  # fmt: skip
        manifest = RunManifest(
            run_id=ledger.run_id,
            name=NAME,
            spec_digest="0" * 64,
            started_at=began,
            ended_at=began,
            state="failed" if failed else "completed",
            changeset_specs=len(specs),
            workspaces=tuple(results),
        )
        ledger.begin(manifest, f"name: {NAME}\n", only=only, needs_approval=approval)
        ledger.keep_changesets(specs)
        return ledger.run_id

    def publisher(self, run: str, *, dry_run: bool = False, **options: object) -> Publisher:
        return Publisher(
            self.store, run, self.hosts, PublishOptions.model_validate(options), self.home, dry_run=dry_run
        )

    def publish(self, run: str, *, dry_run: bool = False, **options: object) -> list[Outcome]:
        """Publish a run, and tidy up."""
        publisher = self.publisher(run, dry_run=dry_run, **options)
        found = [outcome for chunk in publisher.chunks() for outcome in publisher.publish(chunk)]
        return [*found, *publisher.tidy()]

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.store, NAME)

    def tracked(self) -> dict[str, TrackedChangeset]:
        """What the store knows, by repository (without the host) and branch."""
        found = (tracked for _, tracked in self.tracking.changesets())
        return {f"{each.repository.removeprefix(self.names + '/')} {each.branch}": each for each in found}

    def _spec(self, change: Change, diff: bytes | None) -> ChangesetSpec:
        name = f"{self.names}/{change.path}"
        if diff is None:
            diff = diff_of(self.root, change.path, change.base, change.files)
        return ChangesetSpec(
            repository=name,
            repository_id=name,
            base_rev=change.base,
            base_ref="refs/heads/main",
            head_ref=f"refs/heads/{change.branch}",
            title=change.title,
            body=change.body,
            commit=Commit(change.message, diff, Author(name="Grace Höpper", email="grace@example.com")),
            published=change.published,  # type: ignore[arg-type]
            fork=change.fork,
        )


def changed(change: Change, **fields: object) -> Change:
    """The change with other fields."""
    return replace(change, **fields)  # type: ignore[arg-type]
