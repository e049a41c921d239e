"""A base tree, a workspace on it and its room in a real engine: what tests of runtimes run their scripts in."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from uuid import uuid4

from blocks.docker_runtime import DockerRuntime
from blocks.runtime import ContainerRun, Exit, Layers, ReadOnlyFile, Room
from flows.layers import merge

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

BUSYBOX = "batchwright/busybox:1"


@dataclass(frozen=True)
class Ran:
    """What one container did."""

    exit: Exit
    stdout: bytes
    stderr: bytes
    layer: Path


class CountingSink:
    """Takes any amount of output, keeps its size and hash."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self._hash.update(data)
        return len(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class CancellingSink(io.BytesIO):
    """Keeps its content; sets ``cancel`` once something was written."""

    def __init__(self, cancel: threading.Event) -> None:
        super().__init__()
        self._cancel = cancel

    def write(self, data: Buffer, /) -> int:
        self._cancel.set()
        return super().write(data)


class Rig:
    """One workspace. A context manager; ``run`` runs one step after the other, each on the layers of those before."""

    def __init__(
        self, folder: Path, runtime: DockerRuntime, files: Mapping[str, bytes | str] | None = None, *, steps: int = 1
    ) -> None:
        self.runtime, self.steps = runtime, steps
        self.base, self.folder = folder / "base", folder / "workspace"
        self.workspace = f"test-{uuid4().hex}"
        self.layers: list[Path] = []
        self._stack = ExitStack()
        self._made = 0
        self.base.mkdir(parents=True)
        self.folder.mkdir()
        for name, content in (files or {}).items():
            self.write(name, content)
        self.base.chmod(0o777)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def room(self) -> Room:
        if not hasattr(self, "_room"):
            labels = {"run": self.workspace, "workspace": self.workspace}
            image = self.runtime.resolve_image(BUSYBOX)
            self._room = self._stack.enter_context(
                self.runtime.open_room(self.workspace, labels, folder=self.folder, image=image, steps=self.steps)
            )
        return self._room

    def write(self, name: str, content: bytes | str, *, executable: bool = False) -> None:
        """A file of the base."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(0o777 if executable else 0o666)
        for folder in path.relative_to(self.base).parents:
            (self.base / folder).chmod(0o777)

    def run(
        self,
        script: str,
        *,
        image: str = BUSYBOX,
        keep: bool = True,
        layer: Path | None = None,
        files: Sequence[ReadOnlyFile] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
        directory: str = "/work",
        cancel_when_it_speaks: bool = False,
    ) -> Ran:
        """Run a script on the base and the kept layers; ``keep`` its own layer below what comes after."""
        cancel = cancel or threading.Event()
        stdout, stderr = CancellingSink(cancel) if cancel_when_it_speaks else io.BytesIO(), io.BytesIO()
        if layer is None:
            self._made += 1
            layer = self.folder / "layers" / str(self._made)
            layer.mkdir(parents=True)
        found = self.runtime.resolve_image(image)
        container = ContainerRun(
            found,
            (found.shell, "-c", script),
            directory,
            environment or {},
            tuple(files),
            timeout,
            labels={"step": str(self._made)},
        )
        exit = self.room.run(
            container,
            Layers(self.base, tuple(self.layers)),
            layer,
            stdout=stdout,
            stderr=stderr,
            cancel=cancel,
        )
        if keep:
            self.layers.append(layer)
        return Ran(exit, stdout.getvalue(), stderr.getvalue(), layer)

    def changes(self) -> dict[str, object]:
        """What the kept layers changed: a path, and the text of a file, ("link", its target), "folder" or "gone"."""
        found: dict[str, object] = {}
        for path, entry in merge(self.layers, self.base).entries.items():
            place = entry.upper / path.decode(errors="surrogateescape")
            name = path.decode(errors="backslashreplace")
            if entry.kind == "file":
                found[name] = place.read_bytes().decode(errors="backslashreplace")
                if entry.mode != 0o666:
                    found[name] = (f"{entry.mode:o}", found[name])
            elif entry.kind == "link":
                found[name] = ("link", str(place.readlink()))
            else:
                found[name] = entry.kind
        return found


def left_over(runtime: DockerRuntime, run: str) -> list[str]:
    """The names of what is in the engine of a run."""
    api = runtime._connected().engine.api
    label = {"label": [f"batchwright.run={run}"]}
    names = [container["Names"][0] for container in api.containers(all=True, filters=label)]
    return names + [volume["Name"] for volume in api.volumes(filters=label)["Volumes"] or ()]
