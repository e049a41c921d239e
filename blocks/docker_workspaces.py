"""How a container gets its workspace: as an overlay of host folders, or as a copy that is sent and read back."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from blocks.aside import Aside
from blocks.copied_trees import Node, Tree, end_of_archive, folders_above, is_at_or_below, merged, pack, pack_files
from blocks.docker_engine import Engine, Removal
from blocks.harvest import harvest
from blocks.overlays import UPPER, Overlays, check_size, mount_options, settle, unmountable
from blocks.runtime import ContainerRefused, Image, Layers, ReadOnlyFile, RuntimeUnavailable
from blocks.workspace_targets import WORK, Entry, Place, place_of

log = logging.getLogger(__name__)

_ENGINES_OWN = re.compile(rb"/dev(?=/|$)|/etc/hostname$")
"""What is sent there before the start is hidden by what the engine mounts at the start."""
_NETWORKS_OWN = re.compile(rb"/etc/(hosts|resolv\.conf)$")
"""The same, of a container that has a network."""

Mount = dict[str, Any]
"""As the engine's API wants it."""


class WorkspaceAccess(Protocol):
    """One workspace's way into its containers, step after step. For one thread at a time."""

    def mounts(
        self, name: str, labels: Mapping[str, str], layers: Layers, layer: Path, files: Sequence[ReadOnlyFile]
    ) -> list[Mount]:
        """Prepare ``layer`` for a container that will be called ``name``; what to mount into it."""
        ...

    def fill(self, container: str) -> None:
        """Send the created container what could not be mounted."""
        ...

    def collect(self, container: str, cancel: Event) -> None:
        """After the exit: leave what changed in the layer, readable and writable for the next step's user."""
        ...

    def release(self, container: str) -> Removal:
        """The container is done, however it ended: remove it and what only it used."""
        ...

    def close(self) -> None:
        """Remove what was kept for the next step. All containers are gone by now."""
        ...


class OverlayAccess:
    """The engine mounts an overlay of our folders, and binds the files. Both are on one machine, and we are root."""

    def __init__(self, engine: Engine, aside: Aside, limit_bytes: int) -> None:
        """``limit_bytes``: how much a step may leave changed."""
        self._engine, self._limit_bytes = engine, limit_bytes
        self._overlays = Overlays(aside)
        self._layer = Path()

    def mounts(
        self, name: str, labels: Mapping[str, str], layers: Layers, layer: Path, files: Sequence[ReadOnlyFile]
    ) -> list[Mount]:
        if problem := unmountable(layers.base, layer, *layers.layers):
            raise ContainerRefused(f"cannot mount the workspace: {problem}")
        self._layer = layer
        self._overlays.begin_layer(layer)
        lowers = self._overlays.lowers(layers)
        lowers = [*self._overlays.mountpoints(lowers, files), *lowers]
        return [
            overlay_mount(self._engine, name, labels, mount_options(lowers, layer)),
            *(bind(str(file.source), file.target) for file in files),
        ]

    def fill(self, container: str) -> None:
        """Everything is mounted."""

    def collect(self, container: str, cancel: Event) -> None:
        check_size(settle(self._layer / UPPER), self._limit_bytes)

    def release(self, container: str) -> Removal:
        # Podman's has a name; Docker removes what has none with its container.
        return self._engine.remove_later(container=container, volume=container if self._engine.is_podman else None)

    def close(self) -> None:
        """Nothing is kept."""


class CopyAccess:
    """The workspace lives in a volume of the engine, from step to step; files are sent too. Works with any engine."""

    def __init__(self, engine: Engine, aside: Aside, limit_bytes: int, *, has_network: bool) -> None:
        """``limit_bytes``: how much a step may leave changed."""
        self._engine, self._aside, self._limit_bytes = engine, aside, limit_bytes
        self._has_network = has_network
        self._numbers = itertools.count()
        self._volume: str | None = None
        self._holds: Layers | None = None
        self._next: Layers | None = None
        self._layer = Path()
        self._before: Tree = {}
        self._send: Tree = {}
        self._files: list[tuple[Place, ReadOnlyFile]] = []
        self._covered: frozenset[bytes] = frozenset()
        self._odd: Set[bytes] = frozenset()

    def mounts(
        self, name: str, labels: Mapping[str, str], layers: Layers, layer: Path, files: Sequence[ReadOnlyFile]
    ) -> list[Mount]:
        self._aside.empty(layer)
        last, self._layer, self._before = self._layer, layer, merged(layers)
        self._place(files)
        if self._volume is None or self._holds != layers or self._covered:
            self.close()
            self._volume = name
            # What files are put over is left out: a bind would hide it too.
            self._send = {path: node for path, node in self._before.items() if not is_at_or_below(path, self._covered)}
            self._send |= {folder: Node("folder", b"") for folder in folders_above(self._covered) - self._send.keys()}
        else:
            # Sent again what the last step changed, closed or dated: its user may not be the next step's.
            upper = os.fsencode(last / UPPER) + b"/"
            self._send = {
                path: node for path, node in self._before.items() if path in self._odd or node.source.startswith(upper)
            }
        self._holds = None
        self._next = None if self._covered else Layers(layers.base, (*layers.layers, layer))
        return [_volume_mount(self._engine, self._volume, labels, {})]

    def fill(self, container: str) -> None:
        if not self._engine.is_podman:  # which puts nothing of an archive for / into a volume
            files = [(place.path, file) for place, file in self._files]
            self._put(container, "/", pack(self._send, WORK.strip("/").encode()), files)
            return
        inside = [(place.inside, file) for place, file in self._files if place.inside is not None]
        outside = [(place.path, file) for place, file in self._files if place.inside is None]
        self._put(container, WORK, pack(self._send, b"."), inside)
        self._put(container, "/", (), outside)

    def collect(self, container: str, cancel: Event) -> None:
        with self._engine.trouble("cannot read the workspace back from the engine"):
            archive, _ = self._engine.api.get_archive(container, WORK)
            with closing(archive):  # read to the end or not: the engine removes no container that it still sends
                left = harvest(
                    _until(cancel, archive), self._before, self._layer, self._covered, limit_bytes=self._limit_bytes
                )
        self._odd = left.odd
        # What no layer keeps the next step must not find either: its result would depend on it, and its key would not.
        self._holds = None if left.special else self._next

    def release(self, container: str) -> Removal:
        volume = None
        if self._holds is None:
            volume, self._volume = self._volume, None
        return self._engine.remove_later(container=container, volume=volume)

    def close(self) -> None:
        if self._volume is not None:
            self._engine.remove(None, self._volume)
            self._volume = self._holds = None

    def _put(
        self, container: str, folder: str, tree: Iterable[bytes], files: Iterable[tuple[bytes, ReadOnlyFile]]
    ) -> None:
        archive = itertools.chain(tree, pack_files(files), [end_of_archive()])
        with self._engine.trouble("cannot send the workspace to the engine"):
            self._engine.api.put_archive(container, folder, _pieces(archive))

    def _place(self, files: Sequence[ReadOnlyFile]) -> None:
        """Find out where each file goes, and which of these places are in the workspace."""
        places = [(place_of(file.target, self._entry), file) for file in files]
        for place, file in places:
            if _ENGINES_OWN.match(place.path) or (self._has_network and _NETWORKS_OWN.match(place.path)):
                other = "choose another place, or let workspaces be overlays"
                raise ContainerRefused(f"cannot put anything at {file.target}, the engine's own mount: {other}")
        self._files = places
        self._covered = frozenset(place.inside for place, _ in places if place.inside is not None)

    def _entry(self, path: bytes) -> Entry | None:
        node = self._before.get(path)
        if node is None:
            return None
        return Entry(node.kind, os.readlink(node.source) if node.kind == "link" else b"")


def overlay_mount(engine: Engine, name: str, labels: Mapping[str, str], options: str) -> Mount:
    """A volume of the engine that is an overlay at /work: made with its container, mounted as long as that runs."""
    mount = _volume_mount(engine, name, labels, {"type": "overlay", "device": "overlay", "o": options})
    if not engine.is_podman:
        del mount["Source"]
    return mount


def _volume_mount(engine: Engine, name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> Mount:
    """A volume at /work, made with its container unless it is there."""
    volume: Mount = {"NoCopy": True}
    if engine.is_podman:  # whose volumes, made with a container, have neither labels nor options
        with engine.trouble("cannot make a volume for the workspace"):
            engine.api.create_volume(name, driver="local", driver_opts=dict(options), labels=dict(labels))
    else:
        volume |= {"Labels": dict(labels), "DriverConfig": {"Name": "local", "Options": dict(options)}}
    return {"Type": "volume", "Source": name, "Target": WORK, "VolumeOptions": volume}


def image_volumes(engine: Engine, image: Image, labels: Mapping[str, str], mounts: Iterable[Mount]) -> list[Mount]:
    """The volumes that the engine would make for an image, with our labels: what cannot be removed now can be later."""
    if engine.is_podman:  # whose volumes, made with a container, have no labels
        return []
    taken = {os.path.normpath(mount["Target"]) for mount in mounts}
    paths = {os.path.normpath("/" + path.lstrip("/")) for path in image.volumes}
    options = {"Labels": dict(labels)}
    return [{"Type": "volume", "Target": path, "VolumeOptions": options} for path in sorted(paths - taken)]


def bind(source: str, target: str) -> Mount:
    """A file or folder of the engine's machine, to be read only."""
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}


def _pieces(parts: Iterable[bytes], size: int = 1 << 18) -> Iterator[bytes]:
    """The same bytes in pieces worth a write each."""
    pending = bytearray()
    for part in parts:
        pending += part
        if len(pending) >= size:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def _until(cancel: Event, archive: Iterable[bytes]) -> Iterator[bytes]:
    for piece in archive:
        if cancel.is_set():
            raise RuntimeUnavailable("cancelled while the workspace was read back from the engine")
        yield piece
