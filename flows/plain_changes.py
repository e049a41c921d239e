"""Changes that `git add` would take byte for byte, whatever they are: no attributes, no new file that rules could hide.

Most changes are plain. For these we write the objects ourselves, and no git process has to be started for a step.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

from flows.gitindex import IndexEntry
from flows.gitpack import NewObjects
from flows.layers import Entry
from flows.untrusted import Folder

_MOST_PATHS, _MOST_BYTES = 300, 8 << 20
"""Above this, git's own way to add files in one pack is the faster one."""

_LINK = 0o120000
_FILES = (0o100644, 0o100755, _LINK)

# What git may refuse, or takes for its own: anything not ASCII, .git as other systems would spell it.
_ODD = re.compile(rb"[^ -~]|[\\:]|(?:^|/)(?:\.git[ .]*|git~[^/]*)(?:/|$)", re.IGNORECASE)
_RULES = re.compile(rb"(?:^|/)\.git(?:attributes|modules)$", re.IGNORECASE)
_IGNORES = re.compile(rb"(?:^|/)\.gitignore$", re.IGNORECASE)
_DOTTED_LINK = re.compile(rb"(?:^|/)(?:\.?git[^/]*|[^/]*~[^/]*)$", re.IGNORECASE)
"""With short names that a .gitmodules has on other systems: gi7eba~1."""


def is_plain(base: Mapping[bytes, IndexEntry], changed: Mapping[bytes, Entry], tracked: Collection[bytes]) -> bool:
    """Whether ``with_changes`` is what `git add --all` does.

    ``base``: what the base has at the changed paths, and its rules above them. ``tracked``: what need not ask rules.
    """
    present = [path for path, entry in changed.items() if entry.kind in ("file", "link")]
    if len(present) + len(base) > _MOST_PATHS or sum(changed[path].size for path in present) > _MOST_BYTES:
        return False
    if any(entry.mode not in _FILES for entry in base.values()) or any(map(_RULES.search, (*base, *present))):
        return False
    if any(_ODD.search(path) or _IGNORES.search(path) for path in present):
        return False
    if any(changed[path].kind == "link" and _DOTTED_LINK.search(path) for path in present):
        return False
    return all(path in tracked for path in present) or not any(map(_IGNORES.search, base))


def with_changes(
    base: Mapping[bytes, IndexEntry], changed: Mapping[bytes, Entry], objects: NewObjects
) -> list[IndexEntry]:
    """What the workspace has where the base has ``base``. The content of every changed file goes to ``objects``."""
    kept = [entry for path, entry in base.items() if entry.skip_worktree and path not in changed]
    folders: dict[Path, Folder] = {}
    with ExitStack() as stack:
        for path, entry in changed.items():
            if entry.kind in ("file", "link"):
                if entry.upper not in folders:
                    folders[entry.upper] = stack.enter_context(Folder(entry.upper))
                kept.append(_added(folders[entry.upper], path, entry, objects))
    return kept


def _added(folder: Folder, path: bytes, entry: Entry, objects: NewObjects) -> IndexEntry:
    if entry.kind == "link":
        mode, content = _LINK, folder.readlink(path)
    else:
        mode = 0o100755 if entry.mode & stat.S_IXUSR else 0o100644
        with open(folder.open(path), "rb") as file:
            content = file.read()
    return IndexEntry(path, mode, objects.add("blob", content))
