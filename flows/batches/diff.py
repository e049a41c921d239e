"""Diffs as git prints them (`git diff --no-prefix --binary`): read, counted, and split by group, as bytes.

Nothing is printed anew. Names carry no prefix: `a/x` is the file x in a real folder a. What is not such a diff is
refused, with the byte offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .errors import PermanentError
from .spec import Group

Kind = Literal["added", "modified", "deleted", "renamed", "copied"]

_START = b"diff --git "
_HEADER = re.compile(
    rb"(old mode|new mode|new file mode|deleted file mode|copy from|copy to|rename from|rename to"
    rb"|similarity index|dissimilarity index|index) ([^\n]*)(?:\n|\Z)"
)
_LABELS = re.compile(rb"--- ([^\n]*)\n\+\+\+ ([^\n]*)(?:\n|\Z)")
# Ten digits are more lines than a diff can have, and fewer than Python's limit for int().
_HUNK = re.compile(rb"@@ -\d{1,10}(?:,(\d{1,10}))? \+\d{1,10}(?:,(\d{1,10}))? @@[^\n]*(?:\n|\Z)")
# Possessive, so that a patch of any size is matched without keeping a way back for every line of it.
_BINARY_PATCH = re.compile(rb"GIT binary patch\n(?:(?:literal|delta) \d+\n(?:[A-Za-z][!-~]+\n)*+\n){1,2}+")
_BINARY_NOTE = re.compile(rb"Binary files [^\n]* differ(?:\n|\Z)")
_QUOTED = re.compile(rb'"((?:[^"\\\n]|\\(?:[abfnrtv"\\]|[0-3][0-7]{2}))*+)"')
_ESCAPE = re.compile(rb"\\([abfnrtv\"\\]|[0-3][0-7]{2})")
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_PLUS, _MINUS, _SPACE, _NEWLINE, _BACKSLASH = b"+- \n\\"


class DiffError(PermanentError):
    """The bytes are no diff as git prints it. ``offset`` is the byte where reading stopped."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(offset, problem)
        self.offset, self.problem = offset, problem

    def __str__(self) -> str:
        return f"malformed diff at byte {self.offset}: {self.problem}"


@dataclass(frozen=True)
class FileDiff:
    """One `diff --git` entry. Names are unquoted, bytes that are not UTF-8 in them surrogateescaped.

    ``old_name`` is None for an addition, ``new_name`` for a deletion.
    """

    kind: Kind
    old_name: str | None
    new_name: str | None
    old_mode: str | None
    """Six octal digits (160000 is a git link); None where there is no such side, or its mode is not printed."""
    new_mode: str | None
    added_lines: int
    deleted_lines: int
    is_binary: bool
    source: bytes = field(repr=False)
    """The whole diff; this entry is ``source[start:end]``, copied only when asked for."""
    start: int
    end: int

    @property
    def path(self) -> str:
        """Where the file is now, or was if it is deleted."""
        name = self.new_name if self.new_name is not None else self.old_name
        assert name is not None, "an entry has a name on one side at least"
        return name

    @property
    def raw(self) -> bytes:
        """The entry's bytes; joining those of all entries gives the diff back."""
        return self.source[self.start : self.end]


class Changes(BaseModel):
    """The paths that a diff changes, in its order; ``renamed`` holds new names.

    A type change (a file becomes a symlink) stands in ``deleted`` and in ``added``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modified: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()


class DiffStat(BaseModel):
    """How much a diff changes. Binary files count as files, not as lines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int = 0
    added_lines: int = 0
    deleted_lines: int = 0


def parse(diff: bytes) -> tuple[FileDiff, ...]:
    """The entries of a diff, in its order; none for an empty one. Raises DiffError, and nothing else."""
    files: list[FileDiff] = []
    position = 0
    while position < len(diff):
        files.append(_read_file(diff, position))
        position = files[-1].end
    return tuple(files)


def changes(diff: bytes | Sequence[FileDiff]) -> Changes:
    """What a diff (its bytes, or what ``parse`` made of them) changes, by upstream's rule. Raises DiffError.

    By the names of the two sides: no new one is a deletion, no old one an addition, equal ones a modification
    (a change of the mode alone too), different ones a rename (a copy too).
    """
    by_list: dict[str, list[str]] = {"modified": [], "added": [], "deleted": [], "renamed": []}
    for file in _files(diff):
        by_list["renamed" if file.kind == "copied" else file.kind].append(file.path)
    return Changes.model_validate(by_list)


def statistics(diff: bytes | Sequence[FileDiff]) -> DiffStat:
    """How much a diff (its bytes, or what ``parse`` made of them) changes. Raises DiffError."""
    files = _files(diff)
    return DiffStat(
        files=len({file.path for file in files}),
        added_lines=sum(file.added_lines for file in files),
        deleted_lines=sum(file.deleted_lines for file in files),
    )


def split_by_group(diff: bytes | Sequence[FileDiff], default_branch: str, groups: Sequence[Group]) -> dict[str, bytes]:
    """The part of a diff for each branch that gets one (never an empty part), in order of first use. Raises DiffError.

    Every file goes to the last group whose folder holds its path (the old one for a deletion), the rest to the
    default branch. The parts are the diff's own bytes, cut at file boundaries.
    """
    folders = [(folder, group.branch) for group in groups if (folder := _folder(group.directory))]
    parts: dict[str, list[FileDiff]] = {}
    files = _files(diff)
    for file in files:
        branch = next((branch for folder, branch in reversed(folders) if file.path.startswith(folder)), default_branch)
        parts.setdefault(branch, []).append(file)
    if len(parts) == 1:  # nearly always, and a diff may be large: no copy of it
        return dict.fromkeys(parts, files[0].source)
    return {branch: b"".join(map(_view, chosen)) for branch, chosen in parts.items()}


def _view(file: FileDiff) -> memoryview:
    return memoryview(file.source)[file.start : file.end]


def _folder(directory: str) -> str:
    """A group's folder as the beginning of a path, "" if it can hold none.

    Only what means "from the root" is taken off in front. (Upstream strips any of `~ . /`: `.github` becomes `github`.)
    """
    name = re.sub(r"\A(?:~?/|\./)+", "", directory).rstrip("/")
    return f"{name}/" if name else ""


def _files(diff: bytes | Sequence[FileDiff]) -> Sequence[FileDiff]:
    return parse(diff) if isinstance(diff, bytes) else diff


def _read_file(diff: bytes, start: int) -> FileDiff:
    if not diff.startswith(_START, start):
        raise DiffError(start, "a file must begin with 'diff --git'")
    position = _line_end(diff, start)
    first_line = diff[start + len(_START) : position].rstrip(b"\n")
    headers, position = _read_headers(diff, position)
    labels, added, deleted, is_binary = None, 0, 0, False
    if match := _LABELS.match(diff, position):
        labels = _label(match[1], match.start(1)), _label(match[2], match.start(2))
        position, added, deleted = _read_hunks(diff, match.end())
    elif match := _BINARY_PATCH.match(diff, position) or _BINARY_NOTE.match(diff, position):
        position, is_binary = match.end(), True
    old_name, new_name = _names(first_line, headers, labels, start)
    return FileDiff(
        kind=_kind(headers, old_name, new_name, start),
        old_name=old_name,
        new_name=new_name,
        old_mode=_mode(headers, b"old mode", b"deleted file mode", absent=old_name is None),
        new_mode=_mode(headers, b"new mode", b"new file mode", absent=new_name is None),
        added_lines=added,
        deleted_lines=deleted,
        is_binary=is_binary,
        source=diff,
        start=start,
        end=position,
    )


def _read_headers(diff: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    headers: dict[bytes, bytes] = {}
    while match := _HEADER.match(diff, position):
        headers[match[1]] = match[2]
        position = match.end()
    return headers, position


def _read_hunks(diff: bytes, position: int) -> tuple[int, int, int]:
    """End, added and deleted lines of the hunks at ``position``: at least one."""
    added = deleted = 0
    start = position
    while match := _HUNK.match(diff, position):
        old, new = (1 if count is None else int(count) for count in match.groups())
        position, plus, minus = _read_hunk(diff, match.end(), old, new)
        added, deleted = added + plus, deleted + minus
    if position == start:
        raise DiffError(start, "a hunk must begin with '@@ -line,count +line,count @@'")
    return position, added, deleted


def _read_hunk(diff: bytes, position: int, old: int, new: int) -> tuple[int, int, int]:
    """End, added and deleted lines of a hunk. Goes by the promised lengths: lines of a hunk may look like headers."""
    size, start, added, deleted = len(diff), position, 0, 0
    while old > 0 or new > 0:
        if position >= size:
            raise DiffError(size, "the diff ends inside a hunk")
        sign = diff[position]
        if sign == _PLUS:
            new, added = new - 1, added + 1
        elif sign == _MINUS:
            old, deleted = old - 1, deleted + 1
        elif sign in (_SPACE, _NEWLINE):  # some tools print an empty context line without its space
            old, new = old - 1, new - 1
        elif sign != _BACKSLASH:
            raise DiffError(position, "a line of a hunk must begin with ' ', '+', '-' or '\\'")
        position = diff.find(b"\n", position) + 1 or size
    if old < 0 or new < 0:
        raise DiffError(start, "a hunk has other lines than its header says")
    if diff.startswith(b"\\ ", position):
        position = _line_end(diff, position)
    return position, added, deleted


def _line_end(diff: bytes, position: int) -> int:
    """Where the next line begins."""
    return diff.find(b"\n", position) + 1 or len(diff)


def _names(
    first_line: bytes, headers: Mapping[bytes, bytes], labels: tuple[str | None, str | None] | None, start: int
) -> tuple[str | None, str | None]:
    for verb in (b"rename", b"copy"):
        old, new = headers.get(verb + b" from"), headers.get(verb + b" to")
        if old is not None and new is not None:
            return _name(old, start), _name(new, start)
        if old is not None or new is not None:
            raise DiffError(start, f"'{verb.decode()} from' and '{verb.decode()} to' belong together")
    if labels:
        return labels
    name = _name_said_twice(first_line, start)
    return None if b"new file mode" in headers else name, None if b"deleted file mode" in headers else name


def _name_said_twice(line: bytes, start: int) -> str:
    """The name in `diff --git NAME NAME`: the only one where nothing else of the entry says it."""
    half, odd = divmod(len(line), 2)
    if not odd or line[half : half + 1] != b" " or line[:half] != line[half + 1 :]:
        raise DiffError(start, "the two names differ, and no line says which is which")
    return _name(line[:half], start)


def _label(text: bytes, offset: int) -> str | None:
    """The name on a `---` or `+++` line; None for /dev/null. A TAB ends names that hold a space."""
    if text == b"/dev/null":
        return None
    return _name(text.partition(b"\t")[0], offset)


def _name(text: bytes, offset: int) -> str:
    """A name as git writes it, unquoted if it is in C quotes."""
    if text.startswith(b'"'):
        match = _QUOTED.fullmatch(text)
        if not match:
            raise DiffError(offset, "a quoted name is malformed")
        text = _ESCAPE.sub(_unescape, match[1])
    if not text:
        raise DiffError(offset, "a name is empty")
    return text.decode("utf-8", "surrogateescape")


def _unescape(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    return bytes([int(escape, 8)]) if len(escape) == 3 else _ESCAPES.get(escape, escape)


def _kind(headers: Iterable[bytes], old_name: str | None, new_name: str | None, start: int) -> Kind:
    """Told by the names; what the headers say has to agree."""
    if old_name is None and new_name is None:
        raise DiffError(start, "a file cannot be added and deleted in one entry")
    if (b"new file mode" in headers and old_name is not None) or (
        b"deleted file mode" in headers and new_name is not None
    ):
        raise DiffError(start, "the file is said to be new or deleted, but has both names")
    if old_name is None:
        return "added"
    if new_name is None:
        return "deleted"
    if b"copy from" in headers:
        return "copied"
    return "modified" if old_name == new_name else "renamed"


def _mode(headers: Mapping[bytes, bytes], changed: bytes, alone: bytes, *, absent: bool) -> str | None:
    """The mode of one side: its own header, or the end of the `index` line if both sides have the same."""
    if absent:
        return None
    mode = headers.get(changed) or headers.get(alone)
    if mode is None:
        mode = headers.get(b"index", b"").partition(b" ")[2]
    return mode.decode("ascii", "replace") or None
