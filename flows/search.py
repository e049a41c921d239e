"""A query's answer from git: evaluated on every repository whose name it takes, side by side, within a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from .batches.errors import BatchError, Stopped
from .batches.query import (
    Query,
    QueryError,
    RepositoryContains,
    Search,
    Term,
    in_name,
    pattern_holds,
    takes_file,
    takes_repository,
    term_in_name,
    terms,
)
from .gitcommand import GitFailed
from .mirror import Branch, Mirror, NoDefaultBranch

_MOST_NAMED_PATHS = 500
"""As many files are named to git one by one; beyond, looking through the whole commit is quicker."""


@dataclass(frozen=True)
class Match:
    """A repository that a query found: where it will run, and the files found (none: it matches as a whole)."""

    branch: Branch
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a query found, by repository name; ``failures`` are repositories that could not be asked."""

    matches: Mapping[str, Match] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Repositories that the query takes by name and that have nothing to run on, with the reason."""
    failures: Mapping[str, BatchError] = field(default_factory=dict)


def answer(query: Query, mirrors: Iterable[Mirror], *, jobs: int) -> Answer:
    """Evaluate a query. A repository's failure does not stop the others. Raises QueryError."""
    candidates = [
        (mirror, searches)
        for mirror in sorted(mirrors, key=lambda mirror: mirror.repository)
        if (searches := [search for search in query.alternatives if takes_repository(search, mirror.repository)])
    ]
    matches: dict[str, Match] = {}
    skipped: dict[str, str] = {}
    failures: dict[str, BatchError] = {}
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        found = [(mirror.repository, pool.submit(_match, mirror, searches)) for mirror, searches in candidates]
    for name, future in found:
        try:
            match = future.result()
        except (QueryError, Stopped):
            raise
        except NoDefaultBranch as error:
            skipped[name] = error.reason
        except BatchError as error:
            failures[name] = error
        else:
            if match is not None:
                matches[name] = match
    return Answer(_limited(matches, query.count), skipped, failures)


def _match(mirror: Mirror, searches: Sequence[Search]) -> Match | None:
    """What the alternatives find in one repository, taken together."""
    branch = mirror.default_branch()
    snapshots: dict[str, _Snapshot] = {}
    paths: set[str] = set()
    matched = False
    for search in searches:
        for commit in _commits(mirror, branch, search.revisions):
            snapshot = snapshots.setdefault(commit, _Snapshot(mirror, commit))
            found = _evaluate(search, snapshot)
            if found is not None:
                matched = True
                paths |= found
    return Match(branch, tuple(sorted(paths))) if matched else None


def _commits(mirror: Mirror, branch: Branch, revisions: Sequence[str]) -> Iterator[str]:
    if not revisions:
        yield branch.commit
    for revision in revisions:
        commit = mirror.resolve_revision(revision)
        if commit is not None:
            yield commit


def _evaluate(search: Search, snapshot: _Snapshot) -> frozenset[str] | None:
    """The files that one alternative finds in a repository; None if it does not match, none of them if as a whole."""
    if not all(_contains(search, condition, snapshot) for condition in search.contains):
        return None
    whole = search.finds_repositories and _name_matches(search, snapshot.repository)
    paths = _matching_files(search, snapshot) if search.finds_files else frozenset()
    if not paths and not whole:
        return None
    return frozenset() if search.only_repositories else paths


def _name_matches(search: Search, name: str) -> bool:
    return search.pattern is None or pattern_holds(search.pattern, lambda term: term_in_name(term, name, search))


def _contains(search: Search, condition: RepositoryContains, snapshot: _Snapshot) -> bool:
    """`repo:has.file()`: one file that has both such a path and such a content."""
    paths: Iterable[str] = (path for path in snapshot.files if in_name(condition.path, path, search))
    if condition.content:
        paths = snapshot.holding(_regexp(condition.content), search, list(paths))
    return any(True for _ in paths) != condition.negated


def _matching_files(search: Search, snapshot: _Snapshot) -> frozenset[str]:
    candidates = [path for path in snapshot.files if takes_file(search, path)]
    for filter in search.files:
        if filter.of == "content":
            holding = snapshot.holding(_regexp(filter.pattern), search, candidates)
            candidates = [path for path in candidates if (path in holding) != filter.negated]
    if search.pattern is None or not candidates:
        return frozenset(candidates)
    pattern, in_content = search.pattern, _terms_in_content(search, snapshot, candidates)

    def file_holds(path: str) -> bool:
        return pattern_holds(pattern, lambda term: path in in_content[term] or _in_path(term, path, search))

    return frozenset(path for path in candidates if file_holds(path))


def _terms_in_content(search: Search, snapshot: _Snapshot, candidates: Sequence[str]) -> dict[Term, frozenset[str]]:
    if "content" not in search.results:
        return {term: frozenset() for term in terms(search.pattern)}
    return {term: snapshot.holding(term, search, candidates) for term in terms(search.pattern)}


def _in_path(term: Term, path: str, search: Search) -> bool:
    return "path" in search.results and term_in_name(term, path, search)


def _regexp(pattern: str) -> Term:
    return Term(pattern, regexp=True, content_only=True)


def _limited(matches: Mapping[str, Match], count: int | None) -> dict[str, Match]:
    """The first ``count`` results (`count:`) in the order of repositories and paths."""
    if count is None:
        return dict(matches)
    kept: dict[str, Match] = {}
    for name, match in matches.items():
        if count <= 0:
            break
        kept[name] = Match(match.branch, match.paths[:count])
        count -= max(1, len(match.paths))
    return kept


class _Snapshot:
    """A repository at a commit, as a query looks at it: fetched when a file is asked for, asked once for everything."""

    def __init__(self, mirror: Mirror, commit: str) -> None:
        self._mirror, self._commit = mirror, commit
        self._held: dict[tuple[str, bool, bool], frozenset[str]] = {}

    @property
    def repository(self) -> str:
        return self._mirror.repository

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The paths of all files."""
        self._mirror.fetch(self._commit)
        return self._mirror.files(self._commit)

    def holding(self, term: Term, search: Search, candidates: Sequence[str]) -> frozenset[str]:
        """The files with a term in their content: at least those among ``candidates``. Raises QueryError."""
        if not candidates:
            return frozenset()
        if len(candidates) < min(len(self.files), _MOST_NAMED_PATHS):
            return self._grep(term, search, candidates)
        key = (term.text, term.regexp, search.case_sensitive)
        if key not in self._held:
            self._held[key] = self._grep(term, search, ())
        return self._held[key]

    def _grep(self, term: Term, search: Search, paths: Sequence[str]) -> frozenset[str]:
        case = search.case_sensitive
        try:
            return self._mirror.grep(self._commit, term.text, regexp=term.regexp, case_sensitive=case, paths=paths)
        except GitFailed as error:
            if "pcre" in error.stderr.lower() or "command line" in error.stderr:
                raise QueryError(f"git cannot look for {term.text!r}: {error.stderr}") from error
            raise
