"""One step in its container: the workspace's layers, the streams, the diff afterwards. Decides nothing of results."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Protocol

from blocks.blobs import Blob, Blobs
from blocks.runtime import ContainerRun, Exit, Image, Layers, ReadOnlyFile, Room, Runtime, RuntimeTrouble

from .batches.diff import FileDiff, parse
from .batches.errors import BatchError
from .batches.masking import Masker, MaskingWriter, find_in_stream
from .batches.steps import RenderedStep
from .batches.workspaces import Workspace
from .checkout import Checkout, Checkouts
from .diffs import DiffCollector
from .git_in_steps import command_of
from .layer_secrets import secrets_in_layer
from .layers import Entry, State, merge, state_digest
from .packing import pack, unpack
from .staging import StagedMount, stage_files, stage_script
from .untrusted import LayerRefused
from .workspace_folders import WorkspaceFolder


@dataclass(frozen=True)
class Plan:
    """A step as it will run, and the key of its result. Digests are hex sha256, by place in the container."""

    rendered: RenderedStep
    image: Image
    key: str
    state_digest: str
    """Of what the steps before changed."""
    working_directory: str
    file_digests: Mapping[str, str]
    mount_digests: Mapping[str, str]


@dataclass(frozen=True)
class Ran:
    """What a container left: masked streams; and if it ended well, the cumulative diff and the step's packed layer."""

    exit: Exit
    stdout: Path
    stderr: Path
    diff: Path | None = None
    layer: Path | None = None
    """None if the step changed nothing, more than may be kept, what cannot be, or wrote a secret to a file."""
    state_digest: str = ""
    leaked_secret: str = ""
    """The name of a secret that stands in what the step changed."""
    refusal: str = ""
    """Why what the step changed cannot be taken."""


@dataclass(frozen=True)
class LayerOf:
    """The layer of an executed step. ``blob`` None: it is only here, too large for the store."""

    index: int
    blob: Blob | None


@dataclass(frozen=True)
class Bench:
    """What step runs need from the host: where things lie, and with what containers run."""

    run_id: str
    home: Path
    runtime: Runtime
    blobs: Blobs
    checkouts: Checkouts
    mirrors: Mapping[str, Path]
    """Repository -> the bare repository that holds its commits."""
    mounts: Mapping[str, StagedMount] = field(default_factory=dict)
    """`mount` path as the spec writes it -> its copy."""
    layer_bytes: int = 1 << 30
    """A layer larger than this is not stored."""
    cancel: Event = field(default_factory=Event)
    afterwards: Callable[[Callable[[], None]], None] = lambda work: work()
    """Does what nobody has to wait for, such as removing what a workspace leaves; some time before the run ends."""


class DiskTrouble(BatchError):
    """The worker could not read or write its own files."""

    def __init__(self, folder: Path, number: int | None, problem: str) -> None:
        super().__init__(folder, number, problem)
        self.folder, self.number, self.problem = folder, number, problem

    @property
    def is_full(self) -> bool:
        return self.number in (errno.ENOSPC, errno.EDQUOT)

    @property
    def temporary(self) -> bool:
        """A full disk is not: another try would only fill it again."""
        return not self.is_full

    def __str__(self) -> str:
        what = "free some space there, or let the step write less" if self.is_full else "look at that disk"
        return f"the worker cannot keep what the step wrote in {self.folder}: {self.problem}; {what}"


class Watcher(Protocol):
    """Takes a stream of a step as it comes, masked. Closed when the stream ends."""

    def write(self, data: bytes, /) -> object: ...

    def close(self) -> None: ...


Watch = Callable[[int, str], Watcher]
"""The watcher of step ``index`` (from 0) for its "stdout" or "stderr"."""


class StepRunner:
    """Runs the steps of one workspace in containers. Close it, whatever happened."""

    def __init__(self, bench: Bench, workspace: Workspace, masker: Masker, watch: Watch) -> None:
        self._bench, self._workspace, self._masker, self._watch = bench, workspace, masker, watch
        self._stack, self._room_stack = ExitStack(), ExitStack()
        self._checkout: Checkout | None = None
        self._folder: WorkspaceFolder | None = None
        self._collector: DiffCollector | None = None
        self._room: Room | None = None
        self._layers: dict[int, Path] = {}
        self._state: tuple[tuple[int, ...], State] | None = None

    def open(self, image: Image, steps: int) -> None:
        """Prepare the checkout and the place of the next ``steps`` steps, of which the first one runs in ``image``.

        Nothing, if that was done. Raises git's errors, RuntimeTrouble, DiskTrouble.
        """
        if self._collector is None:
            with _our_disk(self._bench.home):
                self._open(image, steps)

    def run(
        self,
        plan: Plan,
        below: Sequence[LayerOf],
        before: Sequence[FileDiff],
        *,
        steps_left: int,
        limit_seconds: float | None,
    ) -> Ran:
        """Run one step on the layers ``below``; ``before`` is the workspace's diff so far.

        Raises RuntimeTrouble, DiskTrouble, and the store's errors. After trouble the next call begins on a fresh layer
        in a new room: whatever the old one held may be gone.
        """
        self.open(plan.image, steps_left)
        with _our_disk(self._bench.home):
            return self._run(plan, below, before, steps_left, limit_seconds)

    def close(self) -> None:
        """Let go of the containers, volumes and folders of this workspace. May be called more than once."""
        if self._folder is not None:
            everything = ExitStack()
            everything.push(self._stack.pop_all())
            everything.push(self._room_stack.pop_all())  # before the folders, which its containers may have mounted
            self._room = self._collector = self._folder = self._state = None
            self._layers.clear()
            self._bench.afterwards(everything.close)

    def _open(self, image: Image, steps: int) -> None:
        bench, workspace = self._bench, self._workspace
        if self._folder is None:
            name = f"{bench.run_id}-{workspace_digest(workspace)}"
            self._folder = self._stack.enter_context(WorkspaceFolder(bench.home / "workspaces", name))
        self._open_room(image, steps)
        self._checkout = bench.checkouts.get(
            bench.mirrors[workspace.repository],
            workspace.commit,
            workspace.branch,
            sparse_path=workspace.path if workspace.only_fetch_workspace else "",
        )
        self._collector = self._stack.enter_context(
            DiffCollector(self._checkout, self._folder.spool / "diff", self._bench.cancel)
        )

    def _run(
        self,
        plan: Plan,
        below: Sequence[LayerOf],
        before: Sequence[FileDiff],
        steps_left: int,
        limit_seconds: float | None,
    ) -> Ran:
        assert self._folder is not None
        index = plan.rendered.index
        since = time.time()
        layers = [self._layer(layer) for layer in below]
        layer = self._folder.layer(index)
        spool = self._folder.spool / str(index)
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir()
        try:
            changed = self._state_of(tuple(part.index for part in below)).entries
            ran = self._run_container(plan, layers, changed, layer, spool, steps_left, limit_seconds)
        except (RuntimeTrouble, OSError):
            self._close_room()
            raise
        if not ran.exit.ok:
            return ran
        self._layers[index] = layer
        try:
            return self._take_change(ran, plan, tuple(part.index for part in below), spool, before, since)
        except LayerRefused as refused:
            return replace(ran, refusal=str(refused))

    def _run_container(
        self,
        plan: Plan,
        layers: list[Path],
        changed: Mapping[bytes, Entry],
        layer: Path,
        spool: Path,
        steps_left: int,
        limit_seconds: float | None,
    ) -> Ran:
        assert self._checkout is not None
        container = ContainerRun(
            image=plan.image,
            command=command_of(plan.rendered, plan.image.shell, changed),
            working_directory=plan.working_directory,
            environment=plan.rendered.environment,
            files=self._read_only_files(plan, spool),
            timeout_seconds=limit_seconds,
            labels={"step": str(plan.rendered.index + 1)},
        )
        ran = Ran(Exit(0), spool / "stdout", spool / "stderr")
        with (
            self._stream(ran.stdout, plan, "stdout") as stdout,
            self._stream(ran.stderr, plan, "stderr") as stderr,
        ):
            exit = self._open_room(plan.image, steps_left).run(
                container,
                Layers(self._checkout.tree, tuple(layers)),
                layer,
                stdout=stdout,
                stderr=stderr,
                cancel=self._bench.cancel,
            )
        return replace(ran, exit=exit)

    def _read_only_files(self, plan: Plan, spool: Path) -> tuple[ReadOnlyFile, ...]:
        mounts = (
            ReadOnlyFile(self._bench.mounts[mount.path].source, mount.mountpoint) for mount in plan.rendered.mounts
        )
        return (stage_script(spool, plan.rendered.script), *stage_files(spool, plan.rendered.files), *mounts)

    @contextmanager
    def _stream(self, path: Path, plan: Plan, name: str) -> Iterator[MaskingWriter]:
        """Where one stream of the container goes: masked, to a file and to whoever watches."""
        live = self._watch(plan.rendered.index, name)
        with path.open("wb") as file, closing(live), closing(MaskingWriter(self._masker, file, live)) as writer:
            yield writer

    def _take_change(
        self, ran: Ran, plan: Plan, below: tuple[int, ...], spool: Path, before: Sequence[FileDiff], since: float
    ) -> Ran:
        """What the step made of the workspace: the diff, the digest, the packed layer."""
        assert self._collector is not None
        index = plan.rendered.index
        known = self._state_of(below)
        state = known.with_layer(self._layers[index], since)
        self._state = ((*below, index), state)
        digest = _digest_after(plan, known, state)
        diff = spool / "diff"
        self._collector.collect_to(diff, state, before)
        tainted = secrets_in_layer(self._masker, self._layers[index])
        leaked = self._leaked_secret(diff, tainted)
        packed: Path | None = spool / "layer"
        is_kept = digest != plan.state_digest and not tainted and state.untold != "lost"
        if not is_kept or not self._pack(index, spool / "layer"):
            packed = None
        return replace(ran, diff=diff, layer=packed, state_digest=digest, leaked_secret=leaked)

    def _leaked_secret(self, diff: Path, tainted: Mapping[bytes, str]) -> str:
        """The name of a secret that the diff would publish.

        It shows nothing of a binary file, and quotes odd names: the file itself counts.
        """
        with diff.open("rb") as file:
            if found := find_in_stream(self._masker, file):
                return found
        if not tainted:
            return ""
        published = {os.fsencode(file.path) for file in parse(diff.read_bytes())}
        return next((name for path, name in tainted.items() if path in published), "")

    def _state_of(self, indexes: tuple[int, ...]) -> State:
        assert self._checkout is not None
        if self._state is None or self._state[0] != indexes:
            self._state = indexes, merge([self._layers[index] for index in indexes], self._checkout.tree)
        return self._state[1]

    def _pack(self, index: int, target: Path) -> bool:
        with target.open("wb") as file:
            return pack(self._layers[index], file, limit_bytes=self._bench.layer_bytes)

    def _layer(self, layer: LayerOf) -> Path:
        """The folder of an earlier step's layer, fetched from the store when this machine did not run the step."""
        assert self._folder is not None
        if layer.index not in self._layers:
            assert layer.blob is not None  # what cannot be fetched is never built on
            folder, packed = self._folder.layer(layer.index), self._folder.spool / "unpacking"
            with packed.open("w+b") as file:
                self._bench.blobs.copy_to(layer.blob, file)
                file.seek(0)
                unpack(file, folder)
            packed.unlink()
            self._layers[layer.index] = folder
        return self._layers[layer.index]

    def _open_room(self, image: Image, steps: int) -> Room:
        if self._room is None:
            assert self._folder is not None
            workspace = self._workspace
            labels = {
                "run": self._bench.run_id,
                "life": self._folder.life,
                "workspace": f"{workspace.repository}@{workspace.branch}/{workspace.path}",
            }
            self._room = self._room_stack.enter_context(
                self._bench.runtime.open_room(
                    self._folder.path.name, labels, folder=self._folder.path, image=image, steps=steps
                )
            )
        return self._room

    def _close_room(self) -> None:
        self._room = None
        self._room_stack.close()


def _digest_after(plan: Plan, known: State, state: State) -> str:
    """A name for what the next step can see: later steps are taken from the cache by it.

    Where the state's own digest does not tell everything, it depends on how the state came about, from there on.
    """
    before, after = state_digest(known), state_digest(state)
    tells_all = plan.state_digest == before
    if state.untold != "nothing" or (state.is_touched and not tells_all):
        return hashlib.sha256(f"{plan.key} {after}".encode()).hexdigest()
    return after if tells_all else plan.state_digest


@contextmanager
def _our_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskTrouble(folder, error.errno, error.strerror or str(error)) from error


def workspace_digest(workspace: Workspace) -> str:
    """A short name for a workspace, good in file names."""
    identity = "\0".join((workspace.repository, workspace.branch, workspace.path))
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
