"""The fake instance is faithful and stands alone; and its faults are real ones."""

from __future__ import annotations

import ast
from pathlib import Path

import httpx
import pytest

from tests.instance.launcher import RunningInstance

FAKE = Path(__file__).parent / "instance"


@pytest.fixture
def instance(tmp_path: Path) -> RunningInstance:
    with RunningInstance(tmp_path / "instance") as running:
        yield running


def test_the_fake_imports_nothing_of_what_it_tests() -> None:
    """Written from the same facts, but apart: a shared mistake would hide itself."""
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for file in FAKE.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    assert "fastapi" in imported
    assert not {name for name in imported if name.split(".")[0] in ("flows", "blocks", "prefect")}
    assert {name for name in imported if name.split(".")[0] == "tests"} == {"tests.gitrepos"}  # the launcher's


def test_state_outlives_a_kill(instance: RunningInstance) -> None:
    instance.add_user("ada")

    instance.kill()
    instance.start()

    assert [row["username"] for row in instance.sql("SELECT username FROM users")] == ["ada"]


def test_every_third_request_fails_as_ordered(instance: RunningInstance) -> None:
    instance.fault("status", "/x", every=3, times=2, status=503, headers={"Retry-After": "1"}, body="busy")

    answers = [httpx.get(f"{instance.url}/x") for _ in range(9)]

    assert [answer.status_code for answer in answers] == [404, 404, 503, 404, 404, 503, 404, 404, 404]
    assert (answers[2].headers["Retry-After"], answers[2].text) == ("1", "busy")


@pytest.mark.parametrize("kind", ["cut", "cut-after", "cut-body"])
def test_a_connection_is_cut(instance: RunningInstance, kind: str) -> None:
    instance.fault(kind, "/x", times=1)

    with pytest.raises(httpx.TransportError):
        httpx.get(f"{instance.url}/x")

    assert httpx.get(f"{instance.url}/x").status_code == 404
