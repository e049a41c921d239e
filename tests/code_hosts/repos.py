"""The bare repositories that a fake code host stands on: what review requests ask git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "gc.auto",
    "GIT_CONFIG_VALUE_1": "0",
    "GIT_AUTHOR_NAME": "The Host",
    "GIT_AUTHOR_EMAIL": "host@example.com",
    "GIT_COMMITTER_NAME": "The Host",
    "GIT_COMMITTER_EMAIL": "host@example.com",
}


def git(folder: Path, *args: str, ok: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(["git", *args], cwd=folder, env=_ENVIRONMENT, capture_output=True, check=False)
    if done.returncode not in ok:
        raise RuntimeError(f"git {' '.join(args)}: {done.stderr.decode()}")
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def branch_commit(folder: Path, branch: str) -> str:
    """The commit that a branch is at; "" if there is no such branch. Reads the file: asked very often."""
    try:
        return (folder / "refs" / "heads" / branch).read_text().strip()
    except OSError:
        return git(folder, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", ok=(0, 1))


def has_new_commits(folder: Path, base: str, head: str) -> bool:
    return git(folder, "rev-list", "--max-count=1", head, f"^{base}") != ""


def merged_tree(folder: Path, base: str, head: str) -> str:
    """The tree of a merge; "" if it conflicts."""
    return git(folder, "merge-tree", "--write-tree", base, head, ok=(0, 1)).split("\n")[0]


def merge(folder: Path, branch: str, head: str, message: str) -> str:
    """Merge a commit into a branch, with a merge commit; gives the commit."""
    base = branch_commit(folder, branch)
    tree = merged_tree(folder, base, head)
    commit = git(folder, "commit-tree", tree, "-p", base, "-p", head, "-m", message)
    git(folder, "update-ref", f"refs/heads/{branch}", commit, base)
    return commit


def fork(source: Path, target: Path) -> None:
    """A fork shares the objects of what it was forked from, as on the real hosts."""
    target.parent.mkdir(parents=True, exist_ok=True)
    git(source, "clone", "--quiet", "--bare", "--shared", str(source), str(target))
    allow_pushes(target)


def allow_pushes(folder: Path) -> None:
    git(folder, "config", "http.receivepack", "true")


def borrow(folder: Path, other: Path) -> None:
    """Let a repository see the objects of its fork: review requests from forks are merged in it."""
    file = folder / "objects" / "info" / "alternates"
    line = f"{other / 'objects'}\n"
    if not file.exists() or line not in file.read_text():
        with file.open("a") as alternates:
            alternates.write(line)
