"""What no run used for long goes; what one uses, or used lately, stays."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.sources import location
from flows.batches.loading import load_spec
from flows.checkout import Checkouts
from flows.leftovers import KEPT_ON_A_SHORT_DISK_SECONDS, KEPT_SECONDS, remove_leftovers, remove_unused
from flows.locks import FileLock
from flows.mirror import Mirror
from flows.staging import stage_mounts
from tests.gitrepos import make_repository
from tests.workbench import spec_of


class Used:
    """A state folder with a mirror, a checkout and a copy of a mount."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.home = home
        self.commit = make_repository(folder / "app", {"a": "a\n"})
        self.mirror = Mirror(home / "mirrors", location("acme/app", str(folder / "app")))
        self.tool = folder / "tool"
        self.tool.write_text("tool\n")
        self.use()

    def use(self) -> None:
        self.mirror.fetch(self.commit)
        with Checkouts(self.home / "checkouts") as checkouts:
            self.checkout = checkouts.get(self.mirror.git_dir, self.commit, "main").tree
        spec = load_spec(spec_of("{run: x, container: i, mount: [{path: ./tool, mountpoint: /tool}]}"))
        self.mount = stage_mounts(spec, {"./tool": self.tool}, self.home / "mounts")["./tool"].source

    def age(self, seconds: float) -> None:
        then = time.time() - seconds
        for path in (*self.home.glob("*/*.lock"), self.mount.parent):
            os.utime(path, (then, then))

    def there(self) -> list[bool]:
        return [path.exists() for path in (self.mirror.git_dir, self.checkout, self.mount)]


def test_what_was_used_lately_stays(tmp_path: Path) -> None:
    used = Used(tmp_path, tmp_path / "home")
    used.age(KEPT_SECONDS + 60)
    used.use()

    remove_leftovers(used.home, lambda _lives: None)

    assert used.there() == [True, True, True]


def test_what_nobody_used_for_long_goes_and_is_made_again(tmp_path: Path) -> None:
    used = Used(tmp_path, tmp_path / "home")
    used.age(KEPT_SECONDS + 60)

    remove_unused(used.home)

    assert used.there() == [False, False, False]
    assert not list(used.home.glob("*/*"))
    used.use()
    assert used.there() == [True, True, True]


def test_what_is_in_use_stays_however_old(tmp_path: Path) -> None:
    used = Used(tmp_path, tmp_path / "home")
    with Checkouts(used.home / "checkouts") as checkouts:
        checkouts.get(used.mirror.git_dir, used.commit, "main")
        fetching = FileLock(used.mirror.git_dir.with_suffix(".lock"))
        fetching.take()
        used.age(KEPT_SECONDS + 60)

        remove_unused(used.home)

        assert used.there() == [True, True, False]
        fetching.release()


@pytest.mark.parametrize(
    ("seconds", "left"), [(KEPT_ON_A_SHORT_DISK_SECONDS + 60, [False] * 3), (60, [True, False, True])]
)
def test_on_a_short_disk_less_is_kept(tmp_path: Path, seconds: float, left: list[bool]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", home], check=True)
    try:
        used = Used(tmp_path, home)
        used.age(seconds)
        (home / "filled").write_bytes(bytes(59 << 20))

        remove_unused(home)

        assert used.there() == left
    finally:
        subprocess.run(["umount", home], check=True)


def test_many_may_remove_at_once(tmp_path: Path) -> None:
    """Every worker looks when it starts."""
    old = time.time() - KEPT_SECONDS - 60
    for number in range(100):
        copy = tmp_path / "mounts" / f"{number:064x}"
        copy.mkdir(parents=True)
        mirror = tmp_path / "mirrors" / f"{number}.git"
        mirror.mkdir(parents=True)
        mirror.with_suffix(".lock").touch()
        for path in (copy, mirror.with_suffix(".lock")):
            os.utime(path, (old, old))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(remove_unused, tmp_path) for _ in range(4)]:
            done.result()

    assert not list(tmp_path.glob("*/*"))
