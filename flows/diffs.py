"""The unified diff of a workspace against its base commit, from what the layers changed and nothing else.

Byte for byte what ``git add --all`` and ``git diff --cached --no-prefix --binary`` print in a full checkout whose index
is the base commit's. Real git does both, on a small index that holds just the paths that matter (what the base has at
the changed paths, and the ignore and attribute files of the folders above) and a folder of links to the changed files.

That this is exact, also when a step changes ``.gitattributes`` or ``.gitignore``: git re-reads only files whose stat
data changed, so a full ``git add`` leaves an unchanged file alone whatever its attributes became; ignore rules concern
untracked files only, and every untracked file was made by a step.
The one difference to upstream, which adds after every step: attributes that a later step changes apply to what the
earlier ones changed, too, so that the diff depends on the state and not on how it came about.

What a step calls ``.git`` never comes near the host's git, at any depth: the repository of a step is its own business,
and the files of a nested repository are kept as plain files. A submodule of the base stays what it is unless removed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import TracebackType

from blocks.removal import remove_tree
from flows import gitindex
from flows.batches.diff import FileDiff
from flows.checkout import Checkout
from flows.gitcommand import Bounds, GitFailed, GitTooLarge, GitTooSlow, ObjectReader, TreeDiffer, TreeEntry, git
from flows.gitindex import IndexEntry
from flows.gitpack import NewObjects
from flows.layers import Entry, State, hides_base
from flows.plain_changes import is_plain, with_changes
from flows.trees import BaseTree, is_folder, make_tree
from flows.untrusted import LayerRefused, above, join
from flows.work_trees import WorkTree

_RULES = (b".gitignore", b".gitattributes")
_MODULES = b".gitmodules"
_REGULAR = (b"100644", b"100755")
_SUBMODULE = 0o160000
_EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

LARGEST_FILE_BYTES = 512 << 20
"""Of a file in a diff, where git itself begins to call a file big (core.bigFileThreshold): it holds the file, its
compressed form and the base's in memory. A file of very many lines may be too large for it earlier (``Bounds``)."""

LARGEST_DIFF_BYTES = 1023 << 20
"""``git apply`` takes no longer patch (MAX_APPLY_SIZE in its apply.c)."""

# Not in the configuration: they would change what the diff looks like, too. A "big" file goes into one pack with all
# others, which is much faster than a file of its own for each.
_ADD_SETTINGS = ("-c", "core.bigFileThreshold=1", "-c", "core.compression=0", "-c", "core.looseCompression=0")
_DIFF_OPTIONS = ("--no-prefix", "--binary", "--no-ext-diff", "--no-textconv")

_CONFIG = """\
[core]
	repositoryFormatVersion = 0
	bare = false
	fileMode = true
	safeCRLF = false
	fsync = none
"""


class DiffCollector:
    """Takes the diffs of one workspace. A context manager; for one thread. Starts no git process before it needs one.

    ``scratch`` is a folder for temporary files, removed at the end; on the file system of the layers, so that files
    can be linked instead of copied. Git's objects stay in it from one collection to the next: a diff is cumulative, and
    what was written once is not written again.
    """

    def __init__(
        self, checkout: Checkout, scratch: Path, cancel: Event | None = None, bounds: Bounds | None = None
    ) -> None:
        """``cancel`` set: git is ended, and Stopped raised. ``bounds``: other than usual; the files are the diffs."""
        self._checkout = checkout
        self._scratch = scratch
        self._bounds = bounds or Bounds(scratch.parent, file_bytes=LARGEST_DIFF_BYTES)
        self._cancel = cancel
        self._reader: ObjectReader | None = None
        self._tree: BaseTree | None = None
        self._git_dir: Path | None = None
        self._objects = NewObjects()
        self._differ: TreeDiffer | None = None

    def __enter__(self) -> DiffCollector:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._reader is not None:
            self._reader.__exit__(kind, error, at)
        self._leave_differ()
        self._reader = self._tree = self._git_dir = None
        remove_tree(self._scratch)

    def collect(self, state: State, before: Sequence[FileDiff] = ()) -> bytes:
        """The diff of the workspace in this state: see ``collect_to``."""
        out = self._scratch.with_name(self._scratch.name + ".diff")
        try:
            self.collect_to(out, state, before)
            return out.read_bytes()
        finally:
            out.unlink(missing_ok=True)

    def collect_to(self, out: Path, state: State, before: Sequence[FileDiff] = ()) -> None:
        """Write the diff of the workspace in this state to the file ``out``, which may be large.

        ``before`` is the workspace's diff before the last step, as parsed. Upstream runs ``git add --all`` after every
        step, so what an earlier step added stays tracked when a later one makes git ignore it, and what an earlier
        step deleted comes back only where git does not ignore it. Without it the state counts as made by one step.

        Raises LayerRefused for what git does not take or no diff can hold, TemporaryError when git fails, OSError when
        the disk does or is nearly full.
        """
        changed = {path: entry for path, entry in state.entries.items() if not _is_gits_own(path)}
        if not changed:
            out.write_bytes(b"")
            return
        try:
            self._collect_to(out, changed, before)
        except GitTooSlow as error:
            hint = "change fewer files, or leave .gitattributes and .gitignore alone"
            raise LayerRefused(b"", f"git does not get through it ({error}); {hint}") from error
        except GitTooLarge as error:
            raise LayerRefused(b"", f"its diff is too large ({error}), {_too_much(LARGEST_DIFF_BYTES)}") from error

    def _collect_to(self, out: Path, changed: Mapping[bytes, Entry], before: Sequence[FileDiff]) -> None:
        git_dir = self._own_git_dir()
        base = _base_side(self._base_tree(), changed, self._checkout)
        tree = make_tree(base.values(), self._objects)
        tracked = list(_tracked(base, changed, before))
        if not self._checkout.sparse_path and is_plain(base, changed, {entry.path for entry in tracked}):
            now = make_tree(with_changes(base, changed, self._objects), self._objects)
            self._objects.write(git_dir)
            try:
                with out.open("wb") as file:
                    self._tree_differ(git_dir).diff_to(file, tree, now)
            except BaseException:
                self._leave_differ()
                raise
            return
        self._objects.write(git_dir)
        try:
            self._run_git(out, git_dir, base, tree, tracked, changed)
        finally:
            remove_tree(self._scratch / "now")

    def _run_git(
        self,
        out: Path,
        git_dir: Path,
        base: Mapping[bytes, IndexEntry],
        tree: str,
        tracked: Sequence[IndexEntry],
        changed: Mapping[bytes, Entry],
    ) -> None:
        work_tree, index = self._scratch / "now" / "tree", self._scratch / "now" / "index"
        work_tree.mkdir(parents=True)
        index.write_bytes(gitindex.written(tracked))
        unbounded_files = replace(self._bounds, file_bytes=None)

        def run(*args: str, stdin: bytes = b"", bounds: Bounds = unbounded_files) -> bytes:
            expected = (0, 1) if args[0] == "check-ignore" else (0,)
            return git(
                args,
                git_dir=git_dir,
                work_tree=work_tree,
                index=index,
                cwd=work_tree,
                stdin=stdin,
                cancel=self._cancel,
                expected=expected,
                bounds=bounds,
            )

        def ignored(folders: Collection[bytes]) -> list[bytes]:
            # With ./ in front no name looks like an option, or like git's "magic".
            asked = b"".join(b"./" + path + b"\0" for path in folders)
            answers = run("check-ignore", "-z", "--stdin", stdin=asked).split(b"\0")
            return [answer.removeprefix(b"./") for answer in answers]

        with WorkTree(work_tree) as links:
            links.fill(changed, ignored)
            for path in _submodules(base, changed):
                links.make_folder(path)
        _check_files(changed, ignored)
        try:
            run(*_ADD_SETTINGS, "add", "--all")
        except GitTooLarge:
            raise
        except GitFailed as error:
            raise _refusal(error) from error
        run("diff", "--cached", *_DIFF_OPTIONS, f"--output={out}", tree, bounds=self._bounds)

    def _own_git_dir(self) -> Path:
        """The git directory that keeps what is written for this workspace's diffs."""
        if self._git_dir is None:
            remove_tree(self._scratch)  # half of one, made when the disk was full
            self._objects = NewObjects()
            _make_git_dir(self._scratch / "git", self._checkout)
            self._git_dir = self._scratch / "git"
        return self._git_dir

    def _tree_differ(self, git_dir: Path) -> TreeDiffer:
        if self._differ is None:
            options = (*_DIFF_OPTIONS, "--find-renames")
            self._differ = TreeDiffer(git_dir, options, self._bounds, self._cancel).__enter__()
        return self._differ

    def _leave_differ(self) -> None:
        if self._differ is not None:
            self._differ.__exit__(None, None, None)
            self._differ = None

    def _base_tree(self) -> BaseTree:
        if self._reader is None or self._tree is None:
            self._reader = ObjectReader(self._checkout.git_dir).__enter__()
            self._tree = BaseTree(self._reader, self._checkout.commit)
        return self._tree


def _is_gits_own(path: bytes) -> bool:
    return b".git" in path.split(b"/")


def _make_git_dir(git_dir: Path, checkout: Checkout) -> None:
    """A git directory that reads the mirror's objects and keeps what it writes to itself.

    Its HEAD is the base commit: git takes settings of submodules from there, when the files are gone.
    """
    for folder in ("objects/info", "refs"):
        (git_dir / folder).mkdir(parents=True)
    (git_dir / "HEAD").write_text(f"{checkout.commit}\n")
    (git_dir / "config").write_text(_CONFIG)
    (git_dir / "objects/info/alternates").write_bytes(os.fsencode((checkout.git_dir / "objects").absolute()) + b"\n")


def _base_side(tree: BaseTree, changed: Mapping[bytes, Entry], checkout: Checkout) -> dict[bytes, IndexEntry]:
    """What the base commit has at the changed paths, and the rules that it has above them."""
    side: dict[bytes, IndexEntry] = {}
    folders = {b""}
    for path, entry in changed.items():
        folders.update(above(path))
        for at, base in _base_entries(tree, path, entry):
            # Outside a sparse checkout a step deletes nothing, it can only put something in the way.
            side[at] = _index_entry(at, base, skip_worktree=at != path and not checkout.holds(at))
    for at, base in _rules(tree, folders):
        if at not in side:
            side[at] = _index_entry(at, base, skip_worktree=True)
    return side


def _base_entries(tree: BaseTree, path: bytes, entry: Entry) -> Iterator[tuple[bytes, TreeEntry]]:
    base = tree.entry(path)
    if base is None:
        submodule = tree.submodule_above(path)
        if submodule is not None:
            yield submodule
    elif not is_folder(base):
        yield path, base
    elif entry.kind != "folder" or entry.replaces:
        yield from tree.beneath(path)


def _rules(tree: BaseTree, folders: set[bytes]) -> Iterator[tuple[bytes, TreeEntry]]:
    """The base's ignore and attribute files in ``folders``, and its settings of submodules.

    Git takes them from the index where an entry says that the file need not be there. No links: git follows none.
    """
    for folder in folders:
        entries = tree.folder(folder)
        for name in _RULES if folder else (*_RULES, _MODULES):
            if name in entries and entries[name].mode in _REGULAR:
                yield join(folder, name), entries[name]


def _index_entry(path: bytes, entry: TreeEntry, *, skip_worktree: bool) -> IndexEntry:
    mode = int(entry.mode, 8)
    if stat.S_ISREG(mode):  # old trees hold modes like 100664
        mode = 0o100755 if mode & 0o100 else 0o100644
    return IndexEntry(path, mode, entry.oid, skip_worktree)


def _tracked(
    base: Mapping[bytes, IndexEntry], changed: Mapping[bytes, Entry], before: Sequence[FileDiff]
) -> Iterator[IndexEntry]:
    """The index as an earlier ``git add --all`` left it, as far as it says what is tracked."""
    removed = {os.fsencode(file.old_name) for file in before if file.old_name != file.new_name and file.old_name}
    added = {os.fsencode(file.new_name) for file in before if file.old_name != file.new_name and file.new_name}
    # A submodule that became a file is none any more, whatever stands there now.
    gone = {path for path in removed if path not in added or (path in base and base[path].mode == _SUBMODULE)}
    yield from (entry for path, entry in base.items() if path not in gone)
    for path in added - (base.keys() - gone):
        if path in changed and changed[path].kind in ("file", "link"):
            yield IndexEntry(path, 0o100644, _EMPTY_BLOB)  # git reads the file anyway


def _submodules(base: Mapping[bytes, IndexEntry], changed: Mapping[bytes, Entry]) -> Iterator[bytes]:
    """The base's submodules that are in question, and still there."""
    for path, entry in base.items():
        if entry.mode == _SUBMODULE:
            there = changed[path].kind == "folder" if path in changed else not hides_base(changed, path)
            if there:
                yield path


def _check_files(changed: Mapping[bytes, Entry], ignored: Callable[[Collection[bytes]], Collection[bytes]]) -> None:
    """Raises LayerRefused for a file that is too large to be published. Asks git only if there is one."""
    large = [path for path, entry in changed.items() if entry.size > LARGEST_FILE_BYTES]
    published = set(large).difference(ignored(large)) if large else ()
    for path in sorted(published):
        raise LayerRefused(path, f"a file of {changed[path].size:,} bytes, {_too_much(LARGEST_FILE_BYTES)}")


def _too_much(limit: int) -> str:
    return f"and {limit:,} is the most; let git ignore what is not to be published, or remove it in the step"


def _refusal(error: GitFailed) -> LayerRefused:
    path = re.search(r"invalid path '(.*)'$", error.stderr, re.MULTILINE)
    if path is None:
        return LayerRefused(b"", f"git does not take it: {error.stderr}")
    return LayerRefused(os.fsencode(path[1]), "git takes no file of this name; remove or rename it in the step")
