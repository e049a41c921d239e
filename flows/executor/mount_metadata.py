"""Size and time of what steps mount: upstream's cache keys cover these, and not the content.

Upstream: lib/batches/execution/cache, fileMetadataRetriever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..batches.events import go_time
from ..batches.spec import Step
from ..batches.upstream_key import MountMetadata


def mount_metadata(steps: Sequence[Step], folder: Path) -> tuple[MountMetadata, ...]:
    """Of every file that the steps mount out of ``folder``, in their order; one that two steps mount comes twice."""
    return tuple(
        metadata
        for step in steps
        for mount in step.mounts
        for metadata in _of(folder, os.path.normpath(folder / mount.path))
    )


def _of(folder: Path, path: str) -> Iterator[MountMetadata]:
    if os.path.isdir(path):
        for name in sorted(os.listdir(path), key=os.fsencode):
            yield from _of(folder, os.path.join(path, name))
        return
    status = os.stat(path)
    seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
    yield MountMetadata(os.path.relpath(path, folder), status.st_size, go_time(seconds, nanoseconds))
