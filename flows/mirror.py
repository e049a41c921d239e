"""One bare repository of ours per repository of the source: fetched by commit, shallow, shared by runs and processes.

Remembers objects and nothing else: no address, no credentials. Steps never see it; work trees borrow its objects.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from blocks.sources import RepositoryLocation

from .access import access
from .batches.errors import PermanentError, Stopped
from .gitcommand import MOST_LISTED_BYTES, GitFailed, git, records
from .locks import FileLock
from .scratch import discard_unused, scratch_folder

log = logging.getLogger(__name__)

NETWORK_TIMEOUT_SECONDS = 1800.0
_LIST_TIMEOUT_SECONDS = 120.0
_LOCK_TICK_SECONDS = 0.05
_LOCK = ".lock"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NoDefaultBranch(PermanentError):
    """The repository has nothing to run on by default."""

    def __init__(self, repository: str, reason: str) -> None:
        super().__init__(repository, reason)
        self.repository, self.reason = repository, reason

    def __str__(self) -> str:
        return f"repository {self.repository} {self.reason}"


class BranchNotFound(PermanentError):
    """The repository has no such branch."""

    def __init__(self, repository: str, branch: str) -> None:
        super().__init__(repository, branch)
        self.repository, self.branch = repository, branch

    def __str__(self) -> str:
        return f'no branch matching "{self.branch}" found for repository {self.repository}'


@dataclass(frozen=True)
class Branch:
    """A branch, by its short name, and the commit that it is at."""

    name: str
    commit: str


@dataclass(frozen=True)
class _References:
    """What the repository's server says: commits by full reference name, and the reference that HEAD stands for."""

    commits: Mapping[str, str]
    head: str | None


class Mirror:
    """The mirror of one repository in ``folder``. Many processes may use the same one; threads too."""

    def __init__(self, folder: Path, location: RepositoryLocation, cancel: threading.Event | None = None) -> None:
        """``cancel`` set: what talks to the repository's server is ended, and raises Stopped."""
        self._folder = folder
        self._location = location
        self._cancel = cancel
        self._listing = threading.Lock()

    @property
    def repository(self) -> str:
        """The repository's name in batch specs."""
        return self._location.name

    @cached_property
    def git_dir(self) -> Path:
        """The bare repository. It exists after the first ``fetch``."""
        digest = hashlib.sha256(f"{self._location.name}\0{self._location.url}".encode()).hexdigest()
        return self._folder / f"{digest[:32]}.git"

    @property
    def _lock(self) -> Path:
        return self.git_dir.with_suffix(_LOCK)

    def default_branch(self) -> Branch:
        """The branch that HEAD names, at its current commit. Raises NoDefaultBranch, GitError."""
        references = self._references
        if not references.commits:
            raise NoDefaultBranch(self.repository, "is empty: it has no commit")
        branches = _branches(references)
        if references.head in branches:
            return Branch(references.head, branches[references.head])
        detached = references.commits.get("HEAD")
        at_head = sorted(name for name, commit in branches.items() if commit == detached)
        if not at_head:
            raise NoDefaultBranch(self.repository, "has no default branch: its HEAD names no branch with commits")
        name = next((name for name in ("main", "master") if name in at_head), at_head[0])
        return Branch(name, branches[name])

    def resolve(self, branch: str) -> Branch:
        """A branch by its short or full name, at its current commit. Raises BranchNotFound, GitError."""
        name = branch.removeprefix("refs/heads/")
        commit = _branches(self._references).get(name)
        if commit is None:
            raise BranchNotFound(self.repository, name)
        return Branch(name, commit)

    def resolve_revision(self, revision: str) -> str | None:
        """The commit of a branch, a tag, or a full commit id; None if there is no such thing. Raises GitError."""
        commits = self._references.commits
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", revision):
            if name in commits:
                return commits[name]
        return revision if _COMMIT.fullmatch(revision) else None

    def fetch(self, commit: str) -> None:
        """Have everything of one commit, without its history. Raises GitError."""
        with suppress(OSError):  # what is wrong with the folder is told by who needs it
            os.utime(self._lock)  # its time is that of the last use
        if self._has(commit):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked() as lock:
            if self._has(commit):
                return
            self._create()
            self._remove_leftovers()
            with access(self._location, self._folder) as (env, secrets):
                self._fetch(commit, env, secrets, lock)
        log.debug("fetched %s of %s", commit, self.repository)

    def files(self, commit: str) -> tuple[str, ...]:
        """The path of every file (and symbolic link) in a fetched commit, in git's order.

        A name that is not UTF-8 cannot be given to templates: it is left out, with a warning.
        """
        listed = records(["ls-tree", "-r", "-z", commit], git_dir=self.git_dir, most_bytes=MOST_LISTED_BYTES)
        entries = (entry.split(b"\t", 1) for entry in listed)
        return self._decoded(path for header, path in entries if b" blob " in header)

    def grep(
        self, commit: str, pattern: str, *, regexp: bool, case_sensitive: bool, paths: Sequence[str] = ()
    ) -> frozenset[str]:
        """The text files of a fetched commit with a line that holds ``pattern``; ``paths`` narrows where to look.

        A regular expression that git does not take raises GitFailed.
        """
        args = ["-c", "grep.threads=2", "grep", "-l", "-z", "-I", "--no-color", "--full-name"]
        args += ["-P" if regexp else "-F", *(() if case_sensitive else ("-i",)), "-e", pattern, commit, "--"]
        args += [f":(literal){path}" for path in paths]
        # Only with a UTF-8 locale does git compare letters, not bytes.
        locale = {"LC_ALL": "C.UTF-8"}
        found = records(args, git_dir=self.git_dir, most_bytes=MOST_LISTED_BYTES, env=locale, expected=(0, 1))
        return frozenset(self._decoded(name.split(b":", 1)[1] for name in found))

    def root_entry_kind(self, commit: str, name: str) -> str | None:
        """The kind of an entry in a commit's root folder: "blob", "tree", "symlink", "commit"; None: no entry."""
        listed = git(["ls-tree", "-z", commit, "--", name], git_dir=self.git_dir)
        if not listed:
            return None
        mode, kind = listed.split(b" ", 2)[:2]
        return "symlink" if mode == b"120000" else kind.decode()

    @property
    def _references(self) -> _References:
        """Asked once: everything in a run sees the repository at the same moment."""
        with self._listing:
            return self._listed

    @cached_property
    def _listed(self) -> _References:
        patterns = ("HEAD", "refs/heads/*", "refs/tags/*")
        with access(self._location, self._folder) as (env, secrets):
            args = ["ls-remote", "--symref", "--", self._location.url, *patterns]
            listed = git(args, env=env, secrets=secrets, cancel=self._cancel, timeout_seconds=_LIST_TIMEOUT_SECONDS)
        commits: dict[str, str] = {}
        head = None
        for line in listed.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                if name == "HEAD":
                    head = value.removeprefix("ref: ").removeprefix("refs/heads/")
            else:
                commits[name] = value
        return _References(commits, head)

    def _decoded(self, paths: Iterable[bytes]) -> tuple[str, ...]:
        found = []
        for path in paths:
            try:
                found.append(path.decode())
            except UnicodeDecodeError:
                log.warning("%s: the file name %r is not UTF-8 and is left out", self.repository, path)
        return tuple(found)

    def _reference_to(self, commit: str) -> str:
        return f"refs/batchwright/{commit}"

    def _has(self, commit: str) -> bool:
        """A commit's reference is written after all of its objects, and keeps them."""
        if not self.git_dir.is_dir():
            return False
        args = ["rev-parse", "--quiet", "--verify", f"{self._reference_to(commit)}^{{commit}}"]
        return bool(git(args, git_dir=self.git_dir, expected=(0, 1)))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Only one process writes. Git's children inherit the lock: a fetch that outlives us keeps others out."""
        lock = FileLock(self._lock)
        try:
            while not lock.try_take():
                if self._cancel is not None and self._cancel.is_set():
                    raise Stopped
                time.sleep(_LOCK_TICK_SECONDS)
            yield lock.fileno()
        finally:
            lock.release()

    def _create(self) -> None:
        if self.git_dir.is_dir():
            return
        with scratch_folder(self._folder) as scratch:
            git(["init", "--quiet", "--bare", "--template=", str(scratch)])
            scratch.rename(self.git_dir)

    def _remove_leftovers(self) -> None:
        """What a killed fetch leaves. We hold the lock, so nobody uses them."""
        for pattern in ("*.lock", "refs/**/*.lock", "objects/*/tmp_*"):
            for leftover in self.git_dir.glob(pattern):
                with suppress(FileNotFoundError):
                    leftover.unlink()

    def _fetch(self, commit: str, env: Mapping[str, str], secrets: Mapping[str, str], lock: int) -> None:
        def fetch(*args: str) -> None:
            git(
                ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", *args],
                git_dir=self.git_dir,
                env=env,
                secrets=secrets,
                pass_fds=(lock,),
                cancel=self._cancel,
                timeout_seconds=NETWORK_TIMEOUT_SECONDS,
            )

        try:
            fetch("--depth=1", "--", self._location.url, f"+{commit}:{self._reference_to(commit)}")
        except GitFailed as refused:
            if not _refuses_commits(refused):
                raise
            log.info("%s: the server gives no single commits; fetching all branches and tags", self.repository)
            fetch("--", self._location.url, "+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*")
            git(["update-ref", self._reference_to(commit), commit], git_dir=self.git_dir)


def prune_mirrors(folder: Path, *, older_than_seconds: float) -> int:
    """Remove the mirrors in ``folder`` that no run asked for in so many seconds; returns how many.

    Nothing says that a run still reads one: be it longer than any run works.
    """
    unused_since, count = time.time() - older_than_seconds, 0
    for git_dir in folder.glob("*.git"):
        lock = FileLock(git_dir.with_suffix(_LOCK))
        if not lock.try_take():
            continue

        try:
            if git_dir.exists():
                count += discard_unused(git_dir, unused_since, lock.path)
            if not git_dir.exists():
                lock.remove()
        finally:
            lock.release()
    return count


def _branches(references: _References) -> dict[str, str]:
    prefix = "refs/heads/"
    return {name.removeprefix(prefix): at for name, at in references.commits.items() if name.startswith(prefix)}


def _refuses_commits(error: GitFailed) -> bool:
    said = error.stderr.lower()
    return any(
        text in said for text in ("unadvertised object", "not our ref", "does not support", "no such remote ref")
    )
