"""Git trees: that of a base commit, read folder by folder where somebody asks; and small ones of our own, written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from flows.gitcommand import ObjectReader, TreeEntry, entries
from flows.gitindex import IndexEntry
from flows.gitpack import NewObjects
from flows.untrusted import above, join, split

_FOLDER = b"40000"
_SUBMODULE = b"160000"
_NOTHING: Mapping[bytes, TreeEntry] = {}


class BaseTree:
    """What a commit holds, by path (bytes). Remembers the folders that it read; for one thread, as its reader is."""

    def __init__(self, reader: ObjectReader, commit: str) -> None:
        """Raises ObjectMissing if the repository has no such commit."""
        self._reader = reader
        self._folders = {b"": self._read(f"{commit}^{{tree}}")}

    def entry(self, path: bytes) -> TreeEntry | None:
        """What stands at ``path``: a file, a link, a submodule or a folder. Raises ObjectMissing."""
        folder, name = split(path)
        return self.folder(folder).get(name)

    def folder(self, path: bytes) -> Mapping[bytes, TreeEntry]:
        """The entries of the folder at ``path``, by name; nothing if there is no folder. Raises ObjectMissing."""
        inside = self._folders.get(path)
        if inside is None:
            inside = self._folders[b""]
            for folder in (*above(path), path):
                if folder not in self._folders:
                    entry = inside.get(split(folder)[1])
                    self._folders[folder] = self._read(entry.oid) if entry and is_folder(entry) else _NOTHING
                inside = self._folders[folder]
        return inside

    def beneath(self, path: bytes) -> Iterator[tuple[bytes, TreeEntry]]:
        """Every path beneath the folder at ``path`` that is no folder. Raises ObjectMissing."""
        pending = [path]
        while pending:
            at = pending.pop()
            for name, entry in self.folder(at).items():
                inside = join(at, name)
                if is_folder(entry):
                    pending.append(inside)
                else:
                    yield inside, entry

    def submodule_above(self, path: bytes) -> tuple[bytes, TreeEntry] | None:
        """The submodule that ``path`` lies in, if it does."""
        for folder in above(path):
            entry = self.entry(folder)
            if entry is None or not is_folder(entry):
                return (folder, entry) if entry is not None and is_submodule(entry) else None
        return None

    def _read(self, tree: str) -> Mapping[bytes, TreeEntry]:
        return {entry.name: entry for entry in entries(self._reader.read(tree)[1])}


def is_folder(entry: TreeEntry) -> bool:
    return entry.mode == _FOLDER


def is_submodule(entry: TreeEntry) -> bool:
    return entry.mode == _SUBMODULE


def make_tree(paths: Iterable[IndexEntry], objects: NewObjects) -> str:
    """Make the trees that hold just these paths, and return the id of the top one.

    What ``git write-tree --missing-ok`` does, without a process for it.
    """
    inside: dict[bytes, list[tuple[bytes, bytes]]] = {b"": []}
    for path, mode, oid, _ in paths:
        for folder in above(path):
            inside.setdefault(folder, [])
        folder, name = split(path)
        inside[folder].append((name, b"%o %s\0" % (mode, name) + bytes.fromhex(oid)))
    top = ""
    for folder in sorted(inside, key=lambda path: (path != b"", path.count(b"/")), reverse=True):
        content = b"".join(record for _, record in sorted(inside[folder]))
        top = objects.add("tree", content)
        if folder:
            holder, name = split(folder)
            record = b"40000 %s\0" % name + bytes.fromhex(top)
            inside[holder].append((name + b"/", record))  # git sorts folders as if they ended so
    return top
