"""Where the paths of `mount` lead on this machine. Refuses all that lies, or leads, outside of the spec's folder.

Upstream: src-cli internal/batches/service, handleMount; there only the text of the path is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .errors import Fault, PermanentError
from .spec import BatchSpec


class MountError(PermanentError):
    """A `mount` of the spec cannot be given to a step."""


def resolve_mount(spec_folder: Path, path: str, step: int) -> Path:
    """The absolute path of a file or folder to mount. ``step`` counts from 1. Raises MountError.

    `..` is taken away as text, as upstream does; symbolic links are followed for the judgement, and stay in the result.
    A folder is looked through: what is in it is mounted with it.
    """
    folder = Path(os.path.abspath(spec_folder))
    if "\0" in path:
        raise MountError(f"step {step} mount path contains invalid characters")
    # An absolute path replaces the folder when joined.
    mounted = Path(os.path.abspath(folder / path))
    if not (mounted.is_relative_to(folder) and _leads_into(folder, mounted)):
        raise MountError(f"step {step} mount path is not in the same directory or subdirectory as the batch spec")
    if not os.path.exists(mounted):
        raise MountError(f"step {step} mount path {path} does not exist")
    if not (mounted.is_file() or mounted.is_dir()):
        raise MountError(f"step {step} mount path {path} is neither a file nor a directory")
    for entry, reason in _unfit_entries(folder, mounted):
        raise MountError(f"step {step} mount path {path} cannot be mounted: {entry.relative_to(folder)} {reason}")
    return mounted


def mount_faults(spec: BatchSpec, spec_folder: Path) -> tuple[Fault, ...]:
    """One fault for every `mount` of the spec that cannot be resolved."""
    faults = []
    for index, step in enumerate(spec.steps):
        for position, mount in enumerate(step.mounts):
            try:
                resolve_mount(spec_folder, mount.path, index + 1)
            except MountError as error:
                faults.append(Fault(f"steps.{index}.mount.{position}.path", str(error)))
    return tuple(faults)


def _leads_into(folder: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _unfit_entries(folder: Path, mounted: Path) -> Iterator[tuple[Path, str]]:
    """What a mounted folder must not hold, with the reason. A file that is mounted by itself has no entries."""
    for parent, folders, files in os.walk(mounted):
        for name in sorted(folders + files):
            entry = Path(parent, name)
            if entry.is_symlink():
                if not _leads_into(folder, entry):
                    yield entry, "is a symbolic link out of the batch spec's directory; put a copy in its place"
            elif not (entry.is_file() or entry.is_dir()):
                yield entry, "is neither a file nor a directory"
