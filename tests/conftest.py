"""What many tests stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeRuntime
from tests.workbench import Workbench

pytest_plugins = ["tests.harness", "tests.dashboard", "tests.browser", "tests.s3server"]


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
