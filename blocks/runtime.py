"""Where containers run: the interface, and the values that cross it. No Prefect, no Docker.

A runtime's life in one workspace:

1. ``resolve_image`` turns a reference into what will run: once per reference and run.
2. ``open_room`` makes the place that the steps of one workspace share (network namespace, volumes); closed in any case.
   Within ``sharing`` rooms that follow one another share what is dear to make and clean to use again.
3. ``room.run`` starts one container, copies its streams apart, waits, and removes it, whatever happens.

A container's exit code is a value. Only trouble of the runtime itself is an exception: ``RuntimeUnavailable`` and
``ImageUnavailable`` are worth another try, ``ImageRefused``, ``ContainerRefused`` and ``PullStopped`` are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Literal, Protocol

from blocks.store import Sink

LONGEST_PATH = 3800
"""Bytes. The system's limit is 4,096 with what stands before the path: no tool could read a longer one."""
MOST_ENTRIES, MOST_PATH_BYTES = 1_500_000, 256 << 20
"""Of what one step leaves changed, together: whoever looks at it holds all of the paths."""

_SHOWN_BYTES = 255
"""Of a path in a message."""


def excess(entries: int, path_bytes: int) -> str:
    """What is too much about so many changed files and folders with paths of so many bytes; empty if nothing is."""
    hint = "remove what is not needed at the end of the step"
    if entries > MOST_ENTRIES:
        return f"it left more than {MOST_ENTRIES:,} changed files and folders; {hint}"
    if path_bytes > MOST_PATH_BYTES:
        return f"the paths of what it left changed have more than {MOST_PATH_BYTES:,} bytes together; {hint}"
    return ""


def shown_path(path: bytes) -> str:
    """A path for people, cut between names if it is long: half a name could be half a secret, which nothing masks."""
    if len(path) > _SHOWN_BYTES:
        path = path[:_SHOWN_BYTES].rpartition(b"/")[0] + b"/..."
    return repr(path.decode(errors="replace"))


class RuntimeTrouble(Exception):
    """The runtime could not do what was asked. ``temporary`` says whether another try may work."""

    temporary = True


class RuntimeUnavailable(RuntimeTrouble):
    """The engine does not answer, was restarted, or failed by itself (a full disk among them)."""


class ImageUnavailable(RuntimeTrouble):
    """The image could not be pulled now: registry down, rate limit, network."""


class PullStopped(RuntimeTrouble):
    """The image was not there yet when the run was stopped."""

    temporary = False


class ImageRefused(RuntimeTrouble):
    """The image does not exist, its reference is malformed, its registry denies us, or it has no shell."""

    temporary = False


class ContainerRefused(RuntimeTrouble):
    """The container cannot be as asked for (a bad mount target, a missing network), or left more than it may."""

    temporary = False


@dataclass(frozen=True)
class Image:
    """An image as it will run: ``reference`` as written, ``id`` for the engine, ``digest`` for records and keys."""

    reference: str
    id: str
    digest: str
    shell: str
    """Absolute path of the shell inside: /bin/bash if it is there, else /bin/sh."""
    user: str = ""
    """Who runs in it, as the image says; empty: root."""
    volumes: tuple[str, ...] = ()
    """Folders that are not part of the container, as the image says."""


@dataclass(frozen=True)
class ReadOnlyFile:
    """A file or folder of the host that the container sees read-only at ``target`` (absolute)."""

    source: Path
    target: str


@dataclass(frozen=True)
class Layers:
    """A workspace's content, bottom first: a pristine read-only tree, then one layer folder per step that ran.

    A layer folder holds ``upper/`` (changed entries by path; may hold overlay whiteouts: character devices 0:0, and
    folders with the xattr ``trusted.overlay.opaque=y``) and, where whiteouts cannot be made, ``deleted``: paths that
    the layer removes from what is below it, each ended by a NUL. ``work/`` beside them is the runtime's own.
    """

    base: Path
    layers: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ContainerRun:
    """One container to run. ``command`` replaces entrypoint and command of the image."""

    image: Image
    command: tuple[str, ...]
    working_directory: str
    """Absolute path inside the container, at or below ``/work``."""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[ReadOnlyFile, ...] = ()
    timeout_seconds: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Beside the runtime's own: step, attempt."""


@dataclass(frozen=True)
class Exit:
    """How a container ended. ``code`` is its exit code, also when it was killed."""

    code: int
    oom_killed: bool = False
    timed_out: bool = False
    cancelled: bool = False
    disk_full: bool = False
    """It was killed because it left nearly nothing of the disk that workspaces and streams are on."""

    @property
    def ok(self) -> bool:
        return self.code == 0 and not (self.oom_killed or self.was_stopped)

    @property
    def was_stopped(self) -> bool:
        """Whether the runtime ended it."""
        return self.timed_out or self.cancelled or self.disk_full


WorkspaceMode = Literal["overlay", "copy"]


class Room(Protocol):
    """The place that the steps of one workspace share. Use as a context manager: leaving it removes all of it."""

    def run(
        self,
        container: ContainerRun,
        layers: Layers,
        layer: Path,
        *,
        stdout: Sink,
        stderr: Sink,
        cancel: Event,
    ) -> Exit:
        """Run one container on ``layers`` mounted at /work; leave what it changed as a new layer in ``layer``.

        ``layer`` exists and is empty, or holds the remains of an earlier attempt, which are removed first.
        ``stdout`` and ``stderr`` receive the container's streams byte for byte. ``cancel`` set: the container is
        killed and removed within seconds, and the exit says ``cancelled``.
        """
        ...


class Runtime(Protocol):
    """Where containers run."""

    def resolve_image(self, reference: str, cancel: Event | None = None) -> Image:
        """Find, or pull as the pull policy says, and probe for a shell. Remembered per reference.

        ``cancel`` set: a pull is given up, and raises PullStopped.
        """
        ...

    def workspace_mode(self, folder: Path) -> tuple[WorkspaceMode, str]:
        """How workspaces under ``folder`` will be made, and why: overlay where the engine can, else copy."""
        ...

    def sharing(self, rooms: int, at_once: int) -> AbstractContextManager[None]:
        """While this is open, about ``rooms`` rooms will be opened, ``at_once`` at a time. Leave the rooms first."""
        ...

    def open_room(
        self, name: str, labels: Mapping[str, str], *, folder: Path, image: Image, steps: int
    ) -> AbstractContextManager[Room]:
        """Make the place for one workspace of about ``steps`` steps; ``folder`` is the workspace's own on the host.

        What takes long is begun, and not waited for; ``image`` is that of the first step.
        """
        ...

    def reap(self, over: Collection[str] = ()) -> object:
        """Remove what dead processes left, never what may be a living one's. Returns what was removed, for a log.

        ``over``: rooms with one of these as their label ``life`` are nobody's any more.
        """
        ...

    def fingerprint(self) -> Mapping[str, str]:
        """The settings that can change a step's result (user, network): part of the cache key."""
        ...
