"""Artifacts in a folder: whole files or none, safe with many processes at once. No Prefect."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4

from blocks.owners import certainly_dead, current_owner, parse_owner
from blocks.store import (
    ArtifactConflict,
    ArtifactMissing,
    Sink,
    StoreFull,
    StoreRefused,
    StoreTrouble,
    StoreUnavailable,
    Versioned,
    checked_key,
    checked_prefix,
)

# The store's own names begin with a dot, which no key does.
_WRITING, _LOCKS, _CHECK = ".writing", ".locks", ".check"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_CHUNK_BYTES = 1024 * 1024
_LEFTOVER_SECONDS = 24 * 3600

# EFBIG: a limit on file sizes (ulimit -f), which is a kind of no room.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES: "its permissions forbid it; check who owns it",
    errno.EPERM: "its file system forbids it",
    errno.EROFS: "it is read-only",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.ENOTDIR: "a file or a symbolic link stands where a folder is needed",
    errno.ELOOP: "a symbolic link stands where a file is needed; links are not followed",
    errno.EISDIR: "the key is also the folder of other artifacts",
}


class _Written(NamedTuple):
    """A complete file that has no key yet."""

    folder: int
    name: str


@dataclass(frozen=True)
class FolderStore:
    """An ``ArtifactStore`` in a folder of this machine or of a file system that the workers share.

    Files are made with mode 0600 and folders with 0700 (outputs of steps may hold secrets). Content is on the disk
    before its name is, so that a power cut leaves no half artifact. Symbolic links inside are never followed.
    """

    folder: Path

    @property
    def location(self) -> str:
        """The folder, in words."""
        return f"folder {self.folder}"

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write an artifact; with ``if_absent`` only if there is none."""
        return self._put(checked_key(key), BytesIO(content), if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> bool:
        """Write an artifact from a file, in pieces."""
        with path.open("rb") as source:
            return self._put(checked_key(key), source, if_absent=if_absent)

    def get(self, key: str) -> bytes:
        """The content of an artifact."""
        with self._trouble(key), self._open(checked_key(key)) as file:
            return file.read()

    def get_versioned(self, key: str) -> Versioned:
        """The content of an artifact and its version: a hash of the content."""
        content = self.get(key)
        return Versioned(content, hashlib.sha256(content).hexdigest())

    def replace(self, key: str, content: bytes, *, expected: str | None) -> str:
        """Write an artifact if it is still at the version ``expected``."""
        if expected is None:
            if not self.put(key, content, if_absent=True):
                raise ArtifactConflict(key, self.location)
        else:
            with self._trouble(checked_key(key)), self._written(BytesIO(content)) as written, self._lock(key):
                if self._version(key) != expected:
                    raise ArtifactConflict(key, self.location)
                self._name(written, key)
        return hashlib.sha256(content).hexdigest()

    def copy_to(self, key: str, target: Sink) -> None:
        """Write the content to ``target`` in pieces."""
        with self._trouble(key):
            opened = self._open(checked_key(key))
        with opened as file:
            while True:
                with self._trouble(key):  # around the reading only: the target's troubles are the caller's
                    chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    return
                target.write(chunk)

    def exists(self, key: str) -> bool:
        """Whether there is an artifact of this key."""
        with self._trouble(key):
            return self._there(checked_key(key))

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with ``prefix``."""
        folder = checked_prefix(prefix).rpartition("/")[0]
        for key in self._walk(folder.split("/") if folder else []):
            if key.startswith(prefix):
                yield key

    def check(self) -> None:
        """Make the folder if need be; write, link and read a file in it; remove what killed writers left behind."""
        with self._trouble():
            content = uuid4().hex.encode()
            self._put(_CHECK, BytesIO(content), if_absent=False)
            if self._put(_CHECK, BytesIO(content), if_absent=True):
                raise StoreRefused(self.location, "its file system lets one writer overwrite another")
            with self._open(_CHECK) as file:
                file.read()
            self._sweep()

    def _put(self, key: str, source: BinaryIO, *, if_absent: bool) -> bool:
        with self._trouble(key):
            if if_absent and self._there(key):
                return False
            with self._written(source) as written:
                if if_absent:
                    return self._name_if_absent(written, key)
                with self._lock(key):
                    self._name(written, key)
                return True

    @contextmanager
    def _written(self, source: BinaryIO) -> Iterator[_Written]:
        with self._folder([_WRITING], make=True) as folder:
            name = _new_name()
            try:
                descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
                with open(descriptor, "wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)
                    file.flush()
                    os.fsync(descriptor)
                yield _Written(folder, name)
            finally:
                with suppress(FileNotFoundError):  # renamed to its key
                    os.unlink(name, dir_fd=folder)

    def _name(self, written: _Written, key: str) -> None:
        *parents, name = key.split("/")
        with self._folder(parents, make=True) as folder:
            os.replace(written.name, name, src_dir_fd=written.folder, dst_dir_fd=folder)

    def _name_if_absent(self, written: _Written, key: str) -> bool:
        *parents, name = key.split("/")
        with self._folder(parents, make=True) as folder:
            try:
                os.link(written.name, name, src_dir_fd=written.folder, dst_dir_fd=folder)
            except FileExistsError:
                if not self._there(key):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
                return False
            return True

    def _there(self, key: str) -> bool:
        try:
            with self._open(key):
                return True
        except ArtifactMissing:
            return False

    def _version(self, key: str) -> str | None:
        try:
            return self.get_versioned(key).version
        except ArtifactMissing:
            return None

    def _open(self, key: str) -> BinaryIO:
        *parents, name = key.split("/")
        try:
            with self._folder(parents, make=False) as folder:
                # Without O_NONBLOCK, a named pipe left here would hang us.
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            raise ArtifactMissing(key, self.location) from None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return open(descriptor, "rb")
        os.close(descriptor)
        raise ArtifactMissing(key, self.location)

    @contextmanager
    def _folder(self, names: Sequence[str], *, make: bool) -> Iterator[int]:
        """Open a folder below ours name by name, so that no symbolic link on the way is followed, even a new one."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                try:
                    inner = os.open(name, _FOLDER, dir_fd=descriptor)
                except FileNotFoundError:
                    if not make:
                        raise
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=descriptor)
                    inner = os.open(name, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Keep other writers of this key out, of this process and of others. Ends with the process, however it ends."""
        name = hashlib.sha256(key.encode()).hexdigest()[:2]
        with self._folder([_LOCKS], make=True) as folder:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _walk(self, names: Sequence[str]) -> Iterator[str]:
        """The keys below a folder; none if it does not exist."""
        with self._trouble():
            try:
                with self._folder(names, make=False) as folder, os.scandir(folder) as scan:
                    entries = sorted(
                        (entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan if _counts(entry)
                    )
            except (FileNotFoundError, NotADirectoryError):
                return
        for name, is_folder in entries:
            path = [*names, name]
            if path[0].startswith("."):
                continue
            if is_folder:
                yield from self._walk(path)
            else:
                yield "/".join(path)

    def _sweep(self) -> None:
        with self._folder([_WRITING], make=True) as folder, os.scandir(folder) as scan:
            for entry in scan:
                with suppress(FileNotFoundError):
                    if _is_left_over(entry):
                        os.unlink(entry.name, dir_fd=folder)

    @contextmanager
    def _trouble(self, key: str | None = None) -> Iterator[None]:
        """Say what an ``OSError`` means for a store."""
        try:
            yield
        except OSError as error:
            raise self._translated(error, key) from error

    def _translated(self, error: OSError, key: str | None) -> StoreTrouble:
        where = f"{self.location}, key {key!r}" if key else self.location
        if error.errno in _FULL:
            return StoreFull(where, f"no room left ({error.strerror}); free some, or use another folder")
        if error.errno in _REFUSED:
            return StoreRefused(where, f"{error.strerror}: {_REFUSED[error.errno]}")
        return StoreUnavailable(where, f"{error.strerror or error}")


def _new_name() -> str:
    """For a file on its way: whose it is, and a part that nobody else has."""
    return f"{current_owner()}/{uuid4().hex}".replace("/", ",")


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    """Whether a file on its way is a dead process's; of other hosts, which share the folder, only its age tells."""
    owner = parse_owner(entry.name.rpartition(",")[0].replace(",", "/"))
    dead = certainly_dead(owner) if owner else None
    if dead is None:
        return entry.stat(follow_symlinks=False).st_mtime < time.time() - _LEFTOVER_SECONDS
    return dead


def _counts(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
