"""What many tests stand on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeRuntime
from tests.workbench import Workbench

_WAITING = {"browser", "docker", "flow", "s3"}
"""Markers of tests that take seconds."""

_LONGEST = ("browser", "shards", "cli", "hostile", "deployments", "publishing", "never_leaks", "batch_change")
"""Files of minutes: those that compute beside those that wait."""

pytest_plugins = ["tests.harness", "tests.dashboard", "tests.browser", "tests.s3server"]


def pytest_configure() -> None:
    """Let signals end what the tests start: nohup, a shell's `&` and some CI runners hand them down ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, then those that wait for engines and servers: the quick ones fill what is left."""
    ranks: dict[str, int] = {f"test_{name}.py": rank for rank, name in enumerate(_LONGEST)}
    waiting = {item.path for item in items if {mark.name for mark in item.iter_markers()} & _WAITING}
    items.sort(key=lambda item: (ranks.get(item.path.name, len(ranks)), item.path not in waiting))


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
