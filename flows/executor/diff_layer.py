"""A diff as a layer: the state of a workspace that somebody else's steps left, to go on from it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from ..batches.diff import FileDiff, parse
from ..batches.errors import PermanentError
from ..checkout import Checkout
from ..gitcommand import GitFailed, git
from ..layers import DELETED, UPPER, check_path
from ..untrusted import Folder


class DiffDoesNotApply(PermanentError):
    """The diff of a cached result does not belong to the commit."""

    def __init__(self, commit: str, problem: str) -> None:
        super().__init__(commit, problem)
        self.commit, self.problem = commit, problem

    def __str__(self) -> str:
        return (
            f"applying the diff of the cached result to {self.commit} failed ({self.problem}); "
            "run the batch spec without its cache"
        )


def make_layer(diff: bytes, checkout: Checkout, folder: Path) -> None:
    """Make ``folder`` a layer that turns the checkout into what ``diff`` (without prefixes) describes.

    Costs the change: only the files that it names are looked at. Raises DiffDoesNotApply, DiffError, LayerRefused.
    """
    upper = folder / UPPER
    _make_folder(upper, upper)
    files = parse(diff)
    before = sorted({name for file in files if (name := _old_path(file))})
    with Folder(checkout.tree) as tree:
        for name in before:
            check_path(name)
            _copy(tree, upper, name)
    try:
        # Outside of any repository: no config, no index. What git makes anybody may change, as in the checkout.
        environment = {"GIT_CEILING_DIRECTORIES": str(folder)}
        git(["apply", "-p0", "--whitespace=nowarn", "-"], cwd=upper, stdin=diff, umask=0, env=environment)
    except GitFailed as error:
        raise DiffDoesNotApply(checkout.commit, error.stderr) from error
    gone = [name for name in before if not os.path.lexists(os.path.join(os.fsencode(upper), name))]
    (folder / DELETED).write_bytes(b"".join(name + b"\0" for name in gone))


def _old_path(file: FileDiff) -> bytes | None:
    return None if file.old_name is None else os.fsencode(file.old_name)


def _copy(tree: Folder, upper: Path, name: bytes) -> None:
    """Copy a file or link of the checkout. Whatever else, or nothing, is there: git says what is wrong."""
    status = tree.status(name)  # follows no link: neither of the repository, nor into it
    target = Path(os.fsdecode(os.path.join(os.fsencode(upper), name)))
    if status is None:
        return
    if stat.S_ISLNK(status.st_mode):
        _make_folder(target.parent, upper)
        os.symlink(tree.readlink(name), os.fsencode(target))
    elif stat.S_ISREG(status.st_mode):
        _make_folder(target.parent, upper)
        with open(tree.open(name), "rb") as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
        target.chmod(stat.S_IMODE(status.st_mode))


def _make_folder(folder: Path, top: Path) -> None:
    """A folder that anybody may write to, with those above it up to ``top``."""
    missing = [folder]
    while missing[-1] != top:
        missing.append(missing[-1].parent)
    for part in reversed(missing):
        part.mkdir(parents=True, exist_ok=True)
        part.chmod(0o777)
