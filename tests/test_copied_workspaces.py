"""Layers as they are made on this host: from an engine's archive that may hold anything, and in an overlay's folder."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.aside import Aside
from blocks.copied_trees import end_of_archive, merged, pack, pack_files
from blocks.harvest import ChunkReader, Left, harvest
from blocks.overlays import Overlays, Stack, make_whiteouts, settle
from blocks.runtime import ContainerRefused, Layers, ReadOnlyFile, RuntimeUnavailable
from blocks.workspace_targets import Entry, place_of

Member = tuple[str, bytes, str]
"""A name, a kind of tarfile, and what a link points to."""


def archive(*members: Member, content: bytes = b"bad", mode: int = 0o644) -> list[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, mode
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    data = file.getvalue()
    return [data[at : at + 100] for at in range(0, len(data), 100)]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


@pytest.mark.parametrize(
    "members",
    [
        [("work/../outside/precious", tarfile.REGTYPE, "")],
        [("work/../../outside/new", tarfile.REGTYPE, "")],
        [("work/./x", tarfile.REGTYPE, "")],
        [("elsewhere/x", tarfile.REGTYPE, "")],
        [("//x", tarfile.REGTYPE, "")],
        [("work/a", tarfile.SYMTYPE, "OUTSIDE"), ("work/a/precious", tarfile.REGTYPE, "")],
        [("work/a", tarfile.SYMTYPE, "OUTSIDE"), ("work/a/new", tarfile.DIRTYPE, "")],
        [("work/a", tarfile.SYMTYPE, "OUTSIDE/precious"), ("work/a", tarfile.REGTYPE, "")],
        [("work/a", tarfile.LNKTYPE, "OUTSIDE/precious")],
        [("work/a", tarfile.LNKTYPE, "work/../../outside/precious")],
        [("work/a", tarfile.REGTYPE, ""), ("work/a", tarfile.REGTYPE, "")],
    ],
)
def test_no_archive_leads_out_of_the_layer(tmp_path: Path, outside: Path, members: list[Member]) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    members = [
        (name.replace("OUTSIDE", str(outside)), kind, to.replace("OUTSIDE", str(outside))) for name, kind, to in members
    ]

    with pytest.raises(RuntimeUnavailable, match="cannot read the workspace back"):
        harvest(archive(*members), {}, layer, ())

    assert os.listdir(outside) == ["precious"]
    assert (outside / "precious").read_text() == "precious"


def test_an_absolute_name_is_one_below_the_workspace(tmp_path: Path, outside: Path) -> None:
    """As Podman writes them."""
    (tmp_path / "layer").mkdir()

    harvest(archive(("/", tarfile.DIRTYPE, ""), (f"{outside}/x", tarfile.REGTYPE, "")), {}, tmp_path / "layer", ())

    assert (tmp_path / f"layer/upper{outside}/x").read_text() == "bad"
    assert os.listdir(outside) == ["precious"]


def test_special_files_are_left_out_and_modes_are_plain(tmp_path: Path) -> None:
    members = [("work/f", tarfile.FIFOTYPE, ""), ("work/c", tarfile.CHRTYPE, ""), ("work/b", tarfile.BLKTYPE, "")]

    harvest(archive(*members, ("work/su", tarfile.REGTYPE, ""), mode=0o6755), {}, tmp_path, ())

    assert os.listdir(tmp_path / "upper") == ["su"]
    assert stat.S_IMODE((tmp_path / "upper/su").stat().st_mode) == 0o777


def test_a_hard_link_is_what_it_links_to_and_never_followed(tmp_path: Path, outside: Path) -> None:
    """Steps may link anything: a symbolic link, a pipe, a file that they are only shown."""
    members = [("work/l", tarfile.SYMTYPE, f"{outside}/precious"), ("work/second", tarfile.LNKTYPE, "work/l")]
    members += [("work/p", tarfile.FIFOTYPE, ""), ("work/pipe", tarfile.LNKTYPE, "work/p")]
    shown = [("work/shown", tarfile.REGTYPE, ""), ("work/stolen", tarfile.LNKTYPE, "work/shown")]
    (tmp_path / "layer").mkdir()

    harvest(archive(*members), {}, tmp_path, ())
    with pytest.raises(ContainerRefused, match="'stolen' is a hard link to 'shown', which the step is only shown"):
        harvest(archive(*shown), {}, tmp_path / "layer", (b"shown",))

    assert sorted(os.listdir(tmp_path / "upper")) == ["l", "second"]
    assert (tmp_path / "upper/second").readlink() == outside / "precious"


@pytest.mark.parametrize("cut", [1, 600, 1030])
def test_half_an_archive_is_the_engines_trouble(tmp_path: Path, cut: int) -> None:
    whole = b"".join(archive(("work/a", tarfile.REGTYPE, ""), content=b"x" * 2000))

    with pytest.raises(RuntimeUnavailable):
        harvest([whole[:cut]], {}, tmp_path, ())


@pytest.mark.parametrize(
    ("limit", "told"),
    [("MOST_ENTRIES", "more than 10 changed files"), ("MOST_PATH_BYTES", "more than 10 bytes together")],
)
def test_more_than_a_worker_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, told: str
) -> None:
    monkeypatch.setattr(f"blocks.runtime.{limit}", 10)
    members = [(f"work/{number:02}", kind, "") for number, kind in enumerate([tarfile.REGTYPE, tarfile.FIFOTYPE] * 6)]

    with pytest.raises(ContainerRefused, match=told):
        harvest(archive(*members), {}, tmp_path, ())
    harvest(archive(*members[:2]), {}, Path(tempfile.mkdtemp(dir=tmp_path)), ())


def test_what_was_not_changed_is_not_in_the_layer(tmp_path: Path) -> None:
    base, layer = tmp_path / "base", tmp_path / "layer"
    (base / "a/b").mkdir(parents=True)
    (base / "a/b/file").write_bytes(b"x" * 3_000_000)
    (base / "a/link").symlink_to("b/file")
    layer.mkdir()
    before = merged(Layers(base))

    left = harvest([*pack(before, b"work"), end_of_archive()], before, layer, ())

    assert os.listdir(layer / "upper") == []
    assert not (layer / "deleted").exists()
    assert left == Left(frozenset(), frozenset())


def test_a_difference_anywhere_in_a_file_is_found(tmp_path: Path) -> None:
    base, layer = tmp_path / "base", tmp_path / "layer"
    base.mkdir()
    layer.mkdir()
    old = b"x" * 3_000_000
    (base / "file").write_bytes(old)
    new = old[:-1] + b"y"

    harvest(archive(("work/file", tarfile.REGTYPE, ""), content=new), merged(Layers(base)), layer, ())

    assert (layer / "upper/file").read_bytes() == new


def test_holes_stay_holes(tmp_path: Path) -> None:
    harvest(archive(("work/big", tarfile.REGTYPE, ""), content=bytes(8 << 20)), {}, tmp_path, ())

    status = (tmp_path / "upper/big").stat()
    assert status.st_size == 8 << 20
    assert status.st_blocks * 512 < 1 << 20


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 40), max_size=60))
@settings(deadline=None)
def test_pieces_of_any_size_read_as_one(pieces: list[bytes], sizes: list[int]) -> None:
    whole = b"".join(pieces)
    reader = ChunkReader(piece for piece in pieces if piece)

    read = b"".join(reader.read(size) for size in sizes)

    assert read == whole[: sum(sizes)]


def test_files_are_sent_read_only(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/tool").write_text("#!/bin/sh\n")
    (tmp_path / "folder/tool").chmod(0o700)
    (tmp_path / "folder/link").symlink_to("tool")
    sent = b"".join([*pack_files([(b"/opt/x", ReadOnlyFile(tmp_path / "folder", "/opt/x"))]), end_of_archive()])

    with tarfile.open(fileobj=io.BytesIO(sent)) as tar:
        found = {member.name: (member.type, member.mode) for member in tar}
    assert found == {
        "opt/x": (tarfile.DIRTYPE, 0o755),
        "opt/x/link": (tarfile.SYMTYPE, 0o777),
        "opt/x/tool": (tarfile.REGTYPE, 0o555),
    }


# Overlays


def test_nothing_a_step_leaves_is_too_deep_to_open_up(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("a-folder", mode=0o700, dir_fd=fd)
        below = os.open("a-folder", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))

    settle(tmp_path)

    assert stat.S_IMODE(os.stat("file", dir_fd=fd).st_mode) == 0o666
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o777
    os.close(fd)
    for depth in range(3000):  # flat enough for whoever removes the test's folder
        inner = tmp_path / "a-folder" / "a-folder"
        if inner.exists():
            inner.rename(tmp_path / f"level{depth}")
            (tmp_path / "a-folder").rmdir()
            (tmp_path / f"level{depth}").rename(tmp_path / "a-folder")


def test_settling_follows_no_link(tmp_path: Path, outside: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "link").symlink_to(outside / "precious")
    (upper / "folder").symlink_to(outside)
    (outside / "precious").chmod(0o600)

    settle(upper)

    assert stat.S_IMODE((outside / "precious").stat().st_mode) == 0o600


@pytest.mark.parametrize("path", [b"../outside/precious", b"a/../../outside/precious", b"/etc/passwd", b"a//b", b"."])
def test_a_list_of_deleted_paths_leads_nowhere_else(tmp_path: Path, outside: Path, path: bytes) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "deleted").write_bytes(path + b"\0")

    with pytest.raises(ValueError, match="not a path below the workspace"):
        make_whiteouts(layer)

    assert (outside / "precious").read_text() == "precious"


def test_remains_of_an_earlier_attempt_do_not_matter(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "upper/a/b").mkdir(parents=True)
    (layer / "work/work").mkdir(parents=True)
    (layer / "work/work").chmod(0)
    (layer / "deleted").write_bytes(b"x\0")

    Overlays(Aside(tmp_path)).begin_layer(layer)

    assert sorted(os.listdir(layer)) == ["upper", "work"]
    assert os.listdir(layer / "upper") == os.listdir(layer / "work") == []
    assert stat.S_IMODE((layer / "upper").stat().st_mode) == 0o777


# Targets


@pytest.fixture
def look(tmp_path: Path) -> Callable[[bytes], Entry | None]:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, target in {
        "up": "../etc", "in": "folder", "abs": "/work/folder", "out": "/opt", "loop": "loop", "back": "../work/folder"
    }.items():  # fmt: skip
        (tmp_path / name).symlink_to(target)
    return Stack([tmp_path]).entry


@pytest.mark.parametrize(
    ("target", "path", "inside"),
    [
        ("/etc/x", b"/etc/x", None),
        ("/work", b"/work", None),
        ("/work/new", b"/work/new", b"new"),
        ("/work/../etc/x", b"/etc/x", None),
        ("/x/../work//./a/", b"/work/a", b"a"),
        ("/workshop/a", b"/workshop/a", None),
        ("/work/in/x", b"/work/folder/x", b"folder/x"),
        ("/work/abs/x", b"/work/folder/x", b"folder/x"),
        ("/work/back/x", b"/work/folder/x", b"folder/x"),
        ("/work/out/x", b"/opt/x", None),
        ("/work/up/x", b"/etc/x", None),
        ("/work/file", b"/work/file", b"file"),
    ],
)
def test_targets_are_where_the_engine_puts_them(
    look: Callable[[bytes], Entry | None], target: str, path: bytes, inside: bytes | None
) -> None:
    assert place_of(target, look) == (path, inside)


@pytest.mark.parametrize("target", ["/work/file/x", "/work/loop/x"])
def test_targets_that_cannot_be_are_refused(look: Callable[[bytes], Entry | None], target: str) -> None:
    with pytest.raises(ContainerRefused, match=f"cannot mount at {target}"):
        place_of(target, look)
