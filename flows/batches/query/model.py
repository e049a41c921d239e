"""A parsed query: alternatives of filters and a pattern, and what of it names and paths alone decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..languages import Language
from .regexps import compile_regexp

ResultType = Literal["repository", "path", "content"]


@dataclass(frozen=True)
class RepositoryFilter:
    """`repo:` and `-repo:`."""

    pattern: str
    negated: bool = False


@dataclass(frozen=True)
class RepositoryContains:
    """`repo:has.file(...)` and its kin: one file of the repository has such a path and such content (regexps)."""

    path: str = ""
    content: str = ""
    negated: bool = False


@dataclass(frozen=True)
class FileFilter:
    """`file:`, and `file:has.content()` (``of`` is "content")."""

    pattern: str
    negated: bool = False
    of: Literal["path", "content"] = "path"


@dataclass(frozen=True)
class LanguageFilter:
    """`lang:`. A file's language is told by its name."""

    language: Language
    negated: bool = False


@dataclass(frozen=True)
class Term:
    """One pattern to look for. ``content_only``: not in paths and names (`content:`)."""

    text: str
    regexp: bool = False
    negated: bool = False
    content_only: bool = False


@dataclass(frozen=True)
class AllOf:
    """A file matches when it matches every part."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class AnyOf:
    """A file matches when it matches one of the parts."""

    parts: tuple[Expression, ...]


Expression = Term | AllOf | AnyOf


@dataclass(frozen=True)
class Search:
    """One alternative of a query: everything in it has to hold. ``revisions`` empty: the default branch."""

    repositories: tuple[RepositoryFilter, ...] = ()
    contains: tuple[RepositoryContains, ...] = ()
    files: tuple[FileFilter, ...] = ()
    languages: tuple[LanguageFilter, ...] = ()
    pattern: Expression | None = None
    revisions: tuple[str, ...] = ()
    case_sensitive: bool = False
    results: frozenset[ResultType] = frozenset(("repository", "path", "content"))
    only_repositories: bool = False
    """`select:repo`: the paths are not wanted."""

    @property
    def finds_repositories(self) -> bool:
        """Whether a repository itself can be a result: only where nothing is asked about its files."""
        if "repository" not in self.results or self.files or self.languages:
            return False
        found = list(terms(self.pattern))
        return not found or not (all(term.negated for term in found) or any(term.content_only for term in found))

    @property
    def finds_files(self) -> bool:
        """Whether files can be results. Without a pattern, a filter has to ask for them."""
        asked = self.pattern is not None or bool(self.files or self.languages) or "repository" not in self.results
        return asked and bool(self.results & {"path", "content"})


@dataclass(frozen=True)
class Query:
    """Alternatives (one is enough to match) and how many results are wanted; None is all of them."""

    alternatives: tuple[Search, ...]
    count: int | None = None


def terms(expression: Expression | None) -> Iterator[Term]:
    """Every term of a pattern."""
    if isinstance(expression, Term):
        yield expression
    elif expression is not None:
        for part in expression.parts:
            yield from terms(part)


def pattern_holds(expression: Expression, holds: Callable[[Term], bool]) -> bool:
    """Evaluate a pattern; ``holds`` says whether a term, its negation aside, is there."""
    if isinstance(expression, Term):
        return holds(expression) != expression.negated
    if isinstance(expression, AllOf):
        return all(pattern_holds(part, holds) for part in expression.parts)
    return any(pattern_holds(part, holds) for part in expression.parts)


def takes_repository(search: Search, name: str) -> bool:
    """Whether the `repo:` filters take the repository of that name."""
    return all(in_name(filter.pattern, name, search) != filter.negated for filter in search.repositories)


def takes_file(search: Search, path: str) -> bool:
    """Whether the filters on paths and languages take the file."""
    paths = (filter for filter in search.files if filter.of == "path")
    return all(in_name(filter.pattern, path, search) != filter.negated for filter in paths) and all(
        filter.language.covers(path) != filter.negated for filter in search.languages
    )


def in_name(pattern: str, name: str, search: Search) -> bool:
    """Whether a regular expression is in a name or path, in upper or lower case as the search says."""
    return bool(compile_regexp(pattern, case_sensitive=search.case_sensitive).search(name))


def term_in_name(term: Term, name: str, search: Search) -> bool:
    """Whether a term, its negation aside, is in a path or a repository's name."""
    if term.content_only:
        return False
    if term.regexp:
        return in_name(term.text, name, search)
    return term.text in name if search.case_sensitive else term.text.lower() in name.lower()
