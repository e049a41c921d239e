"""Repositories at a commit as folders on disk: made once, shared by every workspace, read-only from then on.

checkouts/<key>/               open to nobody else
checkouts/<key>/tree/          the files, 0666 or 0777, folders 0777, with a disposable .git for the steps
checkouts/<key>/size           bytes, for ``prune``
checkouts/<key>.lock           shared by who uses the checkout; its time is the time of the last use
checkouts/<key>.building       not finished; a leftover when nobody holds the builder's lock
checkouts/<key>.builder        held by who builds, and by the git that it started
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from threading import Lock
from types import TracebackType

from blocks.removal import remove_tree
from flows import gitindex
from flows.batches.errors import PermanentError
from flows.gitcommand import MOST_LISTED_BYTES, Bounds, GitFailed, GitTooLarge, git, records
from flows.locks import FileLock

FORM = 1
"""Part of every key: a checkout made by another version of this module is never used."""

RULES = (".gitignore", ".gitattributes")

_OBJECTS = re.compile(r"pack-[0-9a-f]+\.(?:pack|idx|rev|promisor)|[0-9a-f]{38}")
_EARLIEST = 315_619_200  # 1980-01-02: zip files, which steps may make, know no earlier time
"""Of the files, seconds since 1970."""

_CONFIG = """\
[core]
	repositoryFormatVersion = 0
	bare = false
	fileMode = true
	# All that stays the same when a file is copied or its times are rounded: git status need not read any file.
	checkStat = minimal
	trustCtime = false
[gc]
	auto = 0
"""
_SPARSE_CONFIG = """\
	sparseCheckout = true
	sparseCheckoutCone = false
"""


class CheckoutRefused(PermanentError):
    """The repository holds something that git does not put on a disk, or more than this one has room for."""

    def __init__(self, commit: str, reason: str, hint: str = "exclude the repository from the batch spec") -> None:
        super().__init__(commit, reason, hint)
        self.commit, self.reason, self.hint = commit, reason, hint

    def __str__(self) -> str:
        return f"commit {self.commit} cannot be checked out: {self.reason}; {self.hint}"


@dataclass(frozen=True)
class Checkout:
    """A pristine tree on disk, and the repository (a mirror) that holds its commit."""

    tree: Path
    git_dir: Path
    commit: str
    sparse_path: str = ""
    """The only folder that is there, with the ignore and attribute files of the folders above; all of them for ""."""

    def holds(self, path: bytes) -> bool:
        """Whether a path of the commit belongs to this checkout."""
        sparse = os.fsencode(self.sparse_path)
        if not sparse or path.startswith(sparse + b"/"):
            return True
        folder, _, name = path.rpartition(b"/")
        return name in map(str.encode, RULES) and (not folder or (sparse + b"/").startswith(folder + b"/"))


class Checkouts:
    """The checkouts under ``folder``, for threads and processes alike.

    A checkout stays as long as the ``Checkouts`` that gave it is open, or its process lives. A context manager.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = Lock()
        self._held: dict[str, FileLock] = {}

    def __enter__(self) -> Checkouts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let ``prune`` remove what this gave out."""
        with self._mutex:
            for lock in self._held.values():
                lock.release()
            self._held.clear()

    def get(self, git_dir: Path, commit: str, branch: str, *, sparse_path: str = "") -> Checkout:
        """The checkout of ``commit``, on a branch of that name; made if it is not there, else this costs one stat.

        ``git_dir`` holds the commit with its trees and files. ``sparse_path`` is the only folder to check out
        (``onlyFetchWorkspace``); the ignore and attribute files of the folders above it come along.
        Raises CheckoutRefused, GitFailed, GitUnavailable.
        """
        source = _Source(git_dir.absolute(), commit, branch.removeprefix("refs/heads/"), sparse_path.strip("/"))
        key = source.key()
        checkout = Checkout(self._folder / key / "tree", source.git_dir, commit, source.sparse_path)
        with self._mutex:
            held = key in self._held
        if not (held and checkout.tree.is_dir()):
            self._hold(key, source)
        return checkout

    def prune(
        self, *, max_bytes: int | None = None, older_than_seconds: float | None = None, to_free_bytes: int = 0
    ) -> int:
        """Remove checkouts that nobody uses; returns the bytes that they took.

        First those not used for ``older_than_seconds``, then the longest unused until the rest is within ``max_bytes``
        and ``to_free_bytes`` are free. Leftovers of killed builders go in any case.
        """
        unused_since = time.time() - older_than_seconds if older_than_seconds is not None else float("-inf")
        found = self._all()
        freed, total = 0, sum(size or 0 for _, _, size in found)
        for last_use, key, size in found:
            too_much = freed < to_free_bytes or (max_bytes is not None and total - freed > max_bytes)
            if (size is None or last_use < unused_since or too_much) and self._remove(key):
                freed += size or 0
        return freed

    def _hold(self, key: str, source: _Source) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / f"{key}.lock")
        try:
            lock.share()
            if not (self._folder / key / "tree").is_dir():
                self._build_once(key, source, lock)
            os.utime(lock.path)
        except BaseException:
            lock.release()
            raise
        with self._mutex:
            previous = self._held.get(key)
            self._held[key] = lock
        if previous is not None:
            previous.release()

    def _build_once(self, key: str, source: _Source, shared: FileLock) -> None:
        """Build unless somebody else is faster. Builders have a lock of their own: the other one all users share."""
        alone = FileLock(self._folder / f"{key}.builder")
        alone.take()
        try:
            if not (self._folder / key / "tree").is_dir():
                self._build(key, source, (shared, alone))
        finally:
            alone.remove()

    def _build(self, key: str, source: _Source, locks: tuple[FileLock, ...]) -> None:
        building = self._folder / f"{key}.building"
        remove_tree(building)
        building.mkdir(mode=0o700)
        try:
            size = _check_out(source, building / "tree", locks)
            (building / "size").write_text(str(size))
            remove_tree(self._folder / key)
            building.rename(self._folder / key)
        finally:
            remove_tree(building)

    def _all(self) -> list[tuple[float, str, int | None]]:
        """Of every checkout: when it was used last, its key, its bytes (None: not finished). Oldest use first."""
        found = []
        for lock_file in self._folder.glob("*.lock"):
            key = lock_file.stem
            try:
                size = self._folder / key / "size"
                found.append((lock_file.stat().st_mtime, key, int(size.read_text()) if size.exists() else None))
            except FileNotFoundError:
                continue  # removed meanwhile
        return sorted(found, key=lambda one: one[:2])

    def _remove(self, key: str) -> bool:
        lock = FileLock(self._folder / f"{key}.lock")
        if not lock.try_take():
            return False
        building = self._folder / f"{key}.building"
        try:
            remove_tree(building)
            if (self._folder / key).exists():
                (self._folder / key).rename(building)  # so that no half of it can be taken for a checkout
            if not remove_tree(building):
                return False
            (self._folder / f"{key}.builder").unlink(missing_ok=True)
            lock.remove()
            return True
        finally:
            lock.release()


@dataclass(frozen=True)
class _Source:
    """What a checkout is made from."""

    git_dir: Path
    commit: str
    branch: str
    sparse_path: str

    def key(self) -> str:
        parts = [FORM, os.fsdecode(self.git_dir), self.commit, self.branch, self.sparse_path]
        return f"{self.commit[:12]}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]}"


def _check_out(source: _Source, tree: Path, locks: tuple[FileLock, ...]) -> int:
    """Make the tree with its ``.git``; returns the bytes that it takes. A git that outlives us keeps the locks."""
    dot_git = tree / ".git"
    _check_amount(source)
    _make_dot_git(source, dot_git)
    try:
        # The umask is the point: whatever user an image has, it may change every file.
        git(
            ["read-tree", "--reset", "-u", source.commit],
            git_dir=dot_git,
            work_tree=tree,
            cwd=tree,
            umask=0,
            pass_fds=tuple(lock.fileno() for lock in locks),
            bounds=Bounds(tree, memory_bytes=None),
        )
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        place = f"{error.strerror} where checkouts are kept: {tree.parent.parent}"
        hint = "free some space there, or exclude the repository from the batch spec"
        raise CheckoutRefused(source.commit, place, hint) from error
    except GitFailed as error:
        refused = re.search(r"invalid path '.*'|[^\n]*File name too long", error.stderr)
        if refused is None:
            raise
        raise CheckoutRefused(source.commit, refused[0]) from error
    seconds = _time_of(source, dot_git)
    size = _set_times(tree, seconds)
    index = dot_git / "index"
    index.write_bytes(gitindex.with_modification_time(index.read_bytes(), seconds))
    return size


def _check_amount(source: _Source) -> None:
    """Raises CheckoutRefused for a commit that names more files than git should hold, or a disk.

    Ten folders can say ten to the ten. Git goes through all of them for a sparse checkout, too.
    """
    try:
        for _ in records(["ls-tree", "-r", "-z", source.commit], git_dir=source.git_dir, most_bytes=MOST_LISTED_BYTES):
            pass
    except GitTooLarge as error:
        raise CheckoutRefused(source.commit, f"it has too many files: {error}") from error
    except GitFailed as error:
        if error.exit_code != -signal.SIGSEGV:
            raise
        raise CheckoutRefused(source.commit, "its folders are too deep for git") from error


def _make_dot_git(source: _Source, dot_git: Path) -> None:
    """A repository for the steps, without an index: one branch, one commit, no remote."""
    head = f"ref: refs/heads/{source.branch}" if _is_branch_name(source.branch) else source.commit
    files = {
        "HEAD": f"{head}\n",
        "config": _CONFIG,
        # The parents of the commit need not be there.
        "shallow": f"{source.commit}\n",
    }
    if head != source.commit:
        files["packed-refs"] = f"{source.commit} refs/heads/{source.branch}\n"
    if source.sparse_path:
        files["config"] = _CONFIG.replace("[gc]", f"{_SPARSE_CONFIG}[gc]")
        files["info/sparse-checkout"] = "".join(f"{pattern}\n" for pattern in _sparse_patterns(source))
    _make_folder(dot_git.parent)
    for folder in ("", "info", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"):
        _make_folder(dot_git / folder)
    for name, text in files.items():
        (dot_git / name).write_bytes(os.fsencode(text))
        (dot_git / name).chmod(0o666)
    while not _link_objects(source.git_dir / "objects", dot_git / "objects"):
        pass  # the mirror was packed anew meanwhile


def _is_branch_name(name: str) -> bool:
    """By git's rules (git help check-ref-format); what is no name leaves the steps with a detached HEAD."""
    return not re.search(r"^$|^/|//|/$|\.$|\.\.|@\{|(?:^|/)\.|\.lock(?:/|$)|[\x00-\x20\x7f~^:?*\[\\]", name)


def _sparse_patterns(source: _Source) -> Iterator[str]:
    """Patterns of git's non-cone form: the rules of every folder above, and all of the folder itself."""
    if "\n" in source.sparse_path:
        raise CheckoutRefused(source.commit, f"the path of the workspace holds a newline ({source.sparse_path!r})")
    names = [re.sub(r"([\\*?\[\]!# ])", r"\\\1", name) for name in source.sparse_path.split("/")]
    for depth in range(len(names)):
        for rules in RULES:
            yield "/" + "/".join([*names[:depth], rules])
    yield "/" + "/".join(names) + "/"


def _link_objects(mirror: Path, objects: Path) -> bool:
    """Give the steps every object of the mirror; packs never change. False if one vanished meanwhile."""
    for folder in mirror.iterdir():
        if not re.fullmatch(r"pack|[0-9a-f]{2}", folder.name):
            continue
        _make_folder(objects / folder.name)
        for file in folder.iterdir():
            if _OBJECTS.fullmatch(file.name):
                try:
                    _link(file, objects / folder.name / file.name)
                except FileNotFoundError:
                    return False
    return True


def _link(source: Path, target: Path) -> None:
    """A hard link where every user may read it and the file system can, else a copy."""
    if source.stat().st_mode & 0o004:
        try:
            os.link(source, target)
            return
        except FileExistsError:
            return
        except FileNotFoundError:
            raise
        except OSError:
            pass  # another file system, or too many links
    shutil.copyfile(source, target)
    target.chmod(0o444)


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)


def _time_of(source: _Source, dot_git: Path) -> int:
    """The commit's own time: files look the same wherever and whenever they are checked out, and never newer than what
    a step made from them. Seconds since 1970."""
    commit = git(["cat-file", "commit", source.commit], git_dir=dot_git)
    found = re.search(rb"^committer .*> (\d{1,12}) [+-]\d+$", commit.partition(b"\n\n")[0], re.MULTILINE)
    # Not from the future: git takes files as new as its index for possibly changed, and would read them all.
    return max(_EARLIEST, min(int(found[1]) if found else 0, int(time.time()) - 2))


def _set_times(tree: Path, seconds: int) -> int:
    """Give everything but the ``.git`` on top this modification time; returns the bytes that the files take."""
    size = 0
    pending = [os.fspath(tree)]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if folder == os.fspath(tree) and entry.name == ".git":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    os.utime(entry.path, (seconds, seconds), follow_symlinks=False)
        os.utime(folder, (seconds, seconds))
    return size
