"""Repositories as their users see them: names, default branches, files; from the bare repositories by git."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess

from .accounts import User
from .state import Instance

SUPPORTED = {"github", "gitlab", "bitbucketServer", "bitbucketCloud", "azuredevops", "gerrit", "perforce"}
"""Kinds of code hosts on which changesets can be published."""


def visible(instance: Instance, user: User) -> list[sqlite3.Row]:
    """All that the user may see, by name. A private repository is seen by its readers and by administrators."""
    with instance.transaction() as db:
        rows: list[sqlite3.Row] = db.execute(
            "SELECT * FROM repositories WHERE NOT private OR ? OR EXISTS"
            " (SELECT 1 FROM permissions WHERE repository_id = repositories.id AND user_id = ?) ORDER BY name",
            (user.site_admin, user.id),
        ).fetchall()
    return rows


def head(instance: Instance, repository: sqlite3.Row) -> tuple[str, str] | None:
    """The default branch (`refs/heads/...`) and its commit; None for one that is empty or not cloned."""
    if not repository["cloned"]:
        return None
    name = _git(instance, repository["name"], "symbolic-ref", "HEAD").strip()
    commit = resolve(instance, repository["name"], name)
    return (name, commit) if commit else None


def resolve(instance: Instance, name: str, revision: str) -> str | None:
    """The commit of a branch, a tag, a commit id."""
    if revision.startswith("-"):
        return None
    found = _git(instance, name, "rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}")
    return found.strip() or None


def files(instance: Instance, name: str, commit: str) -> list[str]:
    """The paths of all files."""
    return _git(instance, name, "ls-tree", "-r", "-z", "--name-only", commit).split("\0")[:-1]


def content(instance: Instance, name: str, commit: str, path: str) -> str:
    """A file, as far as it is text."""
    return _git(instance, name, "cat-file", "blob", f"{commit}:{path}")


def root_kind(instance: Instance, name: str, commit: str, path: str) -> str:
    """The kind of object (`blob`, `tree`) at a path; "" for none."""
    return _git(instance, name, "cat-file", "-t", f"{commit}:{path}").strip()


def diff_problem(instance: Instance, diff: bytes) -> str:
    """Why git cannot read a diff; "" if it can."""
    done = subprocess.run(
        ["git", "apply", "--numstat", "-p0", "-"], input=diff, capture_output=True, cwd=instance.folder, check=False
    )
    return done.stderr.decode(errors="replace").strip() if done.returncode else ""


def glob(pattern: str) -> re.Pattern[str]:
    """The globs of `workspaces.in`, as far as the tests use them: `*` and `?`."""
    translated = {"*": ".*", "?": "."}
    return re.compile("".join(translated.get(char, re.escape(char)) for char in pattern.replace("**", "*")), re.S)


def _git(instance: Instance, name: str, *arguments: str) -> str:
    folder = instance.repository_folder(name)
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", f"--git-dir={folder}", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        check=False,
    )
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
