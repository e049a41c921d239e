"""The fake instance is faithful and stands alone; and its faults are real ones."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.instance.launcher import Account, RunningInstance

FAKE = Path(__file__).parent / "instance"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[RunningInstance]:
    """One to be killed."""
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
    assert {name for name in imported if name.split(".")[0] == "tests"} == {
        "tests.gitrepos",
        "tests.ports",
    }  # the launcher's


def test_state_outlives_a_kill(instance: RunningInstance) -> None:
    instance.add_user("ada")

    instance.kill()
    instance.start()

    assert [row["username"] for row in instance.sql("SELECT username FROM users")] == ["ada"]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningInstance, Account]]:
    with RunningInstance(tmp_path_factory.mktemp("strict")) as running:
        running.add_repository("github.com/acme/a", {"a": "1\n"})
        yield running, running.add_user("ada")


def graphql(strict: tuple[RunningInstance, Account], query: str, **variables: object) -> dict[str, Any]:
    instance, ada = strict
    body = gzip.compress(json.dumps({"query": query, "variables": variables}).encode())
    headers = {"Authorization": f"token {ada.token}", "Content-Encoding": "gzip"}
    answer = httpx.post(f"{instance.url}/.api/graphql", content=body, headers=headers)
    assert answer.status_code == 200
    return dict(answer.json())


@pytest.mark.parametrize(
    ("query", "variables", "said"),
    [
        ("{currentUser{id nonsense}}", {}, "Cannot query field"),
        ("query($n:Int!){repository(name:$n){id}}", {"n": 1}, "used in position expecting type 'String'"),
        ("query($n:String!){repository(name:$n){id}}", {}, "to be provided"),
        ("mutation{createChangesetSpec(changesetSpec:\"{\"){... on VisibleChangesetSpec{id}}}", {}, "failed to parse"),
        ("mutation{applyBatchChange(batchSpec:\"x\"){url}}", {}, "batch spec not found"),
    ],
)  # fmt: skip
def test_it_refuses_what_the_schema_does_not_have(
    strict: tuple[RunningInstance, Account], query: str, variables: dict[str, object], said: str
) -> None:
    assert said in graphql(strict, query, **variables)["errors"][0]["message"]


@pytest.mark.parametrize(
    "change", [{"published": None}, {"title": None}, {"headRef": "main"}, {"more": 1}, {"commits": []}, {"fork": "no"}]
)
def test_it_refuses_changeset_specs_as_upstreams_schema_does(
    strict: tuple[RunningInstance, Account], change: dict[str, object]
) -> None:
    id = graphql(strict, '{repository(name:"github.com/acme/a"){id}}')["data"]["repository"]["id"]
    diff = "diff --git a a\n--- a\n+++ a\n@@ -1 +1 @@\n-1\n+2\n"
    good = {
        **{"baseRepository": id, "baseRef": "refs/heads/main", "baseRev": "1" * 40, "headRepository": id},
        **{"headRef": "refs/heads/x", "title": "T", "body": ""},
        "commits": [{"message": "M", "diff": diff, "authorName": "A", "authorEmail": "a@b.example"}],
    }
    mutation = "mutation($s:String!){createChangesetSpec(changesetSpec:$s){... on VisibleChangesetSpec{id}}}"

    assert "errors" not in graphql(strict, mutation, s=json.dumps(good))
    assert "errors" in graphql(strict, mutation, s=json.dumps({**good, **change}))


def test_nothing_is_open_without_a_token(strict: tuple[RunningInstance, Account]) -> None:
    instance, ada = strict
    instance.admin("DELETE", f"tokens/{instance.admin('POST', 'users/ada/tokens')}")

    for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": f"Bearer {ada.token}"}):
        assert httpx.post(f"{instance.url}/.api/graphql", json={"query": "{x}"}, headers=headers).status_code == 401
        assert httpx.get(f"{instance.url}/.api/search/stream?q=x", headers=headers).status_code == 401
    git = f"{instance.url}/.executors/git/github.com/acme/a/info/refs?service=git-upload-pack"
    assert httpx.get(git).status_code == 500  # executors.accessToken is not set


def test_every_third_request_fails_as_ordered(strict: tuple[RunningInstance, Account]) -> None:
    instance, _ = strict
    instance.fault("status", "/x", every=3, times=2, status=503, headers={"Retry-After": "1"}, body="busy")

    answers = [httpx.get(f"{instance.url}/x") for _ in range(9)]

    assert [answer.status_code for answer in answers] == [404, 404, 503, 404, 404, 503, 404, 404, 404]
    assert (answers[2].headers["Retry-After"], answers[2].text) == ("1", "busy")


@pytest.mark.parametrize("kind", ["cut", "cut-after", "cut-body"])
def test_a_connection_is_cut(strict: tuple[RunningInstance, Account], kind: str) -> None:
    instance, _ = strict
    instance.fault(kind, "/x", times=1)

    with pytest.raises(httpx.TransportError):
        httpx.get(f"{instance.url}/x")

    assert httpx.get(f"{instance.url}/x").status_code == 404
