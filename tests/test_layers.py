"""Layers add up to what a step sees, and survive the store."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.layers import DELETED, UPPER, State, merge, state_digest
from flows.packing import pack, unpack
from flows.untrusted import LONGEST_PATH, Folder, LayerRefused
from tests.edits import Edit, base_edits, base_files, carry_out, edits
from tests.layering import Compared, Overlaid, can_mount_overlays

with tempfile.TemporaryDirectory() as _folder:
    WORKSPACES = [Compared, Overlaid] if can_mount_overlays(Path(_folder)) else [Compared]

Content = dict[bytes, tuple[str, int, bytes]]
"""By path: the kind, the permission bits, and the content or the target."""


def content_of(root: Path) -> Content:
    """What a step sees in a folder; without pipes, which no layer keeps."""
    found: Content = {}
    with Folder(root) as folder:
        for one in folder.scan():
            mode = stat.S_IMODE(one.status.st_mode)
            if one.kind == "file":
                with open(folder.open(one.path), "rb") as file:
                    found[one.path] = ("file", mode, file.read())
            elif one.kind == "link":
                found[one.path] = ("link", 0o777, folder.readlink(one.path))
            elif one.kind == "folder":
                found[one.path] = ("folder", mode, b"")
    return found


def materialised(state: State) -> Content:
    """What a step would see of a state, worked out the simple way."""
    found = content_of(state.base)
    for path, entry in state.entries.items():
        if entry.kind != "folder" or entry.replaces:
            found = {at: what for at, what in found.items() if not (at + b"/").startswith(path + b"/")}
    for path, entry in state.entries.items():
        if entry.kind == "folder":
            found[path] = ("folder", entry.mode, b"")
        elif entry.kind != "gone":
            with Folder(entry.upper) as upper:
                what = upper.readlink(path) if entry.kind == "link" else open_and_read(upper, path)
            found[path] = (entry.kind, entry.mode, what)
    return found


def open_and_read(folder: Folder, path: bytes) -> bytes:
    with open(folder.open(path), "rb") as file:
        return file.read()


def write_base(base: Path, files: Sequence[Edit]) -> None:
    base.mkdir()
    for path, (mode, content) in base_files(files).items():
        target = os.fsencode(base) + b"/" + path
        os.makedirs(target if mode == "160000" else os.path.dirname(target), exist_ok=True)
        if mode == "120000":
            os.symlink(content, target)
        elif mode != "160000":
            Path(os.fsdecode(target)).write_bytes(content)


def layer_of(folder: Path, files: dict[str, str] | None = None, deleted: Sequence[bytes] = ()) -> Path:
    """A layer made by hand."""
    (folder / UPPER).mkdir(parents=True)
    for name, text in (files or {}).items():
        path = folder / UPPER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if deleted:
        (folder / DELETED).write_bytes(b"".join(path + b"\0" for path in deleted))
    return folder


def packed(layer: Path) -> bytes:
    out = io.BytesIO()
    assert pack(layer, out)
    return out.getvalue()


def shape(state: State) -> dict[bytes, tuple[object, ...]]:
    """A state without the places where its content lies."""
    entries = state.entries.items()
    return {path: (entry.kind, entry.mode, entry.owner, entry.size, entry.replaces) for path, entry in entries}


@pytest.mark.parametrize("kind", WORKSPACES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=st.lists(base_edits, max_size=10), steps=st.lists(st.lists(edits, max_size=6), min_size=1, max_size=4))
def test_layers_add_up_to_what_a_step_sees_and_survive_the_store(kind, base, steps):
    check(kind, base, steps)


def check(kind: type[Compared | Overlaid], base: Sequence[Edit], steps: Sequence[Sequence[Edit]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_base(folder / "base", base)
        workspace = kind(folder / "base", folder / "workspace")
        state, copies = State(folder / "base"), list[Path]()
        for step in steps:
            with workspace.step() as content:
                for edit in step:
                    carry_out(edit, content)

            state = state.with_layer(workspace.layers[-1])

            with workspace.content() as content:
                assert materialised(state) == content_of(content)
            copies.append(folder / f"copy{len(copies)}")
            unpack(io.BytesIO(packed(workspace.layers[-1])), copies[-1])
            copy = merge(copies, folder / "base")
            assert shape(copy) == shape(state)
            assert state_digest(copy) == state_digest(state)
            assert packed(copies[-1]) == packed(workspace.layers[-1])
