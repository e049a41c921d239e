"""The stream search API, GET /.api/search/stream: the part of the query language that the tests use, on real git.

`repo:`, `file:` (regular expressions, `-` in front negates, `@rev` is accepted and ignored as batch changes do),
`content:`, `case:yes`, `count:`, `patterntype:`, `type:`, `select:repo`, and a pattern: literal in standard search, all
words of it in keyword search. `error:X`, `alert:X`, `timeout:1` and `hangup:yes` order what goes wrong.
"""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from . import repositories
from .accounts import User, authenticated
from .state import Instance

_PATTERN_TYPES = ("standard", "keyword", "literal", "regexp", "structural", "lucky")
_FIELDS = "repo|file|content|case|count|patterntype|type|select|error|alert|timeout|hangup"


class Query:
    """A query, taken apart."""

    def __init__(self, text: str, pattern_type: str) -> None:
        self.fields: list[tuple[bool, str, str]] = []
        words = []
        for word in shlex.split(text, posix=True):
            match = re.fullmatch(rf"(-?)({_FIELDS}):(.*)", word, re.IGNORECASE | re.DOTALL)
            if match:
                self.fields.append((bool(match[1]), match[2].lower(), match[3]))
            else:
                words.append(word)
        self.pattern_type = self.value("patterntype") or pattern_type
        self.patterns = words if self.pattern_type == "keyword" else [" ".join(words)] if words else []
        self.patterns += [value for _, name, value in self.fields if name == "content"]

    def value(self, name: str) -> str:
        return next((value for _, field, value in self.fields if field == name), "")

    def takes(self, name: str, text: str) -> bool:
        """Whether all filters of a kind hold."""
        wanted = ((negated, value.partition("@")[0]) for negated, field, value in self.fields if field == name)
        return all(bool(re.search(value, text, re.IGNORECASE)) != negated for negated, value in wanted)

    def finds(self, text: str) -> bool:
        if self.value("case") == "yes":
            return all(pattern in text for pattern in self.patterns)
        return all(pattern.lower() in text.lower() for pattern in self.patterns)


def router(instance: Instance) -> APIRouter:
    routes = APIRouter()

    @routes.get("/.api/search/stream")
    def stream(request: Request) -> Response:
        user = authenticated(instance, request)
        pattern_type = request.query_params.get("t") or "standard"
        if "q" not in request.query_params:
            return PlainTextResponse("no query found\n", 400)
        if pattern_type not in _PATTERN_TYPES:
            return PlainTextResponse(f"unrecognized patternType: {pattern_type}\n", 400)
        events = _events(instance, user, Query(request.query_params["q"], pattern_type))
        return StreamingResponse(events, media_type="text/event-stream")

    return routes


def matches(instance: Instance, user: User, query: Query) -> Iterator[dict[str, Any]]:
    """What a query finds, as the stream writes it."""
    count = query.value("count") or "500"
    left = 10**9 if count == "all" else int(count)
    for repository in repositories.visible(instance, user):
        for match in _in_repository(instance, query, repository):
            if left <= 0:
                return
            left -= 1
            yield match


def _in_repository(instance: Instance, query: Query, repository: sqlite3.Row) -> Iterator[dict[str, Any]]:
    name = repository["name"]
    found = repositories.head(instance, repository)
    if not query.takes("repo", name) or found is None:
        return
    about = {"repositoryID": repository["id"], "repository": name}
    only_repositories = query.value("select") == "repo" or query.value("type") == "repo"
    if not query.patterns and not query.value("file"):
        yield {"type": "repo", **about}
        return
    branch, commit = found
    hits = []
    for path in repositories.files(instance, name, commit):
        if query.takes("file", path):
            if query.patterns and query.finds(repositories.content(instance, name, commit, path)):
                line = {"line": "...", "lineNumber": 0, "offsetAndLengths": [[0, 1]]}
                hits.append({"type": "content", "path": path, "lineMatches": [line]})
            elif not query.patterns or query.finds(path):
                hits.append({"type": "path", "path": path})
    if only_repositories and hits:
        yield {"type": "repo", **about}
        return
    for hit in hits:
        yield {**hit, **about, "branches": [branch.removeprefix("refs/heads/")], "commit": commit}


def _events(instance: Instance, user: User, query: Query) -> Iterator[bytes]:
    if message := query.value("error"):
        yield _event("error", {"message": message})
        yield _event("done", {})
        return
    if title := query.value("alert"):
        yield _event("alert", {"title": title, "description": "see the documentation", "proposedQueries": None})
    yield b": a comment\r\n\r\n"
    yield _event("filters", [{"value": "lang:python", "label": "Python", "count": 1, "kind": "lang"}])
    found = list(matches(instance, user, query))
    # A commit has no place in a batch change; it stands here to be ignored.
    batch: list[dict[str, Any]] = [{"type": "commit", "label": "x", "repository": "github.com/acme/never"}]
    for match in found:
        batch.append(match)
        if len(batch) == 3:
            yield _event("matches", batch)
            batch = []
            yield _event("progress", {"done": False, "matchCount": 0, "durationMs": 1, "skipped": []})
    yield _event("matches", batch)
    if query.value("hangup"):
        return
    skipped = [{"reason": "shard-timeout", "title": "1 timed out", "message": "slow", "severity": "warn"}]
    progress = {"done": True, "matchCount": len(found), "durationMs": 2}
    yield _event("progress", {**progress, "skipped": skipped if query.value("timeout") else []})
    yield _event("done", {})


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
