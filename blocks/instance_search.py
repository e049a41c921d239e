"""The stream search API of a Sourcegraph instance: server-sent events in, repositories with paths out. No Prefect.

Upstream: cmd/frontend/internal/search, and batches/service/workspace_resolver.go for what counts in batch changes.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

from blocks.instance_client import Connection

log = logging.getLogger(__name__)

MOST_LINE_BYTES = 64 * 1024 * 1024
"""Of one line of the stream."""

_COUNT = re.compile(r"\bcount:(\d+|all)\b")
_WITH_PATH = frozenset({"content", "path", "symbol"})
_INCOMPLETE = frozenset({"shard-timeout", "backend-missing", "error"})
"""Reasons for skipped results after which another try may find more."""
_NOT_THERE_YET = frozenset({"repository-cloning", "repository-missing"})


def find(connection: Connection, query: str, *, pattern_type: str) -> dict[str, tuple[str, ...]]:
    """The repositories that a query of `on` finds, each with the paths found, sorted. Raises InstanceTrouble.

    Repository, content, path and symbol matches count, others do not. The search is for all results, unless the query
    has a count of its own. ``pattern_type``: standard or keyword, unless the query has one of its own.
    """
    text = query if _COUNT.search(query) else f"{query} count:all"
    parameters = {"q": text, "v": "V3", "t": pattern_type}

    def ask() -> dict[str, tuple[str, ...]]:
        with connection.stream("/.api/search/stream", parameters, "text/event-stream") as pieces:
            return _collected(connection, events(pieces))

    return connection.patiently("search", ask)


def events(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """The events of a stream: their names and data. Lines end in LF, CRLF or CR; comments and other fields are skipped.

    Raises ValueError for a line beyond ``MOST_LINE_BYTES``. An event that the stream's end cuts off is dropped.
    """
    name, data = "", list[str]()
    for line in _lines(pieces):
        if not line:
            if name or data:
                yield name or "message", "\n".join(data)
            name, data = "", []
            continue
        field, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    after_return = False
    for piece in pieces:
        if after_return and piece.startswith(b"\n"):
            piece = piece[1:]
        if not piece:
            continue
        after_return = piece.endswith(b"\r")
        *ended, rest = re.split(rb"\r\n|\n|\r", piece)
        for line in ended:
            yield b"".join((*parts, line))
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > MOST_LINE_BYTES:
            raise ValueError(f"a line of the stream has more than {MOST_LINE_BYTES} bytes")


def _collected(connection: Connection, stream: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    alert = ""
    try:
        for name, data in stream:
            if name == "matches":
                _take(found, json.loads(data))
            elif name == "alert":
                alert = _told(json.loads(data))
            elif name == "error":
                raise connection.refused("search", _message(data))
            elif name == "progress":
                _check_progress(connection, json.loads(data))
            elif name == "done":
                if alert and not found:
                    raise connection.refused("search", alert)
                if alert:
                    log.warning("the instance says about a search: %s", alert)
                return {repository: tuple(sorted(paths)) for repository, paths in sorted(found.items())}
    except (ValueError, TypeError, AttributeError) as error:
        raise connection.refused("search", f"the stream is not what it should be ({error})") from error
    raise connection.unavailable("search", "the stream of results ended before its end")


def _take(found: dict[str, set[str]], matches: Any) -> None:
    for match in matches or ():
        kind = match.get("type")
        if kind == "repo" or kind in _WITH_PATH:
            paths = found.setdefault(match["repository"], set())
            if kind in _WITH_PATH and match.get("path"):
                paths.add(match["path"])


def _check_progress(connection: Connection, progress: Any) -> None:
    for skipped in progress.get("skipped") or ():
        reason, title = skipped.get("reason"), skipped.get("title") or skipped.get("message") or ""
        if progress.get("done") and reason in _INCOMPLETE:
            # A batch change over a part of the repositories would look like one over all of them.
            raise connection.unavailable("search", f"the results are not complete ({reason}: {title})")
        if progress.get("done") and reason in _NOT_THERE_YET:
            log.warning("the instance left repositories out of a search (%s: %s)", reason, title)


def _told(alert: Any) -> str:
    return ": ".join(str(text) for text in (alert.get("title"), alert.get("description")) if text)


def _message(data: str) -> str:
    """What an `error` event says."""
    try:
        content = json.loads(data)
    except ValueError:
        return data
    return str(content.get("message") if isinstance(content, dict) else content)
