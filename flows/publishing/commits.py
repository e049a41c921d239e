"""The commit of a changeset spec: from the base commit's tree and the changed files, without any checkout.

Everything happens in a bare repository of its own beside the mirror, which lends its objects and is not written to:
what a repository holds (hooks, attributes, filters, settings) has no say. Same input, same commit id.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from .. import gitindex
from ..batches.diff import DiffError, parse
from ..batches.errors import ChangesetError
from ..gitcommand import GitFailed, ObjectMissing, ObjectReader, TreeEntry, git
from ..gitindex import IndexEntry
from ..scratch import scratch_folder
from ..trees import BaseTree, is_folder
from ..untrusted import above

_CONFIG = """\
[core]
	repositoryFormatVersion = 0
	bare = true
	fsync = none
"""
_BRANCH = "refs/heads/changeset"


@dataclass(frozen=True)
class CommitSpec:
    """The one commit of a changeset spec, with the base that it stands on and the time that it carries."""

    base: str
    diff: bytes = field(repr=False)
    message: str
    author_name: str
    author_email: str
    time: datetime


@contextmanager
def bare_repository(parent: Path, mirror: Path | None = None) -> Iterator[Path]:
    """A bare repository that is gone afterwards; it sees the objects of ``mirror``."""
    parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(parent) as folder:
        for name in ("objects/info", "refs/heads"):
            (folder / name).mkdir(parents=True)
        (folder / "HEAD").write_text("ref: refs/heads/none\n")
        (folder / "config").write_text(_CONFIG)
        if mirror is not None:
            (folder / "objects" / "info" / "alternates").write_text(f"{mirror / 'objects'}\n")
            if (mirror / "shallow").exists():
                shutil.copyfile(mirror / "shallow", folder / "shallow")
        yield folder


def build_commit(git_dir: Path, spec: CommitSpec) -> str:
    """Make the commit in the repository at ``git_dir``; returns its id.

    Raises ChangesetError if the diff does not fit its base, or would write what git does not track.
    """
    try:
        with ObjectReader(git_dir) as reader:
            base = BaseTree(reader, spec.base)
            before = _before(base, spec.diff)
            after = _after(git_dir, before, spec.diff)
            _check_places(base, before, after)
    except DiffError as error:
        raise ChangesetError(f"the diff of the changeset spec cannot be read: {error}") from error
    except ObjectMissing as error:
        raise ChangesetError(f"the base commit {spec.base} is not complete: {error}") from error
    git(["fast-import", "--quiet", "--force"], git_dir=git_dir, stdin=_stream(spec, before, after))
    return (git_dir / _BRANCH).read_text().strip()


def _before(base: BaseTree, diff: bytes) -> dict[bytes, IndexEntry]:
    """What the base has at the paths that the diff speaks of."""
    found = {}
    for file in parse(diff):
        for name in (file.old_name, file.new_name):
            if name is None:
                continue
            path = name.encode("utf-8", "surrogateescape")
            entry = base.entry(path)
            if entry is not None and not is_folder(entry):
                found[path] = IndexEntry(path, int(entry.mode, 8), entry.oid)
    return found


def _after(git_dir: Path, before: Mapping[bytes, IndexEntry], diff: bytes) -> dict[bytes, TreeEntry]:
    """What the diff makes of them. `git apply` refuses paths that git does not track (`.git`, `..`)."""
    index = git_dir / "index"
    index.write_bytes(gitindex.written(before.values()))
    try:
        git(
            ["apply", "--cached", "-p0", "--whitespace=nowarn", "--unidiff-zero", "-"],
            git_dir=git_dir,
            index=index,
            stdin=diff,
        )
    except GitFailed as error:
        raise ChangesetError(f"the diff does not apply to its base commit: {error.stderr}") from error
    listed = git(["ls-files", "--stage", "-z"], git_dir=git_dir, index=index)
    found = {}
    for record in filter(None, listed.split(b"\0")):
        header, _, path = record.partition(b"\t")
        mode, oid, _ = header.split(b" ")
        found[path] = TreeEntry(mode, path, oid.decode())
    return found


def _check_places(base: BaseTree, before: Mapping[bytes, IndexEntry], after: Mapping[bytes, TreeEntry]) -> None:
    """A new file must not stand where the base has a folder, nor below one of its files, unless these go."""
    gone = before.keys() - after.keys()
    for path in after.keys() - before.keys():
        for folder in above(path):
            entry = base.entry(folder)
            if entry is not None and not is_folder(entry) and folder not in gone:
                raise _misplaced(path, folder)
        for inside, _ in base.beneath(path):
            if inside not in gone:
                raise _misplaced(path, inside)


def _misplaced(path: bytes, other: bytes) -> ChangesetError:
    return ChangesetError(
        f"the diff adds {path.decode(errors='replace')!r}, but there is {other.decode(errors='replace')!r}"
    )


def _stream(spec: CommitSpec, before: Mapping[bytes, IndexEntry], after: Mapping[bytes, TreeEntry]) -> bytes:
    """The commit as git-fast-import takes it."""
    who = _person(spec.author_name, spec.author_email)
    when = b"%d +0000" % int(spec.time.timestamp())
    message = spec.message.encode("utf-8", "surrogateescape").rstrip(b"\n") + b"\n"
    lines = [
        b"commit " + _BRANCH.encode(),
        b"author " + who + b" " + when,
        b"committer " + who + b" " + when,
        b"data %d" % len(message),
        message + b"from " + spec.base.encode(),
    ]
    lines += [b"D " + _quoted(path) for path in sorted(before.keys() - after.keys())]
    lines += [
        b"M %s %s %s" % (entry.mode, entry.oid.encode(), _quoted(path))
        for path, entry in sorted(after.items())
        if (found := before.get(path)) is None or (found.mode, found.oid) != (int(entry.mode, 8), entry.oid)
    ]
    return b"\n".join(lines) + b"\n"


def _person(name: str, email: str) -> bytes:
    """A name and an address as a commit can have them."""
    for text in (name, email):
        if any(char in "<>\n\r\0" for char in text):
            raise ChangesetError(f"the author {name!r} {email!r} has characters that a commit cannot hold")
    shown = f"{name.strip()} <{email.strip()}>" if name.strip() else f"<{email.strip()}>"
    return shown.encode("utf-8", "surrogateescape")


def _quoted(path: bytes) -> bytes:
    return (
        b'"'
        + b"".join(b"\\%03o" % byte if byte < 32 or byte > 126 or byte in b'"\\' else bytes([byte]) for byte in path)
        + b'"'
    )
