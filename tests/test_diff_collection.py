"""The diff from the layers is the diff that git prints in a full checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
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
from flows.gitcommand import Bounds
from flows.layers import UPPER, State
from flows.untrusted import LayerRefused
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
    with (
        checked_out(files, sparse_path=sparse_path) as (checkout, folder),
        DiffCollector(checkout, folder / "scratch") as differ,
    ):
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
                try:
                    theirs = full.diff(content, folder / "copy")
                except GitRefuses:  # a pipe instead of a tracked file, a broken .gitmodules
                    return

            ours = differ.collect(state, parse(before))

            assert ours == theirs, f"ours:\n{ours!r}\ntheirs:\n{theirs!r}"
            before = ours


def attributes_in(content: Path) -> dict[Path, bytes]:
    files = (path for path in content.rglob(".gitattributes") if path.is_file() and not path.is_symlink())
    return {path: path.read_bytes() for path in files}


def diff_of(tmp_path: Path, files: dict[str, str], layers: Sequence[Path], *, sparse_path: str = "") -> list[str]:
    """The diffs after each of the layers, each taken with what was tracked before."""
    base = {name.encode(): ("100644", text.encode()) for name, text in files.items()}
    sha = commit(tmp_path / "mirror", base)
    diffs: list[str] = []
    with (
        Checkouts(tmp_path / "checkouts") as checkouts,
        DiffCollector(
            checkout := checkouts.get(tmp_path / "mirror", sha, "main", sparse_path=sparse_path), tmp_path / "scratch"
        ) as differ,
    ):
        state = State(checkout.tree)
        for layer in layers:
            state = state.with_layer(layer)
            diffs.append(differ.collect(state, parse(diffs[-1].encode() if diffs else b"")).decode())
    assert not (tmp_path / "scratch").exists()
    return diffs


def names(diff: str) -> list[tuple[str, str]]:
    return [(file.kind, file.path) for file in parse(diff.encode())]


def layer_of(folder: Path, files: dict[str, str] | None = None, deleted: Sequence[str] = ()) -> Path:
    (folder / "upper").mkdir(parents=True)
    for name, text in (files or {}).items():
        path = folder / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "deleted").write_text("".join(f"{path}\0" for path in deleted))
    return folder


def test_nothing_changed_needs_no_git(tmp_path):
    (tmp_path / "tree").mkdir()
    with DiffCollector(Checkout(tmp_path / "tree", tmp_path / "no-mirror", "12" * 20), tmp_path / "scratch") as differ:
        assert differ.collect(State(tmp_path / "tree")) == b""


def test_a_moved_folder_is_renames(tmp_path):
    text = "".join(f"line {number}\n" for number in range(20))
    layer = layer_of(tmp_path / "1", {"new/a": text, "new/b": text + "b\n"}, deleted=["old"])

    (diff,) = diff_of(tmp_path, {"old/a": text, "old/b": text + "b\n"}, [layer])

    assert names(diff) == [("renamed", "new/a"), ("renamed", "new/b")]


def test_the_repository_of_the_steps_is_not_in_the_diff_nor_run(tmp_path):
    """A commit made by a step, a filter, a hook, an fsmonitor: the diff is against the base, and nothing runs here."""
    evil = f'[core]\n\tfsmonitor = touch {tmp_path}/evil\n[filter "e"]\n\tclean = touch {tmp_path}/evil\n'
    inside = {
        ".git/config": evil,
        ".git/HEAD": "ref: refs/heads/other\n",
        ".gitattributes": "* filter=e\n",
        "a": "2\n",
        "sub/.git": "gitdir: /etc\n",
    }
    layer = layer_of(tmp_path / "1", inside, deleted=[".git/index"])

    (diff,) = diff_of(tmp_path, {"a": "1\n"}, [layer])

    assert names(diff) == [("added", ".gitattributes"), ("modified", "a")]
    assert not (tmp_path / "evil").exists()


def test_a_nested_repository_is_kept_as_plain_files(tmp_path):
    layer = layer_of(tmp_path / "1", {"lib/a.c": "a\n", "lib/deep/b.c": "b\n"})
    subprocess.run(["git", "init", "--quiet", layer / "upper/lib"], check=True)

    (diff,) = diff_of(tmp_path, {"x": "x\n"}, [layer])

    assert names(diff) == [("added", "lib/a.c"), ("added", "lib/deep/b.c")]


@pytest.mark.parametrize("name", [".GIT", "a/git~1"])
def test_a_name_that_git_refuses_is_a_clear_error(tmp_path, name):
    with pytest.raises(LayerRefused, match=f"{name}.*remove or rename it in the step"):
        diff_of(tmp_path, {"x": "x\n"}, [layer_of(tmp_path / "1", {name: "x"})])


def test_what_a_step_added_stays_when_a_later_one_ignores_it(tmp_path):
    """As upstream: it was tracked by then. What is new by then is ignored."""
    layers = [
        layer_of(tmp_path / "1", {"kept.log": "1\n"}),
        layer_of(tmp_path / "2", {"new.log": "2\n", ".gitignore": "*.log\n"}),
        layer_of(tmp_path / "3", {"kept.log": "3\n"}),
    ]

    diffs = diff_of(tmp_path, {"x": "x\n"}, layers)

    assert names(diffs[1]) == names(diffs[2]) == [("added", ".gitignore"), ("added", "kept.log")]
    assert "+3\n" in diffs[2]


def test_what_a_step_deleted_comes_back_only_where_it_is_not_ignored(tmp_path):
    layers = [
        layer_of(tmp_path / "1", deleted=["a.log", "b"]),
        layer_of(tmp_path / "2", {"a.log": "again\n", "b": "again\n"}),
    ]

    diffs = diff_of(tmp_path, {".gitignore": "*.log\n", "a.log": "1\n", "b": "1\n"}, layers)

    assert names(diffs[1]) == [("deleted", "a.log"), ("modified", "b")]


def test_a_large_ignored_folder_is_not_touched(tmp_path):
    """No file of node_modules is linked; what is beside it, and what has odd names, is in the diff."""
    files = {f"web/node_modules/m{number // 50}/{number}.js": "x" for number in range(600)}
    files |= {f"web/:(glob)x/{number}": f"{number}\n" for number in range(600)}
    layer = layer_of(tmp_path / "1", {**files, "web/.gitignore": "node_modules\n"})

    (diff,) = diff_of(tmp_path, {"x": "x\n"}, [layer])

    assert len(names(diff)) == 601
    assert not any("node_modules/" in path for _, path in names(diff))


def test_a_submodule_stays_unless_it_is_removed(tmp_path):
    base = {b"sub/module": ("160000", b""), b"other": ("160000", b""), b"x": ("100644", b"x\n")}
    layer = layer_of(tmp_path / "1", {"sub/module/file": "x\n"}, deleted=["other"])
    with checked_out(base) as (checkout, folder), DiffCollector(checkout, folder / "scratch") as differ:
        diff = differ.collect(State(checkout.tree).with_layer(layer)).decode()

    assert names(diff) == [("deleted", "other")]


@pytest.mark.parametrize("kind", WORKSPACES)
@pytest.mark.parametrize("first", [Edit("link", b"c.log", b"dir"), Edit("write", b"c.log", b"x\n")])
def test_a_submodule_that_became_a_file_is_none_any_more(kind, first: Edit):
    base = [Edit("write", b".gitignore", b"*.log\n"), Edit("submodule", b"c.log")]
    a_folder_now = [Edit("delete"), Edit("write", b"c.log/f", b"x\n")]  # and .gitignore, the first path, is gone

    check(kind, base, [[first], a_folder_now])


def test_settings_of_submodules_hold_when_their_file_is_removed(tmp_path):
    """Git takes them from HEAD then: what the repository ignores of a submodule, its removal too, stays ignored."""
    settings = b'[submodule "m"]\n\tpath = sub/module\n\turl = https://example.com/m\n\tignore = all\n'
    base = {b"sub/module": ("160000", b""), b".gitmodules": ("100644", settings)}
    layer = layer_of(tmp_path / "1", deleted=[".gitmodules", "sub/module"])
    with checked_out(base) as (checkout, folder), DiffCollector(checkout, folder / "scratch") as differ:
        diff = differ.collect(State(checkout.tree).with_layer(layer)).decode()

    assert names(diff) == [("deleted", ".gitmodules")]


def test_a_file_outside_of_a_sparse_checkout_is_compared_with_the_commit(tmp_path):
    layer = layer_of(tmp_path / "1", {"other/a": "2\n", "other/new": "n\n", "web/b": "2\n", "c.log": "ignored\n"})
    files = {"other/a": "1\n", "other/b": "1\n", "web/b": "1\n", "web/c": "1\n", ".gitignore": "*.log\n"}

    (diff,) = diff_of(tmp_path, files, [layer], sparse_path="web")

    assert names(diff) == [("modified", "other/a"), ("added", "other/new"), ("modified", "web/b")]


def test_many_and_large_files(tmp_path):
    layer = layer_of(tmp_path / "1", {f"d{number % 20}/{number}": f"{number}\n" for number in range(2000)})
    content = os.urandom(5_000_000)
    (layer / "upper/large.bin").write_bytes(content)

    (diff,) = diff_of(tmp_path, {"x": "x\n"}, [layer])

    files = parse(diff.encode())
    assert len(files) == 2001
    assert [file.path for file in files if file.is_binary] == ["large.bin"]


@pytest.mark.parametrize("rules", ["", "*.log\n"])
def test_a_diff_beyond_the_bounds_is_refused_in_words(tmp_path, rules):
    """Taken by git from a work tree, and from two trees: either way nothing hangs, and the next one can be taken."""
    layer = layer_of(tmp_path / "1", {"long": "x" * 79 + "\n"})
    (layer / UPPER / "long").write_text("".join(f"line {number} of many\n" for number in range(200_000)))
    base = {b"x": ("100644", b"x\n"), **({b".gitignore": ("100644", rules.encode())} if rules else {})}
    with (
        checked_out(base) as (checkout, folder),
        DiffCollector(checkout, folder / "scratch", bounds=Bounds(folder, file_bytes=100_000)) as differ,
        pytest.raises(LayerRefused, match=r"its diff is too large \(git diff.* and 1,072,693,248 is the most"),
    ):
        differ.collect(State(checkout.tree).with_layer(layer))


def test_git_is_ended_before_it_takes_the_memory_of_the_machine(tmp_path):
    """It needs some fifty bytes for every line, however short."""
    layer = layer_of(tmp_path / "1", {"x": "\n" * 9_000_000})
    with (
        checked_out({b"x": ("100644", b"x\n")}) as (checkout, folder),
        DiffCollector(checkout, folder / "scratch", bounds=Bounds(folder, 100 << 20)) as differ,
        pytest.raises(LayerRefused, match=r"its diff is too large \(git diff failed .*[Oo]ut of memory"),
    ):
        differ.collect(State(checkout.tree).with_layer(layer))


def test_a_file_that_cannot_be_linked_is_copied(tmp_path):
    layer = layer_of(tmp_path / "1", {"frozen": "x\n"})
    fd = os.open(layer / "upper/frozen", os.O_RDONLY)
    fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0x10))  # chattr +i
    try:
        (diff,) = diff_of(tmp_path, {"x": "x\n"}, [layer])
    finally:
        fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0))
        os.close(fd)

    assert names(diff) == [("added", "frozen")]
