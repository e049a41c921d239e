"""Where the paths of mounts lead, in a folder made for each vector. $SPEC stands for it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from flows.batches.mounts import MountError, resolve_mount


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    unknown = (set(expect) - {"ok", "host", "error"}) | (set(input) - {"path", "tree"})
    assert not unknown, f"unknown keys: {unknown}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "spec"
        folder.mkdir()
        for entry, kind in input.get("tree", {}).items():
            _make(Path(_located(entry, folder)), kind, folder)
        path = _located(input["path"], folder)

        if "error" in expect:
            with pytest.raises(MountError) as caught:
                resolve_mount(folder, path, 1)
            assert _located(expect["error"], folder) == str(caught.value)
            return
        assert expect["ok"] is True
        found = resolve_mount(folder, path, 1)
        if "host" in expect:
            # Upstream marks directories with a slash at the end.
            assert _located(expect["host"], folder) == str(found) + ("/" if found.is_dir() else "")


def _located(text: str, folder: Path) -> str:
    return text.replace("$SPEC", str(folder))


def _make(path: Path, kind: str, folder: Path) -> None:
    path = folder / path
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = next((mark for mark in ("symlink:", "link:", "->") if kind.startswith(mark)), None)
    if mark is not None:
        path.symlink_to(_located(kind.removeprefix(mark).strip(), folder))
    elif kind == "dir":
        path.mkdir(exist_ok=True)
    elif kind == "file":
        path.touch()
    else:
        raise AssertionError(f"unknown kind of entry: {kind}")
