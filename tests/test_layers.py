"""Layers add up to what a step sees, and survive the store."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.overlays import make_whiteouts
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
            unpacked = merge(copies, folder / "base")
            assert shape(unpacked) == shape(state)
            assert state_digest(unpacked) == state_digest(state)
            assert packed(copies[-1]) == packed(workspace.layers[-1])
        if kind is Overlaid:
            again = Overlaid(folder / "base", folder / "again")
            again.layers = copies
            for copy in copies:
                make_whiteouts(copy)
            with workspace.content() as content, again.content() as same:
                assert content_of(same) == content_of(content)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    (base / "folder").mkdir(parents=True)
    (base / "folder/file").write_text("base\n")
    (base / "file").write_text("base\n")
    return base


def test_nothing_changed_has_an_empty_digest(base, tmp_path):
    (tmp_path / "layer").mkdir()

    assert state_digest(merge([], base)) == ""
    assert state_digest(merge([tmp_path / "layer", layer_of(tmp_path / "other")], base)) == ""


def test_what_came_and_went_is_no_change(base, tmp_path):
    made = layer_of(tmp_path / "1", {"new/deep/file": "x"})
    gone = layer_of(tmp_path / "2", deleted=[b"new"])

    assert state_digest(merge([made, gone], base)) == ""


def test_a_list_of_deleted_paths_says_the_same_as_whiteouts(base, tmp_path):
    listed = layer_of(tmp_path / "1", {"folder/new": "x"}, deleted=[b"file", b"folder"])
    marked = layer_of(tmp_path / "2", {"folder/new": "x"})
    os.mknod(marked / UPPER / "file", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(marked / UPPER / "folder", "trusted.overlay.opaque", b"y")

    assert shape(merge([listed], base)) == shape(merge([marked], base))
    assert merge([listed], base).entries[b"folder"].replaces


def test_the_digest_ignores_times_and_sees_content_modes_and_owners(base, tmp_path):
    layer = layer_of(tmp_path / "1", {"new": "x"})
    file = layer / UPPER / "new"
    digests = [state_digest(merge([layer], base))]

    os.utime(file, (1, 1))
    assert state_digest(merge([layer], base)) == digests[0]
    for change in (lambda: file.write_text("y"), lambda: file.chmod(0o755), lambda: os.chown(file, 7, 7)):
        change()
        digests.append(state_digest(merge([layer], base)))

    assert len(set(digests)) == 4


def test_the_digest_sees_the_steps_git_but_not_its_clock(base, tmp_path):
    """A `git status` rewrites the index, and a reflog holds times: neither is a change that a step could rely on."""

    def digest(seconds: int, *, staged: bool = True, message: str = "commit (initial): message") -> str:
        layer = layer_of(tmp_path / f"{seconds}{staged}{message[:3]}", {"file": "content\n"})
        os.utime(layer / UPPER / "file", (seconds, seconds))
        git(layer / UPPER, "init", "--quiet", "--template=")
        git(layer / UPPER, "add", "file" if staged else ".git")
        (layer / UPPER / ".git/logs").mkdir()
        log = f"{'0' * 40} {'1' * 40} A <a@example.com> {seconds} +0100\t{message}\n"
        (layer / UPPER / ".git/logs/HEAD").write_text(2 * log)
        return state_digest(merge([layer], base))

    first, second = 1_700_000_000, 1_800_000_000

    assert digest(first) == digest(second)
    assert len({digest(1), digest(2, staged=False), digest(3, message="something for the next step")}) == 3


_NOBODY = 0xFFFFFFFF
_ENTRIES = [(1, 7, _NOBODY), (2, 7, 7), (4, 5, _NOBODY), (16, 7, _NOBODY), (32, 5, _NOBODY)]
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _ENTRIES)
"""User 7 may do everything."""


@pytest.mark.parametrize(
    ("change", "untold"),
    [
        (lambda upper: os.mkfifo(upper / "pipe"), "kept"),
        (lambda upper: os.mknod(upper / "socket", stat.S_IFSOCK), "kept"),
        (lambda upper: os.utime(upper / "new", (1, 1)), "kept"),
        (lambda upper: os.utime(upper / "new", (time.time() + 100,) * 2), "kept"),
        (lambda upper: os.utime(upper / "folder", (1, 1)), "kept"),
        (lambda upper: os.utime(upper / "link", (1, 1), follow_symlinks=False), "kept"),
        (lambda upper: os.link(upper / "new", upper / "again"), "kept"),
        (lambda upper: os.setxattr(upper / "new", "user.x", b"y"), "lost"),
        (lambda upper: os.setxattr(upper / "folder", "user.x", b"y"), "lost"),
        (lambda upper: os.setxattr(upper / "new", "system.posix_acl_access", ACL), "lost"),
        (lambda upper: os.mknod(upper / "null", stat.S_IFCHR, os.makedev(1, 3)), "lost"),
    ],
)
def test_what_the_digest_does_not_tell_is_noticed(base, tmp_path, change, untold):
    since = time.time() - 1
    layer = layer_of(tmp_path / "1", {"new": "x", "folder/new": "x"}, deleted=[b"file"])
    (layer / UPPER / "link").symlink_to("new")
    assert State(base).with_layer(layer, since).untold == "nothing"

    change(layer / UPPER)

    assert State(base).with_layer(layer, since).untold == untold
    assert State(base).with_layer(layer).untold == "nothing"


def test_a_time_that_was_there_before_is_nobodys_message(base, tmp_path):
    """An overlay copies folders and files with their times when something else of them changes."""
    os.utime(base / "file", (1, 1))
    copied = layer_of(tmp_path / "1", {"file": "base\n", "folder/new": "x"})
    os.utime(copied / UPPER / "file", (1, 1))
    below = State(base).with_layer(copied, time.time() - 1)
    assert below.untold == "nothing"
    later = time.time() + 1
    again = layer_of(tmp_path / "2", {"folder/new": "x"})
    for name in ("folder", "folder/new"):
        ns = (copied / UPPER / name).stat().st_mtime_ns
        os.utime(again / UPPER / name, ns=(ns, ns))

    assert below.with_layer(again, later).untold == "nothing"
    assert State(base).with_layer(again, later).untold == "kept"
    (copied / UPPER / "file").write_text("more\n")
    os.utime(copied / UPPER / "file", (1, 1))
    assert State(base).with_layer(copied, time.time() - 1).untold == "kept"


@pytest.mark.parametrize(
    "index", [b"", b"DIRC", b"DIRC" + bytes(30), b"DIRC\0\0\0\2\xff\xff\xff\xff" + bytes(100), b"x" * 99]
)
def test_a_damaged_index_of_a_step_counts_as_it_is(base, tmp_path, index):
    layer = layer_of(tmp_path / "1", {".git/index": ""})
    (layer / UPPER / ".git/index").write_bytes(index)

    assert state_digest(merge([layer], base))


def test_pipes_sockets_and_devices_are_not_there(base, tmp_path):
    layer = layer_of(tmp_path / "1")
    os.mkfifo(layer / UPPER / "pipe")
    os.mknod(layer / UPPER / "file", stat.S_IFCHR, os.makedev(1, 3))

    assert {path: entry.kind for path, entry in merge([layer], base).entries.items()} == {b"file": "gone"}


def test_a_path_that_git_cannot_read_is_refused(base, tmp_path):
    layer = layer_of(tmp_path / "1")
    fd = os.open(layer / UPPER, os.O_RDONLY)
    for _ in range(LONGEST_PATH // 200 + 1):
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)

    with pytest.raises(LayerRefused, match="bytes; remove it"):
        merge([layer], base)


def test_an_overlay_that_redirects_is_refused(base, tmp_path):
    layer = layer_of(tmp_path / "1", {"folder/file": "x"})
    os.setxattr(layer / UPPER / "folder", "trusted.overlay.redirect", b"/elsewhere")

    with pytest.raises(LayerRefused, match="redirect_dir=off"):
        merge([layer], base)


def test_the_base_is_not_read_through_its_links(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("x")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/link").symlink_to(tmp_path / "outside")
    layer = layer_of(tmp_path / "1", deleted=[b"link/secret"])

    assert not merge([layer], tmp_path / "base").entries


def test_a_packed_layer_is_the_same_bytes_every_time(tmp_path):
    layer = layer_of(tmp_path / "1", {"b": "b", "a/c": "c"}, deleted=[b"x", b"y"])

    first = packed(layer)
    (layer / UPPER / "later").write_text("x")
    (layer / UPPER / "later").unlink()

    assert packed(layer) == first


def test_a_layer_over_the_limit_is_not_packed(tmp_path):
    layer = layer_of(tmp_path / "1")
    with (layer / UPPER / "sparse").open("wb") as file:
        file.truncate(10**12)
    out = io.BytesIO()

    assert not pack(layer, out, limit_bytes=10**6)
    assert not out.getvalue()


def test_unpacking_restores_modes_links_and_times_without_setuid(tmp_path):
    layer = layer_of(tmp_path / "1", {"tool": "#!/bin/sh\n", "closed/file": "x"})
    upper = layer / UPPER
    (upper / "tool").chmod(0o4755)
    os.utime(upper / "tool", (1_000_000_000, 1_000_000_000))
    os.link(upper / "tool", upper / "twin")
    (upper / "closed").chmod(0o500)
    (upper / "link").symlink_to("/etc/passwd")

    unpack(io.BytesIO(packed(layer)), tmp_path / "2")

    copy = tmp_path / "2" / UPPER
    assert stat.S_IMODE((copy / "tool").stat().st_mode) == 0o755
    assert (copy / "tool").stat().st_mtime == 1_000_000_000
    assert (copy / "tool").stat().st_ino == (copy / "twin").stat().st_ino
    assert stat.S_IMODE((copy / "closed").stat().st_mode) == 0o500
    assert os.readlink(copy / "link") == "/etc/passwd"


def test_unpacking_begins_anew_after_an_attempt_that_was_cut_off(tmp_path):
    content = packed(layer_of(tmp_path / "1", {"a/b": "x"}))
    layer_of(tmp_path / "2", {"a/b": "half", "other": "x"}, deleted=[b"z"])

    unpack(io.BytesIO(content), tmp_path / "2")

    assert packed(tmp_path / "2") == content


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil")],
        [member("upper/../../evil")],
        [member("/evil")],
        [member("upper//evil")],
        [member("upper/./evil")],
        [member("upper/")],
        [member("elsewhere/evil")],
        [member("deleted", content=b"a\0../evil\0")],
        [member("deleted", tarfile.SYMTYPE, "../evil")],
        [member("upper/link", tarfile.SYMTYPE, ".."), member("upper/link/evil")],
        [member("upper/link", tarfile.SYMTYPE, "../../evil"), member("upper/link", content=b"x")],
        [member("upper/hard", tarfile.LNKTYPE, "upper/../../victim")],
        [member("upper/hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("upper/link", tarfile.SYMTYPE, "../.."), member("upper/hard", tarfile.LNKTYPE, "upper/link/victim")],
        [member("upper/device", tarfile.CHRTYPE)],
        [member("upper/block", tarfile.BLKTYPE)],
        [member("upper/file"), member("upper/file")],
        [member("upper/nowhere/file")],
    ],
)
def test_an_archive_that_is_no_layer_is_refused_and_writes_nothing_outside(tmp_path, members):
    (tmp_path / "victim").write_text("untouched")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    out.seek(0)

    with pytest.raises(LayerRefused):
        unpack(out, tmp_path / "layers" / "1")

    assert {path.name for path in tmp_path.iterdir()} == {"victim", "layers"}
    assert {path.name for path in (tmp_path / "layers").iterdir()} == {"1"}
    assert (tmp_path / "victim").stat().st_nlink == 1


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"no tar" * 1000, mtime=0)])
def test_a_damaged_archive_is_refused(tmp_path, content):
    with pytest.raises(LayerRefused, match="damaged"):
        unpack(io.BytesIO(content), tmp_path / "1")


def test_an_archive_that_was_cut_off_is_refused(tmp_path):
    content = packed(layer_of(tmp_path / "1", {"a": "x" * 100_000, "b": "y"}))

    with pytest.raises(LayerRefused, match="damaged"):
        unpack(io.BytesIO(content[: len(content) // 2]), tmp_path / "2")


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=folder, check=True)
