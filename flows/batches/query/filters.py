"""What each `field:value` of a query means for a ``Search``; those that git cannot answer are refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ..languages import find_language
from .errors import QueryError
from .model import FileFilter, LanguageFilter, RepositoryContains, RepositoryFilter, ResultType, Search
from .syntax import Parameter

_YES = frozenset(("y", "yes", "t", "true", "1"))
_NO = frozenset(("n", "no", "f", "false", "0"))
_RESULTS: dict[str, ResultType] = {"repo": "repository", "path": "path", "file": "content"}
_REVISION = re.compile(r"[\w./+-]+")
_ARGUMENT = re.compile(r"(?:^|\s)(path|file|content):")
_NO_HISTORY = "only the files of one commit are searched, not the history"
_REASONS = {
    "author": _NO_HISTORY,
    "committer": _NO_HISTORY,
    "message": _NO_HISTORY,
    "before": _NO_HISTORY,
    "after": _NO_HISTORY,
    "repohascommitafter": _NO_HISTORY,
    "repogroup": "name the repositories with repo:",
    "rule": "there is no structural search",
    "max": "use count:",
}


def build_search(filters: Iterable[Parameter]) -> Search:
    """All filters of one alternative together. Raises QueryError."""
    search = Search(results=frozenset())
    for filter in filters:
        add = _HANDLERS.get(filter.field)
        if add is None:
            raise _refusal(filter, _REASONS.get(filter.field, "leave it out"))
        search = add(search, filter)
    if search.revisions and not search.repositories:
        raise QueryError("rev: needs a repo: beside it")
    return search if search.results else replace(search, results=Search().results)


def _repository(search: Search, filter: Parameter) -> Search:
    if filter.predicate:
        return replace(search, contains=(*search.contains, _repository_predicate(filter)))
    pattern, at, revisions = filter.value.partition("@")
    if at and not filter.negated:
        search = _with_revisions(search, filter, revisions)
    return replace(search, repositories=(*search.repositories, RepositoryFilter(pattern, filter.negated)))


def _repository_predicate(filter: Parameter) -> RepositoryContains:
    name = filter.predicate.removeprefix("has.").removeprefix("contains.")
    argument = filter.value.strip()
    if name in ("file", "contains"):
        arguments = _named_arguments(filter) if _ARGUMENT.search(argument) else {"path": argument}
    elif name in ("path", "content"):
        arguments = {name: argument}
    else:
        raise _refusal(filter, _NO_HISTORY if name == "commit.after" else "only a code host knows it")
    if not any(arguments.values()):
        raise QueryError(f'"{filter}" needs a path or a content')
    return RepositoryContains(arguments.get("path", ""), arguments.get("content", ""), filter.negated)


def _named_arguments(filter: Parameter) -> dict[str, str]:
    """``path:x content:y`` of `has.file()`; `file` is the older name of `path`."""
    found: dict[str, str] = {}
    names = list(_ARGUMENT.finditer(filter.value))
    if filter.value[: names[0].start()].strip():
        raise QueryError(f'"{filter}": put path: or content: in front of {filter.value[: names[0].start()].strip()!r}')
    ends = [match.start() for match in names[1:]] + [len(filter.value)]
    for match, end in zip(names, ends, strict=True):
        name = "content" if match[1] == "content" else "path"
        if name in found:
            raise QueryError(f'"{filter}" has two of {match[1]}:')
        found[name] = _unquoted(filter.value[match.end() : end].strip())
    return found


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _file(search: Search, filter: Parameter) -> Search:
    if not filter.predicate:
        return replace(search, files=(*search.files, FileFilter(filter.value, filter.negated)))
    if filter.predicate not in ("has.content", "contains.content", "contains"):
        raise _refusal(filter, "only a code host knows it")
    return replace(search, files=(*search.files, FileFilter(_unquoted(filter.value), filter.negated, of="content")))


def _language(search: Search, filter: Parameter) -> Search:
    language = find_language(filter.value)
    if language is None:
        raise QueryError(f'"{filter}": the language {filter.value!r} is not known here; use file: with its extension')
    return replace(search, languages=(*search.languages, LanguageFilter(language, filter.negated)))


def _revision(search: Search, filter: Parameter) -> Search:
    return _with_revisions(search, filter, filter.value)


def _with_revisions(search: Search, filter: Parameter, text: str) -> Search:
    if search.revisions:
        raise QueryError(f'"{filter}": the revision is given twice')
    return replace(search, revisions=tuple(_revisions(filter, text)))


def _revisions(filter: Parameter, text: str) -> Iterator[str]:
    for revision in text.split(":"):
        if not _REVISION.fullmatch(revision) or revision.startswith("-"):
            raise _refusal(filter, "name branches, tags or commits")
        yield revision.removeprefix("refs/heads/")


def _repository_has_file(search: Search, filter: Parameter) -> Search:
    return replace(search, contains=(*search.contains, RepositoryContains(filter.value, "", filter.negated)))


def _case(search: Search, filter: Parameter) -> Search:
    return replace(search, case_sensitive=_yes_or_no(filter))


def _type(search: Search, filter: Parameter) -> Search:
    kind = _RESULTS.get(filter.value.lower())
    if kind is None or filter.negated:
        raise _refusal(filter, "use type:repo, type:path or type:file")
    return replace(search, results=search.results | {kind})


def _select(search: Search, filter: Parameter) -> Search:
    if filter.negated or filter.value not in ("repo", "file", "file.path"):
        raise _refusal(filter, "use select:repo or select:file")
    if filter.value == "repo":
        return replace(search, only_repositories=True)
    return replace(search, results=(search.results or Search().results) - {"repository"})


def _archived_or_fork(search: Search, filter: Parameter) -> Search:
    """No repository here is known to be archived or a fork, so only a wish for nothing else cannot be met."""
    if filter.negated or filter.value.lower() == "only":
        raise _refusal(filter, "only a code host knows it")
    _yes_or_no(filter)
    return search


def _visibility(search: Search, filter: Parameter) -> Search:
    if filter.negated or filter.value.lower() != "any":
        raise _refusal(filter, "only a code host knows it; visibility:any is accepted")
    return search


def _context(search: Search, filter: Parameter) -> Search:
    if filter.negated or filter.value != "global":
        raise _refusal(filter, "search contexts live on an instance; context:global is accepted")
    return search


def _without_effect(search: Search, filter: Parameter) -> Search:
    if filter.negated:
        raise _refusal(filter, "leave it out")
    return search


def _yes_or_no(filter: Parameter) -> bool:
    value = filter.value.lower()
    if filter.negated or value not in _YES | _NO:
        raise QueryError(f'"{filter}": the value is yes or no')
    return value in _YES


def _refusal(filter: Parameter, reason: str) -> QueryError:
    return QueryError(f'"{filter}" cannot be answered from git: {reason}')


_HANDLERS: dict[str, Callable[[Search, Parameter], Search]] = {
    "repo": _repository,
    "file": _file,
    "lang": _language,
    "rev": _revision,
    "repohasfile": _repository_has_file,
    "case": _case,
    "type": _type,
    "select": _select,
    "archived": _archived_or_fork,
    "fork": _archived_or_fork,
    "visibility": _visibility,
    "context": _context,
    "patterntype": _without_effect,
    "count": _without_effect,
    "timeout": _without_effect,
    "stable": _without_effect,
    "index": _without_effect,
}
