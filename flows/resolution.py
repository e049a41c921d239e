"""A batch spec's `on` and `workspaces`, answered from git: repositories are asked, fetched, and cut into workspaces."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypeVar

from blocks.sources import RepositorySource, SourceError

from .batches.errors import BatchError, PermanentError, ResolutionError, Stopped, TemporaryError
from .batches.glob import GlobError, compile_glob
from .batches.query import parse_query
from .batches.spec import BatchSpec, OnQuery, OnRepository
from .batches.workspaces import (
    BATCH_IGNORE,
    Revision,
    Rule,
    Workspace,
    determine,
    folder_searches,
    folders_with,
    ignore_status,
    merge_rules,
)
from .mirror import Mirror
from .search import answer

_MALFORMED = "malformed 'on' field; missing either a repository name or a query"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Resolution:
    """Where a batch change runs, and what it leaves out. Every commit is in its mirror."""

    workspaces: tuple[Workspace, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    """Repositories that ask to be left alone, with the reason."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Repositories that a query takes and that have nothing to run on, with the reason."""
    mirrors: Mapping[str, Path] = field(default_factory=dict)
    """The bare git repositories that hold the commits, by repository name."""
    imports: Mapping[str, str] = field(default_factory=dict)
    """The ids of the repositories that `importChangesets` names: their names, as no instance gives them others."""


def resolve(
    spec: BatchSpec,
    source: RepositorySource,
    mirrors_folder: Path,
    *,
    allow_ignored: bool = False,
    only: str = "*",
    jobs: int = 8,
    cancel: Event | None = None,
) -> Resolution:
    """Find the workspaces of a spec; none at all is a valid answer. ``only``: a glob on repository names.

    Raises ResolutionError with everything that is wrong, TemplateError, or TemporaryError if trying again may help;
    Stopped soon after ``cancel`` is set, which whatever interrupts this (Ctrl-C) does too.
    """
    cancel = cancel or Event()
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool, _set_when_interrupted(cancel):
        resolver = _Resolver(source, mirrors_folder, only, pool, jobs, cancel)
        revisions = merge_rules(resolver.rules(spec))
        resolver.fetch(revisions)
        ignored = resolver.ignored(revisions)
        kept = [revision for revision in revisions if allow_ignored or revision not in ignored]
        folders = resolver.folders(folder_searches(spec, kept))
    asked_to_ignore = {(revision.repository, revision.commit) for revision in ignored}
    workspaces = tuple(
        workspace.model_copy(update={"ignored": (workspace.repository, workspace.commit) in asked_to_ignore})
        for workspace in determine(spec, kept, lambda revision, name: folders[revision, name])
    )
    names = sorted({revision.repository for revision in ignored})
    return Resolution(
        workspaces=workspaces,
        ignored=() if allow_ignored else tuple((name, f"there is a {BATCH_IGNORE} in its root") for name in names),
        skipped=tuple(sorted(resolver.skipped.items())),
        mirrors={workspace.repository: resolver.mirror(workspace.repository).git_dir for workspace in workspaces},
        imports={entry.repository: entry.repository for entry in spec.import_changesets},
    )


class _Resolver:
    """The repositories of a source and their mirrors, during one resolution."""

    def __init__(
        self,
        source: RepositorySource,
        mirrors_folder: Path,
        only: str,
        pool: ThreadPoolExecutor,
        jobs: int,
        cancel: Event,
    ) -> None:
        try:
            locations = source.locations()
        except SourceError as error:
            raise ResolutionError((str(error),)) from error
        try:
            self._only = compile_glob(only)
        except GlobError as error:
            raise ResolutionError((f"{only!r} is no glob for names of repositories: {error}",)) from error
        self._mirrors = {name: Mirror(mirrors_folder, location, cancel) for name, location in locations.items()}
        self._pool, self._jobs = pool, jobs
        self.skipped: dict[str, str] = {}

    def mirror(self, repository: str) -> Mirror:
        """The mirror of a repository. Raises PermanentError, with a name that looks alike, if there is none."""
        found = self._mirrors.get(repository)
        if found is None:
            raise PermanentError(self._not_found(repository))
        return found

    def rules(self, spec: BatchSpec) -> tuple[Rule, ...]:
        """What each entry of `on` comes to. Raises everything that is wrong with all of them, together."""
        faults = _Faults()
        explicit = {
            entry: self._pool.submit(self._repository, entry) for entry in spec.on if isinstance(entry, OnRepository)
        }
        rules: list[Rule] = []
        for entry in spec.on:
            with faults.collected(f"resolving {json.dumps(_title(entry), ensure_ascii=False)}: "):
                if isinstance(entry, OnQuery):
                    rules.append(self._query(entry, spec.version))
                else:
                    rules.append(explicit[entry].result())
        for name in dict.fromkeys(entry.repository for entry in spec.import_changesets):
            with faults.collected("importChangesets: "):
                self.mirror(name)
        faults.raise_if_any()
        return tuple(rules)

    def fetch(self, revisions: Sequence[Revision]) -> None:
        """Have every commit in its mirror."""
        self._for_each(revisions, lambda revision: self.mirror(revision.repository).fetch(revision.commit))

    def ignored(self, revisions: Sequence[Revision]) -> frozenset[Revision]:
        """The revisions with a .batchignore in their root."""

        def is_ignored(revision: Revision) -> bool:
            kind = self.mirror(revision.repository).root_entry_kind(revision.commit, BATCH_IGNORE)
            return ignore_status(kind, allow_ignored=False) == "ignored"

        return frozenset(revision for revision, found in self._for_each(revisions, is_ignored).items() if found)

    def folders(self, searches: Sequence[tuple[Revision, str]]) -> dict[tuple[Revision, str], list[str]]:
        """The folders of a revision that hold a file of a name."""
        files = self._for_each(
            [revision for revision, _ in searches],
            lambda revision: self.mirror(revision.repository).files(revision.commit),
        )
        return {(revision, name): folders_with(name, files[revision]) for revision, name in searches}

    def _for_each(self, revisions: Sequence[Revision], ask: Callable[[Revision], _Result]) -> dict[Revision, _Result]:
        """Ask something about every revision, side by side. Raises everything that went wrong, together."""
        futures = {revision: self._pool.submit(ask, revision) for revision in revisions}
        faults, found = _Faults(), {}
        for revision, future in futures.items():
            with faults.collected(f"repository {revision.repository}: "):
                found[revision] = future.result()
        faults.raise_if_any()
        return found

    def _query(self, entry: OnQuery, version: int) -> Rule:
        if not entry.query.strip():
            raise PermanentError(_MALFORMED)
        wanted = (mirror for name, mirror in self._mirrors.items() if self._only.match(name))
        found = answer(parse_query(entry.query, version=version), wanted, jobs=self._jobs)
        faults = _Faults()
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

    def _repository(self, entry: OnRepository) -> Rule:
        if not entry.repository:
            raise PermanentError(_MALFORMED)
        mirror = self.mirror(entry.repository)
        if not self._only.match(entry.repository):
            return Rule(explicit=True, revisions=())
        faults, branches = _Faults(), []
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


class _Faults:
    """What went wrong so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._all_temporary = True

    def add(self, text: str, *, temporary: bool) -> None:
        self._texts.append(text)
        self._all_temporary = self._all_temporary and temporary

    @contextmanager
    def collected(self, where: str = "") -> Iterator[None]:
        """Note what the body raises, of the errors that we foresaw."""
        try:
            yield
        except ResolutionError as error:
            for reason in error.reasons:
                self.add(f"{where}{reason}", temporary=False)
        except Stopped:
            raise
        except BatchError as error:
            self.add(f"{where}{error}", temporary=isinstance(error, TemporaryError))

    def raise_if_any(self) -> None:
        """ResolutionError with all of it, or TemporaryError when nothing of it is there to stay."""
        if self._texts and self._all_temporary:
            raise TemporaryError("\n".join(self._texts))
        if self._texts:
            raise ResolutionError(tuple(self._texts))


@contextmanager
def _set_when_interrupted(cancel: Event) -> Iterator[None]:
    """An interrupt reaches the main thread alone: the others are told, or we would wait for the slowest server."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            cancel.set()
        raise


def _title(entry: OnQuery | OnRepository) -> str:
    return entry.query if isinstance(entry, OnQuery) else f"repository:{entry.repository}"
