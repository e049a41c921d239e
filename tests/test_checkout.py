"""Checkouts are pristine, shared, safe to race for; workspaces' folders go whatever is in them."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from blocks.removal import remove_tree
from flows.checkout import Checkout, CheckoutRefused, Checkouts
from flows.gitcommand import GitError
from flows.workspace_folders import WorkspaceFolder, WorkspaceInUse, reap_workspaces
from tests.gitrepos import add_bomb, commit_files, make_repository, run_git


@pytest.fixture
def checkouts(tmp_path):
    with Checkouts(tmp_path / "checkouts") as checkouts:
        yield checkouts


def repository(tmp_path: Path, *args, **keywords) -> tuple[Path, str]:
    commit = make_repository(tmp_path / "repository", *args, bare=True, **keywords)
    return tmp_path / "repository", commit


def raw_tree(git_dir: Path, entries: list[tuple[str, bytes, str]]) -> str:
    """A tree object with these entries, however wrong: (mode, name, object)."""
    content = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    args = ["git", "hash-object", "-t", "tree", "--literally", "-w", "--stdin"]
    return subprocess.run(args, cwd=git_dir, input=content, capture_output=True, check=True).stdout.decode().strip()


def status(tree: Path) -> str:
    return run_git(tree, "status", "--porcelain", "--branch")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".git" not in path.relative_to(folder).parts}


def test_any_user_may_change_everything(tmp_path, checkouts):
    git_dir, commit = repository(
        tmp_path, {"a/b.txt": "b", "run": "#!/bin/sh\n"}, executable=("run",), symlinks={"link": "a/b.txt"}
    )

    checkout = checkouts.get(git_dir, commit, "main")

    modes = {
        str(path.relative_to(checkout.tree)): stat.S_IMODE(path.lstat().st_mode) for path in checkout.tree.rglob("*")
    }
    assert (
        modes["a"] == modes["run"] == modes[".git"] == modes[".git/refs/heads"] == modes[".git/objects/pack"] == 0o777
    )
    assert modes["a/b.txt"] == modes[".git/index"] == modes[".git/config"] == modes[".git/HEAD"] == 0o666
    assert stat.S_IMODE(checkout.tree.stat().st_mode) == 0o777
    assert os.readlink(checkout.tree / "link") == "a/b.txt"


def test_the_steps_find_a_clean_repository_on_their_branch(tmp_path, checkouts):
    git_dir, commit = repository(tmp_path, {"a.txt": "a\n", "b/c.txt": "c\n"})

    checkout = checkouts.get(git_dir, commit, "refs/heads/feature/x")

    assert status(checkout.tree) == "## feature/x"
    assert run_git(checkout.tree, "log", "--format=%H %s") == f"{commit} Change"
    assert run_git(checkout.tree, "remote") == ""
    assert run_git(checkout.tree, "fsck") == ""


def test_only_the_base_commit_is_history(tmp_path, checkouts):
    make_repository(tmp_path / "repository", {"a.txt": "1"})
    commit = commit_files(tmp_path / "repository", {"a.txt": "2"})

    checkout = checkouts.get(tmp_path / "repository/.git", commit, "main")

    assert run_git(checkout.tree, "rev-list", "--count", "HEAD") == "1"


def test_a_copy_of_the_tree_is_clean_without_reading_the_files(tmp_path, checkouts):
    """What the copy mode of a runtime does: other inodes, other ctimes."""
    git_dir, commit = repository(tmp_path, {"a.txt": "a\n"})
    checkout = checkouts.get(git_dir, commit, "main")
    subprocess.run(["cp", "-r", "--preserve=timestamps", checkout.tree, tmp_path / "copy"], check=True)
    before = (tmp_path / "copy/.git/index").read_bytes()

    assert run_git(tmp_path / "copy", "diff-files") == ""
    assert (tmp_path / "copy/.git/index").read_bytes() == before


def test_files_are_as_old_as_their_commit(tmp_path, checkouts):
    """So what a step makes from them is always newer, on every machine."""
    git_dir, commit = repository(tmp_path, {"a/b.txt": "b"}, symlinks={"link": "nowhere"})

    tree = checkouts.get(git_dir, commit, "main").tree

    assert {(tree / name).lstat().st_mtime for name in ("a", "a/b.txt", "link")} == {1_704_164_645}


def test_pointers_of_large_files_and_filters_are_left_alone(tmp_path, checkouts):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"
    attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n*.x filter=evil\n*.txt eol=crlf\n"
    git_dir, commit = repository(
        tmp_path, {".gitattributes": attributes, "a.bin": pointer, "b.x": "x", "c.txt": "line\n"}
    )
    run_git(git_dir, "config", "filter.evil.smudge", f"touch {tmp_path}/evil")
    run_git(git_dir, "config", "core.hooksPath", str(tmp_path / "hooks"))

    tree = checkouts.get(git_dir, commit, "main").tree

    assert (tree / "a.bin").read_text() == pointer
    assert (tree / "c.txt").read_bytes() == b"line\r\n"
    assert not (tmp_path / "evil").exists()
    assert status(tree) == "## main"


def test_a_submodule_is_an_empty_folder(tmp_path, checkouts):
    make_repository(tmp_path / "repository", {"a.txt": "a"})
    run_git(tmp_path / "repository", "update-index", "--add", "--cacheinfo", f"160000,{'12' * 20},sub/module")
    run_git(tmp_path / "repository", "commit", "--quiet", "--message=sub")
    commit = run_git(tmp_path / "repository", "rev-parse", "HEAD")

    tree = checkouts.get(tmp_path / "repository/.git", commit, "main").tree

    assert names(tree) == {"a.txt", "sub", "sub/module"}
    assert status(tree) == "## main"


@pytest.mark.parametrize("name", [b".GIT", b".git", b"..", b".", b"git~1"])
def test_names_that_would_reach_git_are_refused(tmp_path, checkouts, name):
    git_dir, _ = repository(tmp_path, {"a": "a"})
    blob = run_git(git_dir, "rev-parse", "main:a")
    inner = raw_tree(git_dir, [("100644", b"config", blob)])
    commit = run_git(git_dir, "commit-tree", "-m", "x", raw_tree(git_dir, [("40000", name, inner)]))

    with pytest.raises((CheckoutRefused, GitError)) as caught:
        checkouts.get(git_dir, commit, "main")

    assert not getattr(caught.value, "temporary", False)
    assert not [path for path in (tmp_path / "checkouts").iterdir() if path.suffix != ".lock"]


def test_a_repository_that_says_more_than_a_disk_can_hold_is_refused(tmp_path, checkouts):
    git_dir, _ = repository(tmp_path, {"a": "x\n"})
    commit = add_bomb(git_dir)

    for path in ("", "f0/f1"):
        with pytest.raises(
            CheckoutRefused, match=r"too many files: git ls-tree .*268,435,456 bytes of paths, or .*; exclude"
        ):
            checkouts.get(git_dir, commit, "main", sparse_path=path)


def test_a_checkout_leaves_a_disk_its_reserve(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", disk], check=True)
    try:
        content = os.urandom(500_000).hex()
        git_dir, commit = repository(tmp_path, {f"{n}": f"{n}{content}" for n in range(100)})
        with Checkouts(disk) as small, pytest.raises(CheckoutRefused, match="No space left on device where checkouts"):
            small.get(git_dir, commit, "main")
        assert not [path for path in disk.rglob("*") if path.stat().st_size]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_nothing_is_written_through_a_link_of_the_repository(tmp_path, checkouts):
    git_dir, _ = repository(tmp_path, {"a": "a"})
    blob = run_git(git_dir, "rev-parse", "main:a")
    target = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        cwd=git_dir,
        input=os.fsencode(tmp_path),
        capture_output=True,
        check=True,
    )
    folder = raw_tree(git_dir, [("100644", b"evil", blob)])
    link = target.stdout.decode().strip()
    tree = raw_tree(git_dir, [("120000", b"x", link), ("40000", b"x", folder)])
    commit = run_git(git_dir, "commit-tree", "-m", "x", tree)

    with suppress(GitError):
        checkouts.get(git_dir, commit, "main")

    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("branch", ["", "../../evil", "a..b", "x\nrefs/heads/y", "a b", "x.lock", "/x", ".x"])
def test_what_is_no_branch_name_leaves_a_detached_head(tmp_path, checkouts, branch):
    git_dir, commit = repository(tmp_path, {"a": "a"})

    tree = checkouts.get(git_dir, commit, branch).tree

    assert (tree / ".git/HEAD").read_text() == f"{commit}\n"
    assert status(tree) == "## HEAD (no branch)"


def test_only_the_workspace_comes_with_the_rules_above_it(tmp_path, checkouts):
    files = {
        ".gitignore": "*.log\n", ".gitattributes": "* text\n", "other.txt": "o", "web/.gitignore": "x\n",
        "web/other.txt": "o", "web/a [1]/file": "f", "web/a [1]/deep/.gitattributes": "", "web/a 1/file": "f",
    }  # fmt: skip
    git_dir, commit = repository(tmp_path, files)

    checkout = checkouts.get(git_dir, commit, "main", sparse_path="web/a [1]/")

    assert names(checkout.tree) == {
        ".gitignore", ".gitattributes", "web", "web/.gitignore", "web/a [1]", "web/a [1]/file", "web/a [1]/deep",
        "web/a [1]/deep/.gitattributes",
    }  # fmt: skip
    assert {name for name in files if checkout.holds(name.encode())} == names(checkout.tree) & files.keys()
    assert status(checkout.tree) == "## main"


def test_a_second_get_is_the_same_checkout(tmp_path, checkouts):
    git_dir, commit = repository(tmp_path, {"a": "a"})

    first = checkouts.get(git_dir, commit, "main")
    inode = first.tree.stat().st_ino

    assert checkouts.get(git_dir, commit, "main") == first
    assert first.tree.stat().st_ino == inode
    assert checkouts.get(git_dir, commit, "other").tree != first.tree


def test_threads_that_race_get_one_checkout(tmp_path, checkouts):
    git_dir, commit = repository(tmp_path, {f"{number}": "x" for number in range(200)})
    found: list[Checkout] = []
    threads = [threading.Thread(target=lambda: found.append(checkouts.get(git_dir, commit, "main"))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len({checkout.tree for checkout in found}) == 1
    assert status(found[0].tree) == "## main"


def test_a_killed_builder_leaves_nothing_half_done(tmp_path, checkouts):
    git_dir, commit = repository(tmp_path, {f"{number}": "x" for number in range(3000)})
    program = (
        "import sys; from pathlib import Path; from flows.checkout import Checkouts; "
        "Checkouts(Path(sys.argv[1])).get(Path(sys.argv[2]), sys.argv[3], 'main')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "checkouts", git_dir, commit], cwd=Path(__file__).parents[1]
    )
    deadline = time.monotonic() + 30
    while not list((tmp_path / "checkouts").glob("*.building/tree/1*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()

    tree = checkouts.get(git_dir, commit, "main").tree

    assert len(names(tree)) == 3000
    assert not list((tmp_path / "checkouts").glob("*.building"))


def test_a_commit_that_is_not_there_leaves_nothing(tmp_path, checkouts):
    git_dir, _ = repository(tmp_path, {"a": "a"})

    with pytest.raises(GitError):
        checkouts.get(git_dir, "12" * 20, "main")

    assert [path.suffix for path in (tmp_path / "checkouts").iterdir()] == [".lock"]


def test_pruning_removes_the_longest_unused_and_spares_what_is_in_use(tmp_path):
    folder = tmp_path / "checkouts"
    git_dir, commit = repository(tmp_path, {"a": "x" * 100_000})
    with Checkouts(folder) as old, Checkouts(folder) as other:
        for age, branch in ((300, "oldest"), (200, "old")):
            tree = old.get(git_dir, commit, branch).tree
            os.utime(tree.parent.with_suffix(".lock"), (time.time() - age, time.time() - age))
        used = other.get(git_dir, commit, "used").tree
        assert other.prune(max_bytes=0) == 0
        old.close()

        freed = other.prune(max_bytes=250_000)

        assert 100_000 <= freed < 150_000
        assert sorted(path.name for path in folder.glob("*/tree/.git/HEAD")) == ["HEAD", "HEAD"]
        assert other.prune(older_than_seconds=250) == 0
        assert other.prune(older_than_seconds=100) == freed
        assert used.is_dir()
        assert {path.name for path in folder.iterdir()} == {used.parent.name, f"{used.parent.name}.lock"}


def test_pruning_removes_leftovers(tmp_path, checkouts):
    git_dir, commit = repository(tmp_path, {"a": "a"})
    key = checkouts.get(git_dir, commit, "main").tree.parent
    checkouts.close()
    key.rename(key.with_suffix(".building"))

    checkouts.prune()

    assert not list((tmp_path / "checkouts").iterdir())


def test_a_workspaces_folder_goes_when_it_is_left(tmp_path):
    with WorkspaceFolder(tmp_path, "run-1") as folder:
        (folder.layer(0) / "upper").mkdir()
        (folder.spool / "stdout").write_text("x")
        with pytest.raises(WorkspaceInUse), WorkspaceFolder(tmp_path, "run-1"):
            pass

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a.lock", "a\n"])
def test_a_workspaces_name_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="not a name"):
        WorkspaceFolder(tmp_path, name)


def test_only_the_folders_of_dead_processes_are_reaped(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from flows.workspace_folders import WorkspaceFolder; "
        "WorkspaceFolder(Path(sys.argv[1]), 'dead').__enter__().layer(0); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=Path(__file__).parents[1], check=False)
    assert (tmp_path / "dead/layers/0").is_dir()

    with WorkspaceFolder(tmp_path, "alive") as alive:
        lives = set((tmp_path / "dead.lock").read_text().split())
        told = []

        assert reap_workspaces(tmp_path, told.append) == ["dead"]
        assert told == [lives]
        assert len(lives) == 1
        assert alive.life not in lives
        assert alive.path.is_dir()

    assert not list(tmp_path.iterdir())


def test_nothing_that_a_step_leaves_blocks_the_removal(tmp_path):
    """Read-only, immutable, append-only, deeper than a path may be, links to outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    top = tmp_path / "top"
    (top / "closed").mkdir(parents=True)
    (top / "closed/file").write_text("x")
    (top / "link").symlink_to(outside)
    os.mkfifo(top / "pipe")
    os.mknod(top / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    (top / "frozen").mkdir()
    (top / "frozen/file").write_text("x")
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=fd)
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    freeze(top / "frozen/file", 0x10)
    freeze(top / "frozen", 0x20)
    (top / "closed").chmod(0)

    assert remove_tree(top)

    assert not top.exists()
    assert (outside / "kept").exists()


def freeze(path: Path, flag: int) -> None:
    """chattr +i (0x10) or +a (0x20)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x40086602, struct.pack("l", flag))
    finally:
        os.close(fd)


def test_a_folder_with_a_mount_is_left_alone(tmp_path):
    (tmp_path / "top/mount").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "top/mount"], check=True)
    try:
        (tmp_path / "top/mount/file").write_text("x")

        assert not remove_tree(tmp_path / "top")

        assert (tmp_path / "top/mount/file").exists()
    finally:
        subprocess.run(["umount", tmp_path / "top/mount"], check=True)
    assert remove_tree(tmp_path / "top")
    assert remove_tree(tmp_path / "top")
