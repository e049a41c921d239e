"""A tree that changes while it is read or removed: what lies outside of it is neither read nor touched.

No step can do that, its processes are dead by then; what reads its tree does not rely on it.
"""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from blocks.removal import remove_tree
from flows.packing import pack
from flows.untrusted import LayerRefused

ROUNDS = 150


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("precious")
    (folder / "file").write_text("precious")
    return folder


@contextmanager
def swapping(upper: Path, outside: Path) -> Iterator[None]:
    """All the while folders and files are exchanged for links to outside, and back; also folders on the way."""
    pairs = ((upper / "a", outside), (upper / "b/sub", outside / "sub"), (upper / "c/file", outside / "file"))
    for number, (place, _) in enumerate(pairs):
        spare = upper.parent / f"spare-{number}"
        if place.name == "file":
            place.parent.mkdir(parents=True)
            place.write_text("own")
        else:
            (place / "sub").mkdir(parents=True)
            (place / "sub/file").write_text("own")
            (place / "file").write_text("own")
        spare.symlink_to(outside if place.name != "file" else outside / "file")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for number, (place, _) in enumerate(pairs):
                spare, aside = upper.parent / f"spare-{number}", upper.parent / f"aside-{number}"
                with suppress(OSError):
                    place.rename(aside)
                    spare.rename(place)
                    aside.rename(spare)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nothing_outside_is_read(tmp_path: Path, outside: Path) -> None:
    """What is found changed may be an error; the content of what a link leads to is never packed."""
    layer = tmp_path / "layer"
    (layer / "upper").mkdir(parents=True)
    packed = []

    with swapping(layer / "upper", outside):
        for _ in range(ROUNDS):
            out = io.BytesIO()
            with suppress(OSError, LayerRefused):
                pack(layer, out)
                packed.append(gzip.decompress(out.getvalue()))

    assert packed
    assert not any(b"precious" in content for content in packed)


def test_nothing_outside_is_removed(tmp_path: Path, outside: Path) -> None:
    for number in range(20):
        top = tmp_path / str(number)
        (top / "upper").mkdir(parents=True)
        with swapping(top / "upper", outside), suppress(OSError):
            remove_tree(top / "upper")
        assert remove_tree(top)

    assert sorted(path.name for path in outside.rglob("*")) == ["file", "file", "sub"]
