"""What a step sees read-only beside its workspace: its script, its `files`, its `mount`s, as files of the host.

Mounts are copied once per content, so that nobody can change them while a batch change runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocks.runtime import ReadOnlyFile

from .batches.spec import BatchSpec
from .scratch import discard_unused, scratch_folder

SCRIPT_TARGET = "/.batchwright/step"
"""Where the container finds its script: outside the workspace, in a folder that no image has."""


@dataclass(frozen=True)
class StagedMount:
    """A `mount` of the spec as copied: ``digest`` covers names, kinds, executable bits and content."""

    source: Path
    digest: str


def stage_script(folder: Path, script: str) -> ReadOnlyFile:
    """Write the rendered script where the runtime can show it to the container."""
    return ReadOnlyFile(_write(folder / "script", script, 0o755), SCRIPT_TARGET)


def stage_files(folder: Path, files: Mapping[str, str]) -> tuple[ReadOnlyFile, ...]:
    """Write the rendered `files`, readable by any user of the image."""
    return tuple(
        ReadOnlyFile(_write(folder / f"file-{number}", content, 0o644), target)
        for number, (target, content) in enumerate(files.items())
    )


def stage_mounts(spec: BatchSpec, sources: Mapping[str, Path], folder: Path) -> dict[str, StagedMount]:
    """Copy everything that the steps mount into ``folder``, by the path as the spec writes it.

    ``sources`` holds the checked host path of each. A copy of the same content is made once and shared by all runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {mount.path for step in spec.steps for mount in step.mounts}
    return {path: _stage_mount(sources[path], folder) for path in sorted(paths)}


def _stage_mount(source: Path, folder: Path) -> StagedMount:
    with scratch_folder(folder) as scratch:
        copy = scratch / "content"
        _copy(source, copy)
        digest = _digest(copy)
        target = folder / digest
        try:
            os.utime(target)  # its time is that of the last use
        except FileNotFoundError:
            try:
                scratch.rename(target)
            except OSError:
                os.utime(target)  # somebody else was first: their copy is the same
    return StagedMount(target / "content", digest)


def prune_mounts(folder: Path, *, older_than_seconds: float) -> int:
    """Remove the copies in ``folder`` that no run asked for in so many seconds; returns how many.

    Nothing says that a run still shows one: be it longer than any run works.
    """
    unused_since, count = time.time() - older_than_seconds, 0
    for copy in folder.glob("*"):
        with suppress(FileNotFoundError):  # another process may prune, too
            if re.fullmatch("[0-9a-f]{64}", copy.name):
                count += discard_unused(copy, unused_since)
    return count


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(_readable(path.stat().st_mode))


def _readable(mode: int) -> int:
    """The same mode, readable by any user; whoever may run it, everybody may."""
    executable = stat.S_ISDIR(mode) or mode & 0o111
    return 0o755 if executable else 0o644


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in (root, *sorted(root.rglob("*"))):
        name = os.fsencode(path.relative_to(root))
        kind = b"l" if path.is_symlink() else b"d" if path.is_dir() else b"f"
        digest.update(b"%d:%s%s%o" % (len(name), name, kind, 0 if kind == b"l" else path.stat().st_mode & 0o111))
        if kind == b"l":
            content = os.fsencode(os.readlink(path))
            digest.update(b"%d:%s" % (len(content), content))
        elif kind == b"f":
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _write(path: Path, content: str, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    path.chmod(mode)
    return path
