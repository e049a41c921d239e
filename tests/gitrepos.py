"""Real git repositories for tests: `make_repository(path, {"a.txt": "a\\n"})`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "2024-01-02T03:04:05Z",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_COMMITTER_DATE": "2024-01-02T03:04:05Z",
}

Content = str | bytes | None
"""Of a file; None removes it."""


def run_git(folder: Path, *args: str) -> str:
    """One git command in ``folder``, with fixed names and dates: commits get the same ids in every run."""
    done = subprocess.run(["git", *args], cwd=folder, env=_ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode == 0, f"git {' '.join(args)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def make_repository(
    path: Path,
    files: Mapping[str, Content] | None = None,
    *,
    branch: str = "main",
    executable: tuple[str, ...] = (),
    symlinks: Mapping[str, str] | None = None,
    bare: bool = False,
) -> str:
    """A repository at ``path`` with one commit of ``files`` on ``branch``; gives the commit.

    Without ``files`` it has no commit at all. ``symlinks`` maps names to targets.
    """
    path.mkdir(parents=True)
    run_git(path, "init", "--quiet", f"--initial-branch={branch}")
    commit = ""
    if files is not None:
        commit = commit_files(path, files, executable=executable, symlinks=symlinks)
    if bare:
        _make_bare(path)
    return commit


def add_bomb(path: Path) -> str:
    """Add a commit of a few hundred bytes to a repository that names ten billion files, without a reference to it."""
    blob = run_git(path, "rev-parse", "HEAD:a")
    entry = f"100644 blob {blob}"
    for _ in range(10):
        listed = "".join(f"{entry}\tf{number}\n" for number in range(10))
        done = subprocess.run(["git", "mktree"], cwd=path, input=listed.encode(), capture_output=True, check=True)
        entry = f"040000 tree {done.stdout.decode().strip()}"
    return run_git(path, "commit-tree", "-m", "bomb", entry.split()[2])


def commit_files(
    path: Path,
    files: Mapping[str, Content],
    *,
    branch: str | None = None,
    executable: tuple[str, ...] = (),
    symlinks: Mapping[str, str] | None = None,
    message: str = "Change",
) -> str:
    """One more commit in the (not bare) repository, on a new ``branch`` if one is named; gives the commit."""
    if branch is not None:
        run_git(path, "checkout", "--quiet", "-B", branch)
    for name, content in files.items():
        _write(path / name, content)
    for name in executable:
        (path / name).chmod(0o755)
    for name, target in (symlinks or {}).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).symlink_to(target)
    run_git(path, "add", "--all", "--force")
    run_git(path, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return run_git(path, "rev-parse", "HEAD")


def _write(file: Path, content: Content) -> None:
    if content is None:
        file.unlink()
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def _make_bare(path: Path) -> None:
    run_git(path, "config", "core.bare", "true")
    for entry in path.iterdir():
        if entry.name == ".git":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    inner = path / ".git"
    for entry in inner.iterdir():
        entry.rename(path / entry.name)
    inner.rmdir()
