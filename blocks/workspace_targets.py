"""Where a mount target really lies: the workspace's links are followed as the engine follows them. Paths are bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, NamedTuple

from blocks.runtime import ContainerRefused

WORK = "/work"

_WORK_NAME = b"work"
_MOST_LINKS = 40


class Entry(NamedTuple):
    """What stands at a path of the workspace; ``target`` of a link."""

    kind: Literal["file", "folder", "link"]
    target: bytes = b""


Lookup = Callable[[bytes], Entry | None]
"""What stands at a path relative to /work, without following links."""


class Place(NamedTuple):
    """``path``: absolute, in the container; ``inside``: relative to /work, or None if it is not below that."""

    path: bytes
    inside: bytes | None


def place_of(target: str, lookup: Lookup) -> Place:
    """Where mounting at ``target`` puts something. Raises ContainerRefused if a file of the workspace is in the way."""
    pending = _names(os.path.normpath(os.fsencode(target)))
    reached: list[bytes] = []
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            del reached[-1:]
            continue
        reached.append(name)
        inside = _inside(reached)
        entry = lookup(inside) if inside else None
        if entry is None or entry.kind == "folder":
            continue
        if entry.kind == "link":
            links += 1
            if links > _MOST_LINKS:
                raise ContainerRefused(f"cannot mount at {target}: too many links of the workspace on the way")
            reached = [] if entry.target.startswith(b"/") else reached[:-1]
            pending += _names(entry.target)
        elif pending:
            raise ContainerRefused(
                f"cannot mount at {target}: {os.fsdecode(inside or b'')!r} is a file of the workspace"
            )
    return Place(b"/" + b"/".join(reached), _inside(reached))


def _inside(names: list[bytes]) -> bytes | None:
    return b"/".join(names[1:]) if len(names) > 1 and names[0] == _WORK_NAME else None


def _names(path: bytes) -> list[bytes]:
    """The names on the way, the first one last."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]
