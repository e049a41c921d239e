"""A runtime without an engine: it understands scripts of a few words, and fails to order."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from blocks.runtime import ContainerRun, Exit, Image, ImageRefused, Layers, Room, RuntimeTrouble, WorkspaceMode
from blocks.store import Sink
from flows.staging import SCRIPT_TARGET


class FakeRuntime:
    """Runs scripts of these words, one per line:

    ``write PATH TEXT``, ``delete PATH``, ``out TEXT``, ``err TEXT``, ``env NAME`` (its value to stdout),
    ``cat PATH`` (of the workspace, to stdout), ``sleep SECONDS``, ``exit CODE``, ``oom``.

    ``troubles`` are raised by the next container runs, one each, after the script has run; None: no trouble.
    """

    def __init__(self, *troubles: RuntimeTrouble | None) -> None:
        self.troubles = list(troubles)
        self.images: Counter[str] = Counter()
        self.ran: list[ContainerRun] = []
        self.scripts: list[str] = []
        self.open_rooms = 0
        self.rooms = 0
        self.reaped = 0

    def resolve_image(self, reference: str, cancel: Event | None = None) -> Image:
        self.images[reference] += 1
        if "missing" in reference:
            raise ImageRefused(f"image {reference!r} does not exist")
        return Image(reference, reference, f"sha256:{reference}", "/bin/sh")

    def workspace_mode(self, folder: Path) -> tuple[WorkspaceMode, str]:
        return "copy", f"no engine looks at {folder}"

    @contextmanager
    def sharing(self, rooms: int, at_once: int) -> Iterator[None]:
        assert rooms >= 0
        assert at_once > 0
        yield
        assert self.open_rooms == 0, "left before its rooms"

    @contextmanager
    def open_room(
        self, name: str, labels: Mapping[str, str], *, folder: Path, image: Image, steps: int
    ) -> Iterator[Room]:
        assert name
        assert image.shell
        assert labels["run"]
        assert folder.is_dir()
        assert steps > 0
        self.rooms += 1
        self.open_rooms += 1
        try:
            yield _FakeRoom(self)
        finally:
            self.open_rooms -= 1

    def reap(self, over: Collection[str] = ()) -> None:
        self.reaped += 1

    def fingerprint(self) -> Mapping[str, str]:
        return {"user": "nobody"}


class _FakeRoom:
    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime

    def run(
        self, container: ContainerRun, layers: Layers, layer: Path, *, stdout: Sink, stderr: Sink, cancel: Event
    ) -> Exit:
        source = next(file.source for file in container.files if file.target == SCRIPT_TARGET)
        script = source.read_text()
        self._runtime.ran.append(container)
        self._runtime.scripts.append(script.strip())
        shutil.rmtree(layer)
        (layer / "upper").mkdir(parents=True)
        ended = _Script(container, layers, layer, stdout, stderr, cancel).run(script)
        if self._runtime.troubles and (trouble := self._runtime.troubles.pop(0)):
            raise trouble
        return ended


class _Script:
    def __init__(
        self, container: ContainerRun, layers: Layers, layer: Path, stdout: Sink, stderr: Sink, cancel: Event
    ) -> None:
        self._container, self._layers, self._layer = container, layers, layer
        self._stdout, self._stderr, self._cancel = stdout, stderr, cancel

    def run(self, script: str) -> Exit:
        for line in script.strip().splitlines():
            word, _, rest = line.partition(" ")
            if ended := getattr(self, f"_{word}")(rest):
                assert isinstance(ended, Exit)
                return ended
        return Exit(0)

    def _write(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        path = self._layer / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def _delete(self, name: str) -> None:
        with (self._layer / "deleted").open("a") as file:
            file.write(f"{name}\0")

    def _out(self, text: str) -> None:
        self._stdout.write(f"{text}\n".encode())

    def _err(self, text: str) -> None:
        self._stderr.write(f"{text}\n".encode())

    def _env(self, name: str) -> None:
        self._out(self._container.environment[name])

    def _cat(self, name: str) -> None:
        for folder in (*(layer / "upper" for layer in reversed(self._layers.layers)), self._layers.base):
            if (folder / name).exists():
                self._stdout.write((folder / name).read_bytes())
                return
        self._err(f"no {name}")

    def _sleep(self, seconds: str) -> Exit | None:
        limit = self._container.timeout_seconds
        if limit is not None and limit < float(seconds):
            return Exit(137, timed_out=True)
        return Exit(137, cancelled=True) if self._cancel.wait(float(seconds)) else None

    def _exit(self, code: str) -> Exit:
        return Exit(int(code))

    def _oom(self, _rest: str) -> Exit:
        return Exit(137, oom_killed=True)
