"""Scratch folders die with their process; those of the living are left alone."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.scratch import scratch_folder, sweep

ROOT = Path(__file__).parent.parent

MAKER = """
import sys
from pathlib import Path
from flows.scratch import scratch_folder

with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    input()
"""


def test_leaving_removes_it(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        (folder / "file").write_text("x")

    assert list(tmp_path.iterdir()) == []


def test_renamed_it_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        (folder / "file").write_text("x")
        folder.rename(tmp_path / "done")

    assert (tmp_path / "done/file").read_text() == "x"


def test_a_sweep_removes_those_of_killed_processes_only(tmp_path: Path) -> None:
    (tmp_path / "something").mkdir()
    command = [sys.executable, "-c", MAKER, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        theirs = Path(maker.stdout.readline().strip())
        with scratch_folder(tmp_path) as ours:
            sweep(tmp_path)
            assert theirs.is_dir()

            maker.kill()
            maker.wait()
            sweep(tmp_path)

            assert not theirs.exists()
            assert ours.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_a_sweep_at_the_same_time_takes_no_folder_away(tmp_path: Path) -> None:
    def make(number: int) -> bool:
        with scratch_folder(tmp_path) as folder:
            (folder / "file").write_text(str(number))
            return (folder / "file").read_text() == str(number)

    with ThreadPoolExecutor(4) as pool:
        sweeps = [pool.submit(sweep, tmp_path) for _ in range(200)]
        made = list(pool.map(make, range(200)))
        for one in sweeps:
            one.result()

    assert all(made)
    assert list(tmp_path.iterdir()) == []


def test_there_may_be_nothing_to_sweep(tmp_path: Path) -> None:
    sweep(tmp_path / "nowhere")
