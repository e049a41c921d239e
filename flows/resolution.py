"""A batch spec's `on` and `workspaces`, answered from git: repositories are asked, fetched, and cut into workspaces."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from blocks.sources import RepositoryLocation, RepositorySource, SourceError

from .batches.errors import BatchError, PermanentError, ResolutionError, TemporaryError
from .batches.glob import GlobError, compile_glob
from .batches.query import parse_query
from .batches.spec import BatchSpec, OnQuery, OnRepository
from .batches.workspaces import (
    BATCH_IGNORE,
    Revision,
    Rule,
    Workspace,
    determine,
    folders_with,
    ignore_status,
    merge_rules,
)
from .mirror import Mirror
from .search import answer

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
) -> Resolution:
    """Find the workspaces of a spec; none at all is a valid answer. ``only``: a glob on repository names.

    Raises ResolutionError with everything that is wrong, TemplateError, or TemporaryError if trying again may help.
    """
    resolver = _Resolver(source, mirrors_folder, only, jobs)
    revisions = merge_rules(resolver.rules(spec))
    resolver.fetch(revisions)
    kept, ignored = resolver.without_ignored(revisions, allow_ignored=allow_ignored)
    workspaces = determine(spec, kept, resolver.folders(kept, spec))
    return Resolution(
        workspaces=tuple(
            workspace.model_copy(update={"ignored": True}) if workspace.repository in ignored else workspace
            for workspace in workspaces
        ),
        ignored=() if allow_ignored else tuple((name, f"its root holds {BATCH_IGNORE}") for name in sorted(ignored)),
        skipped=tuple(sorted(resolver.skipped.items())),
        mirrors={workspace.repository: resolver.mirror(workspace.repository).git_dir for workspace in workspaces},
        imports={entry.repository: entry.repository for entry in spec.import_changesets},
    )


class _Resolver:
    """The repositories of a source and their mirrors, during one resolution."""

    def __init__(self, source: RepositorySource, mirrors_folder: Path, only: str, jobs: int) -> None:
        try:
            self._locations: Mapping[str, RepositoryLocation] = source.locations()
            self._only = compile_glob(only)
        except (SourceError, GlobError) as error:
            raise ResolutionError((str(error),)) from error
        self._mirrors = {name: Mirror(mirrors_folder, at) for name, at in self._locations.items()}
        self._jobs = jobs
        self.skipped: dict[str, str] = {}

    def mirror(self, repository: str) -> Mirror:
        """The mirror of a repository. Raises PermanentError, with names that look alike, if there is none."""
        try:
            return self._mirrors[repository]
        except KeyError:
            raise PermanentError(self._unknown(repository)) from None

    def rules(self, spec: BatchSpec) -> tuple[Rule, ...]:
        """What each entry of `on` comes to. Raises everything that is wrong with all of them at once."""
        faults = _Faults()
        rules: list[Rule] = []
        for entry in spec.on:
            with faults.collect(f"resolving {json.dumps(_title(entry), ensure_ascii=False)}"):
                rules.append(self._query(entry, spec.version) if isinstance(entry, OnQuery) else self._repository(entry))
        for name in dict.fromkeys(entry.repository for entry in spec.import_changesets):
            if name not in self._mirrors:
                faults.add(f'repository "{name}" not found', "importChangesets")
        faults.raise_if_any()
        return tuple(rules)
