"""The diff from the layers is the diff that git prints in a full checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.batches.diff import parse
from flows.checkout import Checkout, Checkouts
from flows.diffs import DiffCollector
from flows.layers import State
from tests.edits import Edit, base_edits, base_files, carry_out, commit, edits
from tests.layering import Compared, Overlaid, can_mount_overlays, copy_tree

_GIT = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
}
with tempfile.TemporaryDirectory() as _folder:
    WORKSPACES = [Compared, Overlaid] if can_mount_overlays(Path(_folder)) else [Compared]


class GitRefuses(Exception):
    """The full checkout has no diff either."""


class FullCheckout:
    """Upstream's way: one index of the whole repository, `git add --all` and `git diff` in all of the workspace."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self._checkout, self._git_dir = checkout, folder / "full.git"
        shutil.rmtree(self._git_dir, ignore_errors=True)
        shutil.copytree(checkout.tree / ".git", self._git_dir)

    def diff(self, workspace: Path, copy: Path) -> bytes:
        """After one more `git add --all`. Nested repositories are taken out first: ours keeps their files as files."""
        copy_tree(workspace, copy)
        for git_folder in [*copy.rglob(".git")]:
            shutil.rmtree(git_folder) if git_folder.is_dir() else git_folder.unlink()
        try:
            self._git(copy, "add", "--all", "--sparse")
            return self._git(copy, "diff", "--cached", "--no-prefix", "--binary", self._checkout.commit)
        finally:
            shutil.rmtree(os.fsencode(copy))

    def _git(self, work_tree: Path, *args: str) -> bytes:
        command = ["git", f"--git-dir={self._git_dir}", f"--work-tree={work_tree}", "-c", "core.abbrev=7", *args]
        done = subprocess.run(command, cwd=work_tree, env=_GIT, capture_output=True, check=False)
        if done.returncode:
            raise GitRefuses(done.stderr.decode())
        return done.stdout


@contextmanager
def checked_out(files: dict[bytes, tuple[str, bytes]], *, sparse_path: str = "") -> Iterator[tuple[Checkout, Path]]:
    with tempfile.TemporaryDirectory() as name, Checkouts(Path(name) / "checkouts") as checkouts:
        folder = Path(name)
        sha = commit(folder / "mirror", files)
        yield checkouts.get(folder / "mirror", sha, "main", sparse_path=sparse_path), folder


@pytest.mark.parametrize("kind", WORKSPACES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=st.lists(base_edits, max_size=12), steps=st.lists(st.lists(edits, max_size=6), min_size=1, max_size=3))
def test_the_diff_is_that_of_git_in_a_full_checkout(kind, base: list[Edit], steps: Sequence[list[Edit]]):
    check(kind, base, steps)


@pytest.mark.parametrize("kind", WORKSPACES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=st.lists(base_edits, max_size=12), steps=st.lists(st.lists(edits, max_size=6), min_size=1, max_size=1))
def test_what_a_sparse_checkout_leaves_out_is_not_deleted(kind, base: list[Edit], steps: Sequence[list[Edit]]):
    check(kind, [*base, Edit("write", b"dir/a/file", b"x\n")], steps, sparse_path="dir/a")


def check(
    kind: type[Compared | Overlaid], base: Sequence[Edit], steps: Sequence[Sequence[Edit]], *, sparse_path: str = ""
) -> None:
    """Compare after every step, with one index that goes through all steps as upstream's does.

    Not after a later step changed attributes: upstream keeps what the earlier ones added as it was added then, and
    ours is the diff of one `git add`.
    """
    files = base_files(base)
    with checked_out(files, sparse_path=sparse_path) as (checkout, folder), DiffCollector(checkout, folder / "scratch") as differ:
        workspace, full = kind(checkout.tree, folder / "workspace"), FullCheckout(checkout, folder)
        state, before, attributes = State(checkout.tree), b"", None
        for step in steps:
            with workspace.step() as content:
                for edit in step:
                    carry_out(edit, content)
            state = state.with_layer(workspace.layers[-1])
            with workspace.content() as content:
                if attributes not in (None, attributes := attributes_in(content)):
                    full, before = FullCheckout(checkout, folder), b""
                theirs = full.diff(content, folder / "copy")

            ours = differ.collect(state, parse(before))

            assert ours == theirs, f"ours:\n{ours!r}\ntheirs:\n{theirs!r}"
            before = ours


def attributes_in(content: Path) -> dict[Path, bytes]:
    files = (path for path in content.rglob(".gitattributes") if path.is_file() and not path.is_symlink())
    return {path: path.read_bytes() for path in files}
