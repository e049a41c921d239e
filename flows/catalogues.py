"""The repositories of a source, as the entries of `on` ask for them: a list that we search ourselves, or a source that
is asked because it has too many to list."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

from blocks.instance_errors import InstanceTrouble, InstanceWaitStopped
from blocks.sources import FoundWorkspace, KnownRepository, RepositorySource, SourceAnswers, SourceError

from .batches.errors import PermanentError, ResolutionError, Stopped, TemporaryError
from .batches.glob import Glob
from .batches.query import parse_query
from .batches.spec import OnQuery, OnRepository
from .batches.workspaces import Revision, Rule
from .faults import Faults
from .mirror import BranchNotFound, Mirror, NoDefaultBranch
from .search import answer

_MALFORMED = "malformed 'on' field; missing either a repository name or a query"
NO_CHANGESETS = "its code host cannot have changesets"


class Catalogue(Protocol):
    """What a resolution asks a source's repositories. For many threads."""

    skipped: dict[str, str]
    """Repositories that a query takes and that have nothing to run on, with the reason."""
    unsupported: set[str]
    """Repositories that can have no changesets."""

    def mirror(self, repository: str) -> Mirror:
        """The mirror of a repository. Raises PermanentError, with what to do, if there is none."""
        ...

    def query(self, entry: OnQuery, version: int) -> Rule:
        """What a `repositoriesMatchingQuery` comes to."""
        ...

    def repository(self, entry: OnRepository) -> Rule:
        """What a `repository` comes to."""
        ...


class Listed:
    """The repositories that a source lists; queries are answered by git, side by side."""

    def __init__(
        self, source: RepositorySource, mirrors_folder: Path, names: Glob, jobs: int, cancel: Event | None
    ) -> None:
        try:
            locations = source.locations()
        except SourceError as error:
            raise ResolutionError((str(error),)) from error
        self._names, self._jobs = names, jobs
        self._mirrors = {name: Mirror(mirrors_folder, location, cancel) for name, location in locations.items()}
        self.skipped: dict[str, str] = {}
        self.unsupported: set[str] = set()

    def mirror(self, repository: str) -> Mirror:
        """The mirror of a repository. Raises PermanentError, with a name that looks alike, if there is none."""
        found = self._mirrors.get(repository)
        if found is None:
            raise PermanentError(self._not_found(repository))
        return found

    def query(self, entry: OnQuery, version: int) -> Rule:
        if not entry.query.strip():
            raise PermanentError(_MALFORMED)
        wanted = (mirror for name, mirror in self._mirrors.items() if self._names.match(name))
        found = answer(parse_query(entry.query, version=version), wanted, jobs=self._jobs)
        faults = Faults()
        for name, error in found.failures.items():
            faults.add(f"repository {name}: {error}", temporary=isinstance(error, TemporaryError))
        faults.raise_if_any()
        self.skipped.update(found.skipped)
        return Rule(
            explicit=False,
            revisions=tuple(
                Revision(name, match.branch.name, match.branch.commit, match.paths)
                for name, match in found.matches.items()
            ),
        )

    def repository(self, entry: OnRepository) -> Rule:
        if not entry.repository:
            raise PermanentError(_MALFORMED)
        mirror = self.mirror(entry.repository)
        if not self._names.match(entry.repository):
            return Rule(explicit=True, revisions=())
        faults, branches = Faults(), []
        for name in dict.fromkeys(entry.branches):
            with faults.collected():
                branches.append(mirror.resolve(name))
        faults.raise_if_any()
        return Rule(
            explicit=True,
            revisions=tuple(
                Revision(entry.repository, branch.name, branch.commit)
                for branch in dict.fromkeys(branches or [mirror.default_branch()])
            ),
        )

    def _not_found(self, repository: str) -> str:
        alike = difflib.get_close_matches(repository, self._mirrors, n=1, cutoff=0.6)
        hint = f', did you mean "{alike[0]}"?' if alike else f" (there are {len(self._mirrors)} repositories)"
        return f'repository "{repository}" not found{hint}'


class Asked:
    """The repositories of an instance. It says what exists and where branches are; git only fetches the content."""

    def __init__(
        self, answers: SourceAnswers, mirrors_folder: Path, names: Glob, pool: ThreadPoolExecutor, cancel: Event
    ) -> None:
        self._answers, self._folder, self._names = answers, mirrors_folder, names
        self._pool, self._cancel = pool, cancel
        self._lock = Lock()
        self._known: dict[str, KnownRepository] = {}
        self._mirrors: dict[str, Mirror] = {}
        self.skipped: dict[str, str] = {}
        self.unsupported: set[str] = set()

    @property
    def resolves_specs(self) -> bool:
        """Whether the source resolves whole batch specs."""
        return self._answers.resolves_specs

    def mirror(self, repository: str) -> Mirror:
        known = self._repository(repository)
        with self._lock:
            found = self._mirrors.get(repository)
            if found is None:
                found = self._mirrors[repository] = Mirror(self._folder, known.location, self._cancel)
        return found

    def query(self, entry: OnQuery, version: int) -> Rule:
        if not entry.query.strip():
            raise PermanentError(_MALFORMED)
        with understood():
            found = self._answers.find(entry.query, keyword=version >= 2)
        names = [name for name in found if self._names.match(name)]
        revisions = []
        for name, known in zip(names, self._pool.map(self._repository, names), strict=True):
            if known.commit:
                revisions.append(Revision(name, known.branch, known.commit, found[name]))
            else:
                self.skipped[name] = "is empty, or not cloned by the instance yet"
        return Rule(explicit=False, revisions=tuple(revisions))

    def repository(self, entry: OnRepository) -> Rule:
        if not entry.repository:
            raise PermanentError(_MALFORMED)
        known = self._repository(entry.repository)
        if not self._names.match(entry.repository):
            return Rule(explicit=True, revisions=())
        if not entry.branches and not known.commit:
            raise NoDefaultBranch(entry.repository, "is empty, or not cloned by the instance yet")
        faults, branches = Faults(), []
        for name in dict.fromkeys(branch.removeprefix("refs/heads/") for branch in entry.branches):
            with faults.collected():
                branches.append((name, self._commit_of(entry.repository, name)))
        faults.raise_if_any()
        return Rule(
            explicit=True,
            revisions=tuple(
                Revision(entry.repository, branch, commit)
                for branch, commit in branches or [(known.branch, known.commit)]
            ),
        )

    def workspaces(self, spec: str) -> Sequence[FoundWorkspace]:
        """What the source makes of a whole batch spec, of the repositories whose names are wanted."""
        with understood():
            found = self._answers.workspaces(spec)
        wanted = [each for each in found if self._names.match(each.repository.location.name)]
        for each in wanted:
            self._learn(each.repository)
        return wanted

    def _repository(self, name: str) -> KnownRepository:
        """Asked once a resolution. Raises PermanentError for what is not there, or may not be seen."""
        if name in self._known:
            return self._known[name]
        with understood():
            found = self._answers.repository(name)
        if found is None:
            raise PermanentError(
                f'repository "{name}" not found on the instance; check the name, and what the token\'s user may see'
            )
        self._learn(found)
        return found

    def _learn(self, known: KnownRepository) -> None:
        with self._lock:
            self._known[known.location.name] = known
            if not known.supported:
                self.unsupported.add(known.location.name)

    def _commit_of(self, repository: str, branch: str) -> str:
        with understood():
            commit = self._answers.commit_of(repository, f"refs/heads/{branch}")
        if commit is None:
            raise BranchNotFound(repository, branch)
        return commit


@contextmanager
def understood() -> Iterator[None]:
    """What an instance says, in the words of batch changes: temporary, permanent, or stopped."""
    try:
        yield
    except InstanceWaitStopped as error:
        raise Stopped from error
    except InstanceTrouble as error:
        raise (TemporaryError if error.temporary else PermanentError)(str(error)) from error
