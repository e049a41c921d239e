"""Processes that outlive the command that starts them, for real."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import processes
from flows.processes import Process

CHILD = """
import signal, sys, time
def clean_up(*_):
    time.sleep(0.3)
    print("cleaned up", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, clean_up)
print("child", flush=True)
time.sleep(60)
"""
PARENT = f"""
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
def hurry(*_):
    child.kill()
    sys.exit()
signal.signal(signal.SIGTERM, hurry)
time.sleep(60)
"""


def start(folder: Path, script: str) -> Process:
    return processes.start(
        (sys.executable, "-c", script), folder=folder, environment=dict(os.environ), log=folder / "log"
    )


def says(folder: Path, text: str) -> Callable[[], bool]:
    return lambda: text in (folder / "log").read_text()


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_is_nobodys_child_and_hears_an_interrupt(tmp_path: Path) -> None:
    """Prefect's worker ends itself with SIGINT, which what a shell starts in the background ignores."""
    report = "import os, signal; print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGINT), flush=True)"

    process = start(tmp_path, report)
    wait(lambda: not process.is_alive())

    assert (tmp_path / "log").read_text() == "True <built-in function default_int_handler>\n"
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, 0)


def test_another_process_of_the_same_id_is_not_ours() -> None:
    process = Process(os.getpid(), "another birth")

    process.end(1)
    process.end_after_children(1)

    assert not process.is_alive()
    assert Process.of(os.getpid()).is_alive()


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    process = start(tmp_path, deaf)
    wait(says(tmp_path, "deaf"))

    process.end(0.2)
    wait(lambda: not process.is_alive())


def test_children_end_in_peace_before_one_that_would_kill_them(tmp_path: Path) -> None:
    parent = start(tmp_path, PARENT)
    wait(says(tmp_path, "child"))

    parent.end_after_children(10)

    assert not parent.is_alive()
    assert "cleaned up" in (tmp_path / "log").read_text()


def test_the_end_of_a_log_says_where_the_rest_is(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {number}\n" for number in range(100)))

    *lines, where = processes.log_end(tmp_path / "log").splitlines()

    assert lines == [f"line {number}" for number in range(85, 100)]
    assert where == f"(the log: {tmp_path / 'log'})"
