"""A batch spec's `on` and `workspaces`, answered: repositories are asked, fetched, and cut into workspaces."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypeVar

from blocks.sources import AnySource, AskedSource

from .batches.errors import ResolutionError
from .batches.glob import Glob, GlobError, compile_glob
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
    resolved_workspaces,
)
from .catalogues import NO_CHANGESETS, Asked, Catalogue, Listed
from .faults import Faults
from .mirror import Mirror

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


@dataclass(frozen=True)
class Allowed:
    """What runs although something speaks against it."""

    ignored: bool = False
    """Repositories with a .batchignore."""
    unsupported: bool = False
    """Repositories on code hosts that cannot have changesets."""


def resolve(
    spec: BatchSpec,
    source: AnySource,
    mirrors_folder: Path,
    *,
    text: str = "",
    allow_ignored: bool = False,
    allow_unsupported: bool = False,
    only: str = "*",
    jobs: int = 8,
    cancel: Event | None = None,
) -> Resolution:
    """Find the workspaces of a spec; none at all is a valid answer. ``only``: a glob on repository names.

    ``text`` is the spec as written, for a source that resolves it all by itself.
    Raises ResolutionError with everything that is wrong, TemplateError, or TemporaryError if trying again may help;
    Stopped soon after ``cancel`` is set, which whatever interrupts this (Ctrl-C) does too.
    """
    cancel = cancel or Event()
    names, allowed = _names(only), Allowed(allow_ignored, allow_unsupported)
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool, _set_when_interrupted(cancel):
        catalogue = _catalogue(source, mirrors_folder, names, jobs, pool, cancel)
        if isinstance(catalogue, Asked) and catalogue.resolves_specs and text:
            return _by_the_source(spec, text, catalogue, pool, allowed)
        return _by_us(spec, catalogue, pool, allowed)


def _by_us(spec: BatchSpec, catalogue: Catalogue, pool: ThreadPoolExecutor, allowed: Allowed) -> Resolution:
    """Entry by entry: what each finds, then .batchignore and `workspaces` from the content."""
    resolver = _Resolver(catalogue, pool)
    found = merge_rules(resolver.rules(spec))
    revisions = [each for each in found if allowed.unsupported or each.repository not in catalogue.unsupported]
    resolver.fetch(revisions)
    ignored = resolver.ignored(revisions)
    kept = [revision for revision in revisions if allowed.ignored or revision not in ignored]
    folders = resolver.folders(folder_searches(spec, kept))
    asked_to_ignore = {(revision.repository, revision.commit) for revision in ignored}
    workspaces = tuple(
        workspace.model_copy(update={"ignored": (workspace.repository, workspace.commit) in asked_to_ignore})
        for workspace in determine(spec, kept, lambda revision, name: folders[revision, name])
    )
    unsupported = {revision.repository for revision in found} - {revision.repository for revision in revisions}
    asks = () if allowed.ignored else {revision.repository for revision in ignored}
    return _resolution(spec, catalogue, workspaces, asks, unsupported)


def _by_the_source(spec: BatchSpec, text: str, asked: Asked, pool: ThreadPoolExecutor, allowed: Allowed) -> Resolution:
    """As the instance resolves it. What no step has to run for is left out here too, and paths are whole segments."""
    faults, resolver = Faults(), _Resolver(asked, pool)
    with faults.collected():
        found = asked.workspaces(text)
    for name in dict.fromkeys(entry.repository for entry in spec.import_changesets):
        with faults.collected("importChangesets: "):
            asked.mirror(name)
    faults.raise_if_any()
    unsupported = {each.repository.location.name for each in found if not each.supported and not allowed.unsupported}
    asks = {each.repository.location.name for each in found if each.ignored and not allowed.ignored}
    workspaces = resolved_workspaces(
        spec,
        (
            Workspace(
                repository=each.repository.location.name,
                branch=each.branch,
                commit=each.commit,
                path=each.path,
                only_fetch_workspace=each.only_fetch_workspace,
                search_result_paths=each.search_result_paths,
                ignored=each.ignored,
            )
            for each in found
            if each.repository.location.name not in unsupported and (allowed.ignored or not each.ignored)
        ),
    )
    resolver.fetch(list(dict.fromkeys(Revision(each.repository, each.branch, each.commit) for each in workspaces)))
    return _resolution(spec, asked, workspaces, asks, unsupported)


def _resolution(
    spec: BatchSpec,
    catalogue: Catalogue,
    workspaces: tuple[Workspace, ...],
    asked_to_ignore: Collection[str],
    unsupported: Collection[str],
) -> Resolution:
    reasons = dict.fromkeys(asked_to_ignore, f"there is a {BATCH_IGNORE} in its root")
    reasons |= dict.fromkeys(unsupported, NO_CHANGESETS)
    return Resolution(
        workspaces=workspaces,
        ignored=tuple(sorted(reasons.items())),
        skipped=tuple(sorted(catalogue.skipped.items())),
        mirrors={workspace.repository: catalogue.mirror(workspace.repository).git_dir for workspace in workspaces},
        imports={entry.repository: entry.repository for entry in spec.import_changesets},
    )


def fetch(
    workspaces: Sequence[Workspace],
    source: AnySource,
    mirrors_folder: Path,
    *,
    jobs: int = 8,
    cancel: Event | None = None,
) -> dict[str, Path]:
    """Have the commits of workspaces that were found before, perhaps elsewhere; the mirrors by repository name.

    Raises as ``resolve`` does.
    """
    cancel = cancel or Event()
    revisions = dict.fromkeys(Revision(each.repository, each.branch, each.commit) for each in workspaces)
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool, _set_when_interrupted(cancel):
        catalogue = _catalogue(source, mirrors_folder, _names("*"), jobs, pool, cancel)
        _Resolver(catalogue, pool).fetch(tuple(revisions))
        return {name: catalogue.mirror(name).git_dir for name in {revision.repository for revision in revisions}}


def _catalogue(
    source: AnySource, mirrors_folder: Path, names: Glob, jobs: int, pool: ThreadPoolExecutor, cancel: Event
) -> Listed | Asked:
    if isinstance(source, AskedSource):
        return Asked(source.answers(cancel), mirrors_folder, names, pool, cancel)
    return Listed(source, mirrors_folder, names, jobs, cancel)


def _names(only: str) -> Glob:
    try:
        return compile_glob(only)
    except GlobError as error:
        raise ResolutionError((f"{only!r} is no glob for names of repositories: {error}",)) from error


class _Resolver:
    """The repositories of a catalogue and their mirrors, asked side by side during one resolution."""

    def __init__(self, catalogue: Catalogue, pool: ThreadPoolExecutor) -> None:
        self._catalogue, self._pool = catalogue, pool

    def mirror(self, repository: str) -> Mirror:
        """The mirror of a repository. Raises PermanentError if there is none."""
        return self._catalogue.mirror(repository)

    def rules(self, spec: BatchSpec) -> tuple[Rule, ...]:
        """What each entry of `on` comes to. Raises everything that is wrong with all of them, together."""
        faults = Faults()
        explicit = {
            entry: self._pool.submit(self._catalogue.repository, entry)
            for entry in spec.on
            if isinstance(entry, OnRepository)
        }
        rules: list[Rule] = []
        for entry in spec.on:
            with faults.collected(f"resolving {json.dumps(_title(entry), ensure_ascii=False)}: "):
                if isinstance(entry, OnQuery):
                    rules.append(self._catalogue.query(entry, spec.version))
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
        faults, found = Faults(), {}
        for revision, future in futures.items():
            with faults.collected(f"repository {revision.repository}: "):
                found[revision] = future.result()
        faults.raise_if_any()
        return found


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
