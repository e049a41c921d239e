"""What many tests stand on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeRuntime
from tests.workbench import Workbench

pytest_plugins = ["tests.harness", "tests.dashboard", "tests.browser", "tests.s3server"]


def pytest_configure() -> None:
    """Let signals end what the tests start: nohup, a shell's `&` and some CI runners hand them down ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def runtime() -> FakeRuntime:
    """A runtime without an engine."""
    return FakeRuntime()


@pytest.fixture
def bench(tmp_path: Path, runtime: FakeRuntime) -> Iterator[Workbench]:
    """A repository with three files, and everything that its steps need."""
    files = {"README.md": "hello\n", "src/main.py": "print(1)\n", "src/old.py": "old\n"}
    with Workbench(tmp_path, files, runtime=runtime) as workbench:
        yield workbench
