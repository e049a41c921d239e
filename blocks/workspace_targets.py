"""Where in the workspace a mount target really lies, links followed as the engine follows them. Paths are bytes."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Literal, NamedTuple

WORK = "/work"

_MOST_LINKS = 40


class Entry(NamedTuple):
    """What stands at a path of the workspace; ``target`` of a link."""

    kind: Literal["file", "folder", "link"]
    target: bytes = b""


Lookup = Callable[[bytes], Entry | None]
"""What stands at a path relative to /work, without following links."""


def path_in_workspace(target: str, lookup: Lookup) -> bytes | None:
    """The path below /work that mounting at ``target`` covers; None if that is not below /work."""
    pending = _below_work(target.encode("utf-8", "surrogateescape"))
    if pending is None:
        return None
    reached: list[bytes] = []
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            if not reached:
                return None
            reached.pop()
            continue
        entry = lookup(b"/".join((*reached, name)))
        if entry is None or entry.kind != "link":
            reached.append(name)
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        if entry.target.startswith(b"/"):
            inside, reached = _below_work(entry.target), []
            if inside is None:
                return None
            pending += inside
        else:
            pending += _names(entry.target)
    return b"/".join(reached) or None


def _below_work(path: bytes) -> list[bytes] | None:
    """The names below /work, the first one last; None for a path elsewhere."""
    names = _names(posixpath.normpath(b"/" + path.lstrip(b"/")))
    return names[:-1] if names and names[-1] == WORK[1:].encode() else None


def _names(path: bytes) -> list[bytes]:
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]
