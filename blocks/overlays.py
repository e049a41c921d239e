"""Workspaces as overlays: what is mounted below what, and how a layer is left for those who read it. Needs root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blocks.aside import Aside
from blocks.runtime import ContainerRefused, Layers, ReadOnlyFile
from blocks.workspace_targets import Entry, place_of

UPPER, DELETED, _WORK = "upper", "deleted", "work"

MOUNT_OPTIONS = "volatile,redirect_dir=off,metacopy=off,index=off"
"""volatile: nothing is synced to the disk at the end, a lost layer is made again. The rest keeps layers plain."""

_FORBIDDEN = frozenset(":,\\")
_LOWER_BYTES = 3000
"""Of the 4,096 that all mount options together may have."""
_MOST_LOWERS = 400
_OPAQUE = "trusted.overlay.opaque"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def unmountable(*paths: Path) -> str:
    """Why these paths cannot stand in mount options; empty if they can."""
    bad = next((path for path in paths if _FORBIDDEN & set(str(path))), None)
    return f"the path {str(bad)!r} holds a comma, colon or backslash, which mount options cannot" if bad else ""


def mount_options(lowers: Sequence[Path], layer: Path) -> str:
    """The options of an overlay that keeps its changes in ``layer``; ``lowers`` top first."""
    lower = ":".join(map(str, lowers))
    return f"{MOUNT_OPTIONS},lowerdir={lower},upperdir={layer / UPPER},workdir={layer / _WORK}"


class Overlays:
    """The overlays of one workspace. For one thread at a time."""

    def __init__(self, aside: Aside) -> None:
        """``aside``: on the file system of the layers."""
        self._aside = aside
        self._prepared: set[Path] = set()
        self._flat: Path | None = None
        self._flattened: tuple[Path, ...] = ()

    def begin_layer(self, layer: Path) -> None:
        """Make ``layer`` empty and ready to be mounted."""
        self._aside.empty(layer)
        _open_folder(layer / UPPER)
        (layer / _WORK).mkdir()

    def lowers(self, layers: Layers) -> list[Path]:
        """What to mount below a new layer, top first: few enough for the kernel, however many steps there were."""
        for layer in layers.layers:
            if layer not in self._prepared:
                make_whiteouts(layer)
                self._prepared.add(layer)
        if self._flattened != layers.layers[: len(self._flattened)]:
            self._flat, self._flattened = None, ()
        loose = [layer / UPPER for layer in layers.layers[len(self._flattened) :]]
        if len(loose) > _MOST_LOWERS or sum(len(os.fsencode(path)) + 1 for path in loose) > _LOWER_BYTES:
            self._flatten(loose)
            self._flattened, loose = layers.layers, []
        flat = [self._flat] if self._flat else []
        return [*reversed(loose), *flat, layers.base]

    def mountpoints(self, lowers: Sequence[Path], files: Iterable[ReadOnlyFile]) -> list[Path]:
        """A layer with the places that ``files`` are mounted on, where the workspace has none.

        Without it the engine would make them, in the step's own layer, where they would look like its changes.
        """
        view = Stack(lowers)
        missing = []
        for file in files:
            path = place_of(file.target, view.entry).inside
            if path is not None and view.entry(path) is None:
                missing.append((path, file.source.is_dir()))
        if not missing:
            return []
        top = self._aside.place()
        _open_folder(top)
        for path, is_folder in missing:
            _make_mountpoint(top, path.split(b"/"), is_folder=is_folder)
        return [top]

    def _flatten(self, uppers: Iterable[Path]) -> None:
        if self._flat is None:
            self._flat = self._aside.place()
            _open_folder(self._flat)
        for upper in uppers:
            _merge(upper, self._flat, self._aside)


class Stack:
    """What an overlay of ``lowers`` (top first) would show, looked up path by path."""

    def __init__(self, lowers: Sequence[Path]) -> None:
        self._lowers = [os.fsencode(lower) for lower in lowers]

    def entry(self, path: bytes) -> Entry | None:
        """What stands at ``path``."""
        folders = self._lowers
        found: Entry | None = Entry("folder")
        for name in path.split(b"/"):
            found, folders = _look_up([os.path.join(folder, name) for folder in folders])
        return found


def open_mode(mode: int) -> int:
    """The permissions that a file or folder of ``mode`` has in a layer: open to any user, executable stays that."""
    return 0o777 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o666


def check_size(changed_bytes: int, limit_bytes: int) -> None:
    """Raises ContainerRefused if a step changed more than it may."""
    if changed_bytes > limit_bytes:
        raise ContainerRefused(
            f"the step left {changed_bytes:,} bytes of changed files in its workspace, and may leave {limit_bytes:,}; "
            "remove what is not needed at the end of the step, or raise the runtime's limit (changes). "
            "A sparse file counts as if it were full."
        )


def settle(upper: Path) -> int:
    """Let any user read and write what a step left, and take away setuid bits and capabilities of files.

    Executable stays executable.

    Follows no link, and no tree is too deep. Returns the bytes of all files, sparse or not.
    """
    upper.chmod(0o777)
    fd, size = os.open(upper, _FOLDER), _Sum()
    try:
        waiting = [_settle_folder(fd, size)]
        while waiting:
            down = waiting[-1].pop() if waiting[-1] else None
            if down is None:
                waiting.pop()
            if down is not None or waiting:
                above, fd = fd, os.open(down or "..", _FOLDER, dir_fd=fd)
                os.close(above)
            if down is not None:
                waiting.append(_settle_folder(fd, size))
    finally:
        os.close(fd)
    return size.bytes


def make_whiteouts(layer: Path) -> None:
    """Turn the layer's list ``deleted`` into what an overlay understands. Doing it twice changes nothing."""
    upper = layer / UPPER
    _open_folder(upper)
    try:
        deleted = (layer / DELETED).read_bytes().split(b"\0")
    except FileNotFoundError:
        return
    for path in sorted(filter(None, deleted)):
        _hide(os.fsencode(upper), path)


def _hide(upper: bytes, path: bytes) -> None:
    names = path.split(b"/")
    if any(name in (b"", b".", b"..") for name in names):
        raise ValueError(f"not a path below the workspace: {path!r}")
    for name in names[:-1]:
        upper = os.path.join(upper, name)
        status = _status(upper)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            return  # something else stands above: what was below it is hidden already
        if status is None:
            _open_folder(Path(os.fsdecode(upper)))
    target = os.path.join(upper, names[-1])
    status = _status(target)
    if status is None:
        os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
    elif stat.S_ISDIR(status.st_mode):
        os.setxattr(target, _OPAQUE, b"y")


def _make_mountpoint(top: Path, names: Sequence[bytes], *, is_folder: bool) -> None:
    for name in names if is_folder else names[:-1]:
        top /= os.fsdecode(name)
        _open_folder(top)
    if not is_folder:
        (top / os.fsdecode(names[-1])).touch()


def _look_up(places: Sequence[bytes]) -> tuple[Entry | None, list[bytes]]:
    """What the topmost of ``places`` shows, and the folders that merge there."""
    folders: list[bytes] = []
    for place in places:
        status = _status(place)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return (Entry("folder"), folders) if folders else (_leaf(place, status), [])
        folders.append(place)
        if _is_opaque(place):
            break
    return (Entry("folder") if folders else None), folders


def _leaf(place: bytes, status: os.stat_result) -> Entry | None:
    if stat.S_ISLNK(status.st_mode):
        return Entry("link", os.readlink(place))
    return None if _is_whiteout(status) else Entry("file")


def _merge(upper: Path, flat: Path, aside: Aside) -> None:
    """Put a layer's upper folder on top of what ``flat`` holds, by hard links: nobody writes to a lower layer."""
    pending = [b""]
    while pending:
        folder = pending.pop()
        for path, entry in _scan(os.fsencode(upper), folder):
            target = os.path.join(os.fsencode(flat), path)
            status = _status(target)
            is_folder = entry.is_dir(follow_symlinks=False)
            hides = status is not None and not (is_folder and stat.S_ISDIR(status.st_mode))
            opaque = is_folder and (hides or _is_opaque(entry.path))
            if status is not None and (hides or opaque):
                os.rename(target, aside.place())
            if is_folder:
                _open_folder(Path(os.fsdecode(target)))
                pending.append(path)
            else:
                os.link(entry.path, target, follow_symlinks=False)
            if opaque:
                os.setxattr(target, _OPAQUE, b"y")


def _scan(root: bytes, folder: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    with os.scandir(os.path.join(root, folder)) as entries:
        for entry in entries:
            yield os.path.join(folder, entry.name), entry


@dataclass
class _Sum:
    bytes: int = 0


def _settle_folder(fd: int, size: _Sum) -> list[str]:
    """Settle the entries of a folder; returns the names of the folders among them."""
    folders = []
    with os.scandir(fd) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            mode = status.st_mode
            if stat.S_ISDIR(mode):
                folders.append(entry.name)
            elif stat.S_ISREG(mode):
                size.bytes += status.st_size
            else:
                continue
            if stat.S_ISREG(mode) and mode & 0o111:
                os.chown(entry.name, -1, -1, dir_fd=fd, follow_symlinks=False)  # nobody's: takes capabilities away
            wanted = open_mode(mode)
            if stat.S_IMODE(mode) != wanted:
                os.chmod(entry.name, wanted, dir_fd=fd)
    return folders


def _open_folder(path: Path) -> None:
    """Make a folder that any user may write to, whatever our umask is."""
    path.mkdir(exist_ok=True)
    path.chmod(0o777)


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(path: bytes) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
