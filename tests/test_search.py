"""Queries answered from real repositories."""

import os
from pathlib import Path

import pytest

from blocks.repositories import RepositoryFolder
from flows.batches.query import QueryError, parse_query
from flows.gitcommand import GitFailed
from flows.mirror import Mirror
from flows.search import Answer, answer
from tests.gitrepos import commit_files, make_repository, run_git


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    make_repository(
        folder / "src/acme/app",
        {
            "README.md": "Hello World\nsee lodash\n",
            "main.go": 'package main\n\nimport "fmt"\n',
            "web/package.json": '{"dependencies": {"lodash": "1"}}\n',
            "web/a b.ts": "import x from 'y'\n",
            "vendor/x.go": "package x\n",
        },
    )
    run_git(folder / "src/acme/app", "branch", "old")
    run_git(folder / "src/acme/app", "tag", "v1")
    commit_files(folder / "src/acme/app", {"new.txt": "brand new hello\n"})
    make_repository(folder / "src/acme/lodash", {"README": "nothing\n", "Dockerfile": "FROM alpine:3\n"}, bare=True)
    make_repository(folder / "src/other/lib", {"readme.md": "hello\n", "lib.py": "import fmt\nWorld = 1\n"})
    make_repository(folder / "src/other/none")
    return folder


def ask(folder: Path, text: str, version: int = 1) -> Answer:
    source = RepositoryFolder(folder=str(folder / "src")).locations()
    mirrors = [Mirror(folder / "mirrors", location) for location in source.values()]
    return answer(parse_query(text, version=version), mirrors, jobs=4)


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        ("repo:acme", 1, {"acme/app": (), "acme/lodash": ()}),
        ("repo:acme -repo:app", 1, {"acme/lodash": ()}),
        ("repo:^other/ or repo:lodash$", 1, {"acme/lodash": (), "other/lib": ()}),
        ("file:readme.md$", 1, {"acme/app": ("README.md",), "other/lib": ("readme.md",)}),
        ("file:readme.md$ case:yes", 1, {"other/lib": ("readme.md",)}),
        ("file:README.md hello world", 1, {"acme/app": ("README.md",)}),
        ("file:README.md world hello", 1, {}),
        ("file:README.md world hello", 2, {"acme/app": ("README.md",)}),
        ("hello", 1, {"acme/app": ("README.md", "new.txt"), "other/lib": ("readme.md",)}),
        ("hello case:yes", 1, {"acme/app": ("new.txt",), "other/lib": ("readme.md",)}),
        ("lodash", 1, {"acme/app": ("README.md", "web/package.json"), "acme/lodash": ()}),
        ("content:lodash", 1, {"acme/app": ("README.md", "web/package.json")}),
        ("lodash select:repo", 1, {"acme/app": (), "acme/lodash": ()}),
        ("lodash type:repo", 1, {"acme/lodash": ()}),
        ("lodash type:path", 1, {}),
        ("package type:path", 1, {"acme/app": ("web/package.json",)}),
        ("package type:file", 1, {"acme/app": ("main.go", "vendor/x.go")}),
        ("lang:go -file:vendor", 1, {"acme/app": ("main.go",)}),
        ("lang:go repo:other", 1, {}),
        ("lang:dockerfile /^FROM\\s+alpine:\\d/", 1, {"acme/lodash": ("Dockerfile",)}),
        ("FROM.*alpine patterntype:regexp", 1, {"acme/lodash": ("Dockerfile",)}),
        ("fmt AND world", 1, {"other/lib": ("lib.py",)}),
        ("fmt NOT world", 1, {"acme/app": ("main.go",)}),
        ("file:\\.py$ NOT hello", 1, {"other/lib": ("lib.py",)}),
        ("(fmt or alpine) -lang:python", 1, {"acme/app": ("main.go",), "acme/lodash": ("Dockerfile",)}),
        ("(repo:app fmt) or (repo:lib world)", 1, {"acme/app": ("main.go",), "other/lib": ("lib.py",)}),
        ("import x from 'y'", 1, {"acme/app": ("web/a b.ts",)}),
        ("repo:has.path(Dockerfile)", 1, {"acme/lodash": ()}),
        ("-repo:has.path(Dockerfile) repo:acme", 1, {"acme/app": ()}),
        ("repo:has.file(path:README content:lodash)", 1, {"acme/app": ()}),
        ("repo:has.content(lodash) file:go$", 1, {"acme/app": ("main.go", "vendor/x.go")}),
        ("file:has.content(lodash) -file:has.content(Hello)", 1, {"acme/app": ("web/package.json",)}),
        ("repo:app@v1 new", 1, {}),
        ("repo:app@old:main new", 1, {"acme/app": ("new.txt",)}),
        ("repo:app rev:nope hello", 1, {}),
        ("repo:app hello count:1", 1, {"acme/app": ("README.md",)}),
        ("hello count:2", 1, {"acme/app": ("README.md", "new.txt")}),
        ("no such thing", 1, {}),
    ],
)
def test_queries_find_what_they_say(
    folder: Path, text: str, version: int, expected: dict[str, tuple[str, ...]]
) -> None:
    found = ask(folder, text, version)

    assert {name: match.paths for name, match in found.matches.items()} == expected
    assert not found.failures


def test_a_match_runs_on_the_default_branch_whatever_revision_was_searched(folder: Path) -> None:
    match = ask(folder, "repo:app@old file:README").matches["acme/app"]

    assert match.branch.name == "main"
    assert match.branch.commit == run_git(folder / "src/acme/app", "rev-parse", "main")


def test_repositories_without_commits_are_skipped_with_a_reason(folder: Path) -> None:
    assert ask(folder, "hello").skipped == {"other/none": "is empty: it has no commit"}
    assert ask(folder, "repo:acme hello").skipped == {}


def test_many_candidates_are_searched_as_one(folder: Path, tmp_path: Path) -> None:
    names = {f"d/{number}.txt": f"number {number}\n" for number in range(700)}
    make_repository(tmp_path / "src/big", {**names, "e.md": "number 7\n"})

    [match] = ask(tmp_path, "file:txt$ /number 6$/").matches.values()

    assert match.paths == ("d/6.txt",)


def test_a_broken_repository_does_not_stop_the_others(tmp_path: Path) -> None:
    make_repository(tmp_path / "src/good", {"a": "hello\n"})
    make_repository(tmp_path / "src/bad", {"a": "hello\n"}, bare=True)
    for file in (tmp_path / "src/bad/objects").rglob("*"):
        if file.is_file():
            os.truncate(file, 3) if os.access(file, os.W_OK) else file.unlink()

    found = ask(tmp_path, "hello")

    assert list(found.matches) == ["good"]
    assert isinstance(found.failures["bad"], GitFailed)


def test_patterns_that_explode_end_with_an_error(folder: Path, tmp_path: Path) -> None:
    """Git's engine counts its steps."""
    make_repository(tmp_path / "src/r", {"a": "a" * 40 + "b\n"})

    with pytest.raises(QueryError, match="git cannot look for"):
        ask(tmp_path, "content:/^(a|a|a)*(a|aa)*$/")
