"""How the host runs git: one function and one object reader, on top of GitPython's process runner.

Nothing of the user's or the machine's git setup takes part: no config, hooks, helpers, prompts, inherited variables.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC
from functools import cache
from pathlib import Path
from subprocess import PIPE, Popen, run
from threading import Event, Thread
from types import TracebackType
from typing import IO, NamedTuple, cast
from uuid import uuid4

# GitPython looks for git when it is imported, and would fail there; ours is the clearer error, when git is needed.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from git.cmd import Git
from git.exc import GitCommandNotFound

from blocks.disks import is_nearly_full

from .batches.errors import BatchError, PermanentError, Stopped, TemporaryError
from .batches.masking import Masker

DEFAULT_TIMEOUT_SECONDS = 600.0
MOST_LISTED_BYTES = 256 << 20
"""Of the paths in a commit, as git lists them: about two million files."""
_TICK_SECONDS = 0.2
"""How soon a cancel or a full disk is noticed."""
_PIECE_BYTES = 1 << 16
_LONGEST_RECORD_BYTES = 1 << 20

_CONFIG = Path(__file__).with_name("gitconfig")

# Settings of a repository's own config file must not win over these, so they are given with -c, which is stronger.
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.abbrev=7",
    "core.askPass=",
    "core.sshCommand=",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "protocol.ext.allow=never",
    "safe.directory=*",
    "advice.detachedHead=false",
)

_KEPT = ("GIT_PYTHON_", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH")
"""Of the worker's git variables: whom it trusts, where code hosts have certificates of a company's own authority."""

_ENVIRONMENT = {
    "HOME": os.devnull,  # holds no .gitconfig, .netrc or .config
    "XDG_CONFIG_HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": str(_CONFIG),
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=30",
    "LC_ALL": "C",
    "LANGUAGE": "C",
}

_TEMPORARY = re.compile(
    r"could not resolve host|name or service not known|temporary failure in name resolution"
    r"|connection (?:refused|reset|closed)|timed out|network is unreachable|no route to host|failed to connect"
    r"|couldn't connect to server|empty reply from server|the remote end hung up|early eof|unexpected disconnect"
    r"|rpc failed|gnutls|ssl_"
    r"|returned error: (?:429|5\d\d)|no space left on device|cannot allocate memory|unable to create thread"
    r"|unable to write file|too many (?:open files|requests)|\.lock': file exists",
    re.IGNORECASE,
)
_PERMANENT = re.compile(
    r"authentication failed|could not read (?:username|password)|permission denied|access denied|host key verification"
    r"|returned error: 40[0134]|repository (?:'[^']*' )?not found|does not appear to be a git repository"
    r"|does not exist|is corrupt|bad object",
    re.IGNORECASE,
)
_OUT_OF_MEMORY = re.compile(r"out of memory", re.IGNORECASE)
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")


class GitError(BatchError):
    """A git command that did not do what it should. ``exit_code`` None: it did not end by itself."""

    def __init__(self, command: tuple[str, ...], exit_code: int | None, stderr: str) -> None:
        super().__init__(command, exit_code, stderr)
        self.command, self.exit_code, self.stderr = command, exit_code, stderr

    def __str__(self) -> str:
        how = "" if self.exit_code is None else f" (exit code {self.exit_code})"
        return f"git {' '.join(self.command[:1])} failed{how}: {self.stderr or 'it says nothing'}"


class GitFailed(GitError, PermanentError):
    """Trying again would fail again: wrong credentials, not found, bad arguments."""


class GitUnavailable(GitError, TemporaryError):
    """Trying again may work: network, time limits, server trouble, a full disk."""


class GitTooSlow(GitUnavailable):
    """Git was ended because its time was over."""


class ObjectMissing(PermanentError):
    """The repository holds no such object."""

    def __init__(self, name: str, git_dir: Path) -> None:
        super().__init__(name, git_dir)
        self.name, self.git_dir = name, git_dir

    def __str__(self) -> str:
        return f"no git object {self.name!r} in {self.git_dir}"


class GitTooLarge(GitFailed):
    """Git needed more than its bounds allow."""


@dataclass(frozen=True)
class Bounds:
    """What git may take, where it reads what others wrote: it needs far more memory than that has bytes."""

    disk: Path
    """A folder on the disk that git writes to. With half of the reserve gone, git is ended: an OSError (ENOSPC)."""
    memory_bytes: int | None = 3 << 30
    """Enough for what a diff may hold: files of half a gigabyte, before and after."""
    processor_seconds: int = 1800
    file_bytes: int | None = None
    """Of each file that git writes. None: as much as there is room."""

    def apply(self, pid: int) -> None:
        """Bound a process that has just begun, and its children."""
        with suppress(ProcessLookupError):
            # Of the memory only what is git's own: it may map as much of a repository as it likes.
            for what, most in (
                (resource.RLIMIT_DATA, self.memory_bytes),
                (resource.RLIMIT_CPU, self.processor_seconds),
                (resource.RLIMIT_FSIZE, self.file_bytes),
            ):
                if most is not None:
                    _, hard = resource.prlimit(pid, what)
                    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                    resource.prlimit(pid, what, (most, most))


class TreeEntry(NamedTuple):
    """One entry of a tree object: ``mode`` as git writes it (b"100644", b"40000", ...), ``oid`` in hexadecimal."""

    mode: bytes
    name: bytes
    oid: str


def git(
    args: Sequence[str | bytes],
    *,
    git_dir: Path | None = None,
    work_tree: Path | None = None,
    index: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    umask: int = -1,
    pass_fds: Sequence[int] = (),
    cancel: Event | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    expected: Container[int] = (0,),
    bounds: Bounds | None = None,
) -> bytes:
    """Run one git command and give what it wrote to standard output, byte for byte.

    ``env`` is added to the hardened environment, and so is ``secrets``, whose values are masked in errors.
    ``umask`` -1 is the process's own. The children inherit ``pass_fds`` (a lock that must outlive us, for example).
    Exit codes not in ``expected`` raise GitFailed or GitUnavailable. ``cancel`` set: git is ended, and Stopped raised.
    Beyond ``bounds``: GitTooLarge.
    """
    if cancel is not None and cancel.is_set():
        raise Stopped
    command = _command(args, git_dir, work_tree)
    if bounds is not None and (setpriv := _setpriv()):
        command = [setpriv, "--pdeathsig", "KILL", *command]  # what others wrote must not keep git busy without us
    extra = {**(env or {}), **(secrets or {})}
    if index is not None:
        extra["GIT_INDEX_FILE"] = str(index)
    masker = Masker(secrets or {})
    shown = tuple(_scrub(os.fsdecode(arg), masker) for arg in args)
    with (
        _process(command, shown, cwd=cwd, env=extra, umask=umask, pass_fds=pass_fds, bounds=bounds) as process,
        _Watchdog(process, shown, timeout_seconds, cancel, bounds),
    ):
        stdout, stderr = process.communicate(stdin)
    if process.returncode not in expected:
        raise _error(shown, process.returncode, _scrub(stderr.decode("utf-8", "replace").strip(), masker))
    return stdout


def records(
    args: Sequence[str | bytes],
    *,
    git_dir: Path,
    most_bytes: int,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    expected: Container[int] = (0,),
) -> Iterator[bytes]:
    """The parts, each ended by a NUL, that a git command writes to standard output, as they come.

    A repository of a few hundred bytes can hold more paths than any memory. Raises as ``git`` does, and GitTooLarge
    when there are more than ``most_bytes``.
    """
    shown = tuple(os.fsdecode(arg) for arg in args)
    with _process(_command(args, git_dir, None), shown, env=env or {}) as process:
        said = _Said(_pipe(process.stderr))
        said.start()
        with _Watchdog(process, shown, timeout_seconds):
            begun, begun_bytes, count = list[bytes](), 0, 0
            while piece := _pipe(process.stdout).read(_PIECE_BYTES):
                count += len(piece)
                first, *more = piece.split(b"\0")
                begun.append(first)
                begun_bytes += len(first)
                if count > most_bytes or begun_bytes > _LONGEST_RECORD_BYTES:
                    raise GitTooLarge(shown, None, f"it lists more than {most_bytes:,} bytes of paths, or one too long")
                if more:
                    yield b"".join(begun)
                    *whole, last = more
                    yield from whole
                    begun, begun_bytes = [last], len(last)
            exit_code = process.wait()
        said.join()
    if exit_code not in expected:
        raise _error(shown, exit_code, said.text())


class _Watchdog(Thread):
    """Ends a process of git when its time is over, ``cancel`` is set, or the disk of its ``bounds`` is nearly full.

    A context manager, which raises then: GitTooSlow, Stopped, OSError.
    """

    def __init__(
        self,
        process: Popen[bytes],
        shown: tuple[str, ...],
        seconds: float,
        cancel: Event | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(name="git-watchdog", daemon=True)
        self._process, self._shown, self._seconds = process, shown, seconds
        self._cancel, self._bounds = cancel, bounds
        self._done = Event()
        self._reason: Exception | None = None

    def __enter__(self) -> _Watchdog:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self.join()
        if self._reason is not None and not isinstance(error, GeneratorExit):
            raise self._reason from error

    def run(self) -> None:
        deadline = time.monotonic() + self._seconds
        while not self._done.wait(min(_TICK_SECONDS, max(0.0, deadline - time.monotonic()))):
            if self._cancel is not None and self._cancel.is_set():
                self._reason = Stopped()
            elif self._bounds is not None and is_nearly_full(
                self._bounds.disk, 0.5
            ):  # a step that filled it went before
                self._reason = OSError(ENOSPC, os.strerror(ENOSPC), str(self._bounds.disk))
            elif time.monotonic() >= deadline:
                self._reason = GitTooSlow(self._shown, None, f"it did not end within {self._seconds:g} s")
            if self._reason is not None:
                _kill(self._process)
                return


class _Said(Thread):
    """Reads what git says on standard error, all the time: git would wait for it. Keeps the beginning."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(name="git-stderr", daemon=True)
        self._pipe, self._kept = pipe, b""

    def run(self) -> None:
        with suppress(ValueError, OSError):  # closed by who has had enough
            while piece := self._pipe.read(_PIECE_BYTES):
                self._kept += piece[: _PIECE_BYTES - len(self._kept)]

    def text(self) -> str:
        return self._kept.decode("utf-8", "replace").strip()


class ObjectReader:
    """A running ``git cat-file --batch``: many objects with one process. For one thread; use as a context manager.

    ``alternates`` are object folders to look into beside the repository's own.
    """

    def __init__(self, git_dir: Path, alternates: Sequence[Path] = ()) -> None:
        self._git_dir = git_dir
        self._env = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(map(str, alternates))} if alternates else {}

    def __enter__(self) -> ObjectReader:
        args = ("cat-file", "--batch")
        self._running = _process(_command(args, self._git_dir, None), args, env=self._env)
        self._process = self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        self._running.__exit__(None, None, None)

    def read(self, name: str | bytes) -> tuple[str, bytes]:
        """The kind ("blob", "tree", "commit", "tag") and content of an object: an id, or e.g. ``b"<commit>:<path>"``.

        Raises ObjectMissing; a name with a newline is a ValueError (walk the trees for such a path).
        """
        wanted = os.fsencode(name)
        if b"\n" in wanted:
            raise ValueError(f"an object's name cannot hold a newline: {wanted!r}")
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        with suppress(BrokenPipeError):  # it has ended: so has its output
            stdin.write(wanted + b"\n")
            stdin.flush()
        header = stdout.readline()
        if not header:
            raise GitUnavailable(("cat-file", "--batch"), self._process.poll(), "it ended before its input did")
        match = re.fullmatch(rb"[0-9a-f]+ (\w+) (\d+)\n", header)
        if match is None:
            raise ObjectMissing(wanted.decode("utf-8", "replace"), self._git_dir)
        content = stdout.read(int(match[2]))
        stdout.read(1)
        return match[1].decode(), content


class TreeDiffer:
    """A running ``git diff-tree --stdin``: many diffs with one process. For one thread; use as a context manager."""

    def __init__(self, git_dir: Path, options: Sequence[str], bounds: Bounds, cancel: Event | None = None) -> None:
        self._args = ("diff-tree", "--stdin", "-r", "-p", *options)
        self._git_dir, self._bounds, self._cancel = git_dir, bounds, cancel

    def __enter__(self) -> TreeDiffer:
        command = _command(self._args, self._git_dir, None)
        self._running = _process(command, self._args, cwd=self._git_dir, env={}, bounds=self._bounds)
        self._process = self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        self._running.__exit__(None, None, None)

    def diff_to(self, out: IO[bytes], old: str, new: str) -> None:
        """Write the unified diff between two trees (their ids) to ``out``.

        Raises GitUnavailable, Stopped, GitTooSlow, and GitTooLarge for a diff longer than the bounds' ``file_bytes``.
        Then it is of no use any more.
        """
        # What is no id comes back as it is, when all before it is written. No diff holds a line that is so long a name.
        mark = f"end-{uuid4().hex}\n".encode()
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        try:
            with _Watchdog(self._process, self._args, DEFAULT_TIMEOUT_SECONDS, self._cancel, self._bounds):
                with suppress(BrokenPipeError):  # it has ended: so has its output
                    stdin.write(f"{old} {new}\n".encode() + mark)
                    stdin.flush()
                stdout.readline()  # the two ids
                if not self._copy(stdout, out, mark):
                    said = _pipe(self._process.stderr).read().decode("utf-8", "replace").strip()
                    raise _error(self._args, self._process.wait(), said or "it ended before its input did")
        except BaseException:
            _kill(self._process)  # it would wait for ever for somebody who reads the rest
            raise

    def _copy(self, stdout: IO[bytes], out: IO[bytes], mark: bytes) -> bool:
        """Copy the lines before ``mark``; whether it came."""
        written, most = 0, self._bounds.file_bytes
        for line in stdout:
            if line == mark:
                return True
            written += out.write(line)
            if most is not None and written > most:
                raise GitTooLarge(self._args, None, f"it writes more than {most:,} bytes")
        return False


def entries(tree: bytes) -> list[TreeEntry]:
    """The entries of a tree object's content, in git's order. For repositories with SHA-1 names."""
    found = []
    position = 0
    while position < len(tree):
        mode_end = tree.index(b" ", position)
        name_end = tree.index(b"\0", mode_end)
        oid = tree[name_end + 1 : name_end + 21]
        found.append(TreeEntry(tree[position:mode_end], tree[mode_end + 1 : name_end], oid.hex()))
        position = name_end + 21
    return found


def _command(args: Sequence[str | bytes], git_dir: Path | None, work_tree: Path | None) -> list[str | bytes]:
    command: list[str | bytes] = [*_without_inherited(), "git", "--no-pager"]
    for setting in _SETTINGS:
        command += ["-c", setting]
    if git_dir is not None:
        command.append(f"--git-dir={git_dir}")
    if work_tree is not None:
        command.append(f"--work-tree={work_tree}")
    return [*command, *args]


@cache
def _setpriv() -> str | None:
    """The program that lets another one end with the thread that starts it, if there is one that can."""
    program = shutil.which("setpriv")
    if program is None:
        return None
    done = run([program, "--pdeathsig", "KILL", "true"], capture_output=True, check=False)
    return program if done.returncode == 0 else None


def _without_inherited() -> list[str]:
    """GitPython hands its own environment down and can only add to it: what must not arrive is removed by env(1)."""
    names = sorted(name for name in os.environ if name.startswith("GIT_") and not name.startswith(_KEPT))
    return ["env", *(f"--unset={name}" for name in names if name not in _ENVIRONMENT)] if names else []


@contextmanager
def _process(
    command: list[str | bytes],
    shown: tuple[str, ...],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str],
    umask: int = -1,
    pass_fds: Sequence[int] = (),
    bounds: Bounds | None = None,
) -> Iterator[Popen[bytes]]:
    """A running command with pipes. Leaving ends it, with everything that it started."""
    try:
        running = Git(cwd).execute(
            command,
            istream=PIPE,
            as_process=True,
            env={**_ENVIRONMENT, **env},
            umask=umask,
            pass_fds=pass_fds,
            start_new_session=True,  # so that git's own children (ssh, remote helpers) can be ended with it
        )
    except GitCommandNotFound as error:
        raise GitFailed(shown, None, "git is not installed, or not in PATH: install git 2.34 or newer") from error
    process = cast("Popen[bytes]", running.proc)
    try:
        if bounds is not None:
            bounds.apply(process.pid)
        yield process
    except BaseException:
        _kill(process)
        raise
    finally:
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _kill(process: Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # all three streams are pipes
    return stream


def _scrub(text: str, masker: Masker) -> str:
    return masker.mask_text(_CREDENTIALS_IN_URL.sub("", text))


def _error(shown: tuple[str, ...], exit_code: int, stderr: str) -> GitError:
    if exit_code == -signal.SIGXFSZ or _OUT_OF_MEMORY.search(stderr):
        return GitTooLarge(shown, exit_code, stderr or "what it writes is longer than it may be")
    if exit_code == -signal.SIGXCPU:
        return GitTooSlow(shown, exit_code, "it takes too much of a processor's time")
    if exit_code == -signal.SIGSEGV:  # of a tree too deep for it, for one
        return GitFailed(shown, exit_code, stderr or "it crashed")
    killed = exit_code < 0
    temporary = killed or (_TEMPORARY.search(stderr) and not _PERMANENT.search(stderr))
    return (GitUnavailable if temporary else GitFailed)(shown, exit_code, stderr)
