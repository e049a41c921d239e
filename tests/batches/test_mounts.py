"""What a spec mounts lies in the spec's folder, and so does everything that it leads to."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.errors import Fault
from flows.batches.mounts import MountError, mount_faults, resolve_mount
from flows.batches.spec import BatchSpec, Mount, Step

OUTSIDE = "is not in the same directory or subdirectory as the batch spec"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spec's folder, with a file `t.sh` and a folder `scripts` that holds `run.sh`; beside it: `secret`."""
    folder = tmp_path / "spec"
    (folder / "scripts").mkdir(parents=True)
    (folder / "t.sh").touch()
    (folder / "scripts" / "run.sh").touch()
    (tmp_path / "secret").touch()
    (tmp_path / "spec-evil").mkdir()
    return folder


@pytest.mark.parametrize("path", ["t.sh", "./t.sh", "scripts/../t.sh", "missing/../t.sh", "scripts//run.sh", ".", ""])
def test_a_path_in_the_folder_is_resolved(folder: Path, path: str) -> None:
    assert resolve_mount(folder, path, 1) == Path(os.path.normpath(folder / path))


def test_an_absolute_path_may_lead_into_the_folder(folder: Path) -> None:
    assert resolve_mount(folder, f"{folder}/scripts", 1) == folder / "scripts"


def test_the_folder_may_be_given_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    assert resolve_mount(Path("."), "t.sh", 1) == folder / "t.sh"


def test_the_folder_may_itself_be_reached_by_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)

    assert resolve_mount(link, "t.sh", 1) == link / "t.sh"


@pytest.mark.parametrize("path", ["..", "../secret", "/etc/passwd", "/", "scripts/../../secret", "../spec-evil"])
def test_a_path_out_of_the_folder_is_refused(folder: Path, path: str) -> None:
    with pytest.raises(MountError, match=f"step 2 mount path {OUTSIDE}"):
        resolve_mount(folder, path, 2)


@pytest.mark.parametrize("target", ["../secret", "/etc", "/etc/passwd", "../missing"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)

    with pytest.raises(MountError, match=OUTSIDE):
        resolve_mount(folder, "link", 1)


def test_a_path_through_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("..")

    with pytest.raises(MountError, match=OUTSIDE):
        resolve_mount(folder, "link/secret", 1)


def test_a_link_inside_of_the_folder_is_followed(folder: Path) -> None:
    (folder / "link").symlink_to("scripts")

    assert resolve_mount(folder, "link/run.sh", 1) == folder / "link" / "run.sh"


@pytest.mark.parametrize("path", ["nope.sh", "scripts/nope", "t.sh/nope", "loop", "x" * 300])
def test_a_path_to_nothing_is_refused(folder: Path, path: str) -> None:
    (folder / "loop").symlink_to("loop")

    with pytest.raises(MountError, match=f"step 1 mount path {path} does not exist"):
        resolve_mount(folder, path, 1)


def test_a_path_that_no_system_has_is_refused(folder: Path) -> None:
    with pytest.raises(MountError, match="step 1 mount path contains invalid characters"):
        resolve_mount(folder, "a\0b", 1)


def test_what_is_neither_file_nor_directory_is_refused(folder: Path) -> None:
    """Reading it could wait for ever."""
    os.mkfifo(folder / "pipe")

    with pytest.raises(MountError, match="step 1 mount path pipe is neither a file nor a directory"):
        resolve_mount(folder, "pipe", 1)


def test_a_folder_must_hold_no_link_out_of_the_spec_folder(folder: Path) -> None:
    (folder / "scripts" / "deep").mkdir()
    (folder / "scripts" / "deep" / "link").symlink_to("../../../secret")

    with pytest.raises(MountError) as caught:
        resolve_mount(folder, "scripts", 1)

    assert str(caught.value) == (
        "step 1 mount path scripts cannot be mounted: scripts/deep/link is a symbolic link out of the batch spec's "
        "directory; put a copy in its place"
    )


def test_a_folder_behind_a_link_is_looked_through_too(folder: Path) -> None:
    (folder / "link").symlink_to("scripts")
    (folder / "scripts" / "evil").symlink_to("/etc")

    with pytest.raises(MountError, match="link/evil is a symbolic link out of"):
        resolve_mount(folder, "link", 1)


def test_a_folder_may_hold_links_that_stay_inside(folder: Path) -> None:
    (folder / "scripts" / "link").symlink_to("../t.sh")
    (folder / "scripts" / "dangling").symlink_to("missing")
    (folder / "scripts" / "itself").symlink_to(".")

    assert resolve_mount(folder, "scripts", 1) == folder / "scripts"


def test_every_bad_mount_of_a_spec_is_told(folder: Path) -> None:
    mounts = (Mount(path="t.sh", mountpoint="/t"), Mount(path="../secret", mountpoint="/s"))
    last = Step(run="", container="c", mounts=(Mount(path="nope", mountpoint="/n"),))
    spec = BatchSpec(name="a", steps=(Step(run="", container="c", mounts=mounts), last))

    assert mount_faults(spec, folder) == (
        Fault("steps.0.mount.1.path", f"step 1 mount path {OUTSIDE}"),
        Fault("steps.1.mount.0.path", "step 2 mount path nope does not exist"),
    )


def test_the_refusal_survives_pickling() -> None:
    assert str(pickle.loads(pickle.dumps(MountError("step 1 ...")))) == "step 1 ..."


@given(st.text() | st.lists(st.sampled_from(["..", ".", "", "scripts", "t.sh", "a"])).map("/".join))
def test_whatever_is_resolved_lies_in_the_folder(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any" / "spec"
    (folder / "scripts").mkdir(parents=True, exist_ok=True)
    try:
        found = resolve_mount(folder, path, 1)
    except MountError:
        return

    assert found.is_relative_to(folder)
