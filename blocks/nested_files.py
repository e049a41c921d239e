"""Files shown inside of folders that are shown: put together, since nothing can be mounted in a read-only mount."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blocks.runtime import ContainerRefused, ReadOnlyFile

Names = tuple[str, ...]


def together(files: Sequence[ReadOnlyFile], place: Callable[[], Path]) -> list[ReadOnlyFile]:
    """The same files, none of them inside of another one. What is inside hides what the outer folder has there.

    ``place`` gives paths for the copies that this needs. Raises ContainerRefused where it cannot be.
    """
    tops: list[_Top] = []
    for names, file in sorted(((_names(file.target), file) for file in files), key=lambda one: one[0]):
        top = tops[-1] if tops and names[: len(tops[-1].names)] == tops[-1].names else None
        if top is None:
            tops.append(_Top(names, file.source))
        elif names == top.names:
            raise ContainerRefused(f"cannot mount two things at {file.target}; leave one of them out")
        else:
            top.add(names[len(top.names) :], file, place)
    return [ReadOnlyFile(top.source, "/" + "/".join(top.names)) for top in tops]


@dataclass
class _Top:
    """What is mounted at ``names``. ``source`` is the caller's until something is added, then a copy."""

    names: Names
    source: Path
    is_copy: bool = False

    def add(self, inside: Names, file: ReadOnlyFile, place: Callable[[], Path]) -> None:
        if not self.is_copy:
            self.source, self.is_copy = _copied(self.source, place()), True
        at = self.source
        for name in inside[:-1]:
            self._check_folder(at, file)
            at /= name
            if not os.path.lexists(at):
                at.mkdir()
                at.chmod(0o755)
        self._check_folder(at, file)
        _remove(at / inside[-1])
        _copied(file.source, at / inside[-1])

    def _check_folder(self, path: Path, file: ReadOnlyFile) -> None:
        """No link: it could lead out of the copy."""
        if path.is_symlink() or not path.is_dir():
            where = "/".join(("", *self.names, *path.relative_to(self.source).parts))
            raise ContainerRefused(f"cannot mount at {file.target}: {where}, which is mounted too, is no folder")


def _names(target: str) -> Names:
    return tuple(os.path.normpath(target).strip("/").split("/"))


def _copied(source: Path, target: Path) -> Path:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    return target


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
