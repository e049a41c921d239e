"""Who has to stop on a full disk: one at a time, the one that wrote the most."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import disks
from blocks.disks import DiskUser, is_nearly_full, unnamed_bytes, used_bytes
from tests.executions import eventually


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """One of 64 MB, nearly full as long as it has the file ``filled``."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", disk], check=True)
    try:
        (disk / "filled").write_bytes(bytes((64 << 20) - (500 << 10)))
        assert is_nearly_full(disk)
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_single_one_has_to_stop_at_once(disk: Path) -> None:
    with DiskUser(disk, lambda: 0) as alone:
        assert alone.must_stop()
        (disk / "filled").unlink()
        assert not alone.must_stop()


def test_the_one_that_wrote_the_most_has_to_stop_and_then_the_next(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_SETTLE_SECONDS", 1.0)
    with DiskUser(disk, lambda: 1) as small, DiskUser(disk, lambda: 2) as middle:
        with DiskUser(disk, lambda: 3) as large:
            eventually(lambda: (small.must_stop(), middle.must_stop(), large.must_stop()) == (False, False, True))
        left = time.monotonic()
        eventually(middle.must_stop)
        assert time.monotonic() - left >= 1.0
        assert not small.must_stop()


def test_a_choice_of_the_past_does_not_count(disk: Path) -> None:
    content = (disk / "filled").read_bytes()
    written = {"first": 2, "second": 1}
    with DiskUser(disk, lambda: written["first"]) as first, DiskUser(disk, lambda: written["second"]) as second:
        eventually(first.must_stop)
        (disk / "filled").unlink()
        assert not first.must_stop()
        written["second"] = 3
        (disk / "filled").write_bytes(content)

        eventually(second.must_stop)
        assert not first.must_stop()


def test_nobody_waits_for_who_is_measured(disk: Path) -> None:
    def slowly() -> int:
        time.sleep(2)
        return 9

    began = time.monotonic()
    with DiskUser(disk, slowly) as slow, DiskUser(disk, lambda: 1) as quick:
        assert not quick.must_stop()
        with DiskUser(disk, lambda: 1) as late:
            assert not late.must_stop()
            assert time.monotonic() - began < 1
        eventually(slow.must_stop)


def test_what_has_no_name_is_counted(tmp_path: Path) -> None:
    (tmp_path / "named").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/usr")
    before = unnamed_bytes([os.getpid()])
    with (tmp_path / "unnamed").open("wb") as file:
        file.write(b"x" * 1_000_000)
        file.flush()
        assert unnamed_bytes([os.getpid()]) == before
        (tmp_path / "unnamed").unlink()
        assert unnamed_bytes([os.getpid(), 0, os.getpid()]) >= before + 1_000_000

    assert 100_000 < used_bytes(tmp_path) < 300_000
    assert used_bytes(tmp_path / "none") == 0
