"""Where a batch change runs: matched repositories and rules in, workspaces out.

Asks nobody: revisions, and the folders that hold a file, are given. Upstream: workspace_resolver.go, on/aggregator.go.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .conditions import skipped_steps
from .errors import ResolutionError
from .glob import Glob, GlobError, compile_glob
from .spec import BatchSpec, WorkspaceRule

BATCH_IGNORE = ".batchignore"
"""A file of this name in a repository's root asks batch changes to leave the repository alone."""


@dataclass(frozen=True)
class Revision:
    """A repository at a commit of a branch (its short name). ``file_matches``: what a query found, sorted."""

    repository: str
    branch: str
    commit: str
    file_matches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """What one entry of `on` comes to. Explicit entries (`repository`) are stronger than queries."""

    explicit: bool
    revisions: tuple[Revision, ...]


class Workspace(BaseModel):
    """A folder of a repository at a commit, where the steps run by themselves. ``path`` "" is the root."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    branch: str
    commit: str
    path: str = ""
    only_fetch_workspace: bool = False
    search_result_paths: tuple[str, ...] = ()
    """What the query found at or below ``path``, as paths from the repository's root."""
    skipped_steps: tuple[int, ...] = ()
    """Steps that surely need not run here, counted from 0."""
    ignored: bool = False
    """The repository has a .batchignore, and runs only because that was allowed."""

    @property
    def title(self) -> str:
        """The workspace as people read it: repository and path."""
        return f"{self.repository}/{self.path}" if self.path else self.repository


def titles(workspaces: Sequence[Workspace]) -> list[str]:
    """What people call the workspaces: repository and path, and ``@branch`` behind it where two would be the same."""
    counts = Counter(workspace.title for workspace in workspaces)
    return [
        workspace.title if counts[workspace.title] == 1 else f"{workspace.title}@{workspace.branch}"
        for workspace in workspaces
    ]


FindFolders = Callable[[Revision, str], Sequence[str]]
"""The folders of a revision that hold a file of that name ("" is the root)."""


def merge_rules(rules: Iterable[Rule]) -> tuple[Revision, ...]:
    """What all entries of `on` come to: per repository the last entry, but no query replaces an explicit entry.

    An entry counts as a whole: neither branches nor file matches of two entries are put together.
    """
    chosen: dict[str, Rule] = {}
    for rule in rules:
        for repository in {revision.repository for revision in rule.revisions}:
            earlier = chosen.get(repository)
            if earlier is None or rule.explicit or not earlier.explicit:
                chosen[repository] = rule
    return tuple(
        revision
        for repository in sorted(chosen)
        for revision in chosen[repository].revisions
        if revision.repository == repository
    )


def branches_of(branch: str | None, branches: Sequence[str] | None) -> tuple[str, ...]:
    """The branches of a `repository` entry; none is the default branch. Raises ValueError if both are given."""
    if branch and branches:
        raise ValueError("both branch and branches specified")
    return (branch,) if branch else tuple(branches or ())


def determine(spec: BatchSpec, revisions: Iterable[Revision], find_folders: FindFolders) -> tuple[Workspace, ...]:
    """The workspaces of all revisions, sorted by repository, path, branch; those with nothing to run are left out.

    Raises ResolutionError (globs that do not compile, repositories that several globs match), TemplateError.
    """
    rules = _Rules(spec.workspaces)
    revisions = tuple(revisions)
    rules.check(revisions)
    skipped = _skipped(spec, {revision.repository for revision in revisions})
    workspaces = [
        workspace
        for revision in revisions
        if len(skipped[revision.repository]) < len(spec.steps)
        for workspace in _of_revision(
            revision, rules.of(revision.repository), find_folders, skipped[revision.repository]
        )
    ]
    return tuple(sorted(workspaces, key=lambda found: (found.repository, found.path, found.branch)))


def resolved_workspaces(spec: BatchSpec, workspaces: Iterable[Workspace]) -> tuple[Workspace, ...]:
    """Workspaces that an instance resolved, as ``determine`` would give them. Raises TemplateError.

    Instances of some versions neither leave out what no step has to run for nor take paths by whole segments.
    """
    found = tuple(workspaces)
    skipped = _skipped(spec, {workspace.repository for workspace in found})
    kept = [
        workspace.model_copy(
            update={
                "only_fetch_workspace": bool(workspace.path and workspace.only_fetch_workspace),
                "search_result_paths": tuple(
                    match for match in workspace.search_result_paths if is_at_or_below(match, workspace.path)
                ),
                "skipped_steps": tuple(sorted(skipped[workspace.repository])),
            }
        )
        for workspace in found
        if len(skipped[workspace.repository]) < len(spec.steps)
    ]
    return tuple(sorted(kept, key=lambda each: (each.repository, each.path, each.branch)))


def folder_searches(spec: BatchSpec, revisions: Iterable[Revision]) -> tuple[tuple[Revision, str], ...]:
    """What ``determine`` will ask ``find_folders``. Raises ResolutionError, as there."""
    rules = _Rules(spec.workspaces)
    wanted = ((revision, rules.of(revision.repository)) for revision in revisions)
    return tuple((revision, rule.root_at_location_of) for revision, rule in wanted if rule is not None)


def folders_with(name: str, paths: Iterable[str]) -> list[str]:
    """The folders that hold a file of that name (which may itself be a path), sorted; "" is the root."""
    at_end = re.compile(rf"(?:^|/){re.escape(name)}\Z")
    return sorted({path.rpartition("/")[0] for path in paths if at_end.search(path)})


def is_at_or_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, by whole path segments: `web2/x` is not in `web`."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def ignore_status(kind: str | None, *, allow_ignored: bool) -> Literal["run", "ignored"]:
    """What a repository's root entry .batchignore (its kind in git; None: there is none) means for it."""
    if kind is None:
        return "run"
    if kind != "blob":
        raise ResolutionError((f'not a blob: "{BATCH_IGNORE}"',))
    return "run" if allow_ignored else "ignored"


def _skipped(spec: BatchSpec, repositories: Iterable[str]) -> dict[str, frozenset[int]]:
    """The steps that need not run, by repository."""
    conditions = [step.condition for step in spec.steps]
    return {
        name: skipped_steps(
            conditions,
            repository_name=name,
            batch_change_name=spec.name,
            batch_change_description=spec.description,
        )
        for name in repositories
    }


class _Rules:
    """The `workspaces` of a spec with their globs compiled."""

    def __init__(self, rules: Sequence[WorkspaceRule]) -> None:
        faults: list[str] = []
        self._rules: list[tuple[Glob, WorkspaceRule]] = []
        for rule in rules:
            try:
                self._rules.append((compile_glob(rule.in_ or "*"), rule))
            except GlobError as error:
                faults.append(f'failed to compile glob "{rule.in_}": {error}')
        if faults:
            raise ResolutionError(tuple(faults))

    def check(self, revisions: Sequence[Revision]) -> None:
        faults = [
            f'repository {name} matches multiple workspaces.in globs in the batch spec. glob: "{rule.in_ or "*"}"'
            for name in dict.fromkeys(revision.repository for revision in revisions)
            for rule in self._matching(name)[1:]
        ]
        if faults:
            raise ResolutionError(tuple(faults))

    def of(self, repository: str) -> WorkspaceRule | None:
        return next(iter(self._matching(repository)), None)

    def _matching(self, repository: str) -> list[WorkspaceRule]:
        return [rule for glob, rule in self._rules if glob.match(repository)]


def _of_revision(
    revision: Revision, rule: WorkspaceRule | None, find_folders: FindFolders, skipped: frozenset[int]
) -> Iterable[Workspace]:
    paths = [""] if rule is None else dict.fromkeys(find_folders(revision, rule.root_at_location_of))
    for path in paths:
        yield Workspace(
            repository=revision.repository,
            branch=revision.branch,
            commit=revision.commit,
            path=path,
            only_fetch_workspace=bool(rule and path and rule.only_fetch_workspace),
            search_result_paths=tuple(match for match in revision.file_matches if is_at_or_below(match, path)),
            skipped_steps=tuple(sorted(skipped)),
        )
