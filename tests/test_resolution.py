"""Batch specs resolved on real repositories."""

from pathlib import Path

import pytest

from blocks.repositories import RepositoryFolder, RepositoryList
from flows.batches.errors import ResolutionError, TemporaryError
from flows.batches.spec import BatchSpec, ImportChangesets, OnQuery, OnRepository, Step, WorkspaceRule
from flows.resolution import Resolution, resolve
from tests.gitrepos import commit_files, make_repository, run_git


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_repository(
        tmp_path / "src/acme/app", {"README.md": "hello\n", "web/package.json": "{}\n", "web2/package.json": "{}\n"}
    )
    make_repository(tmp_path / "src/acme/lib", {"README.md": "hello\n"})
    return tmp_path


def run(
    folder: Path, *on: OnQuery | OnRepository, only: str = "*", allow_ignored: bool = False, **spec: object
) -> Resolution:
    batch = BatchSpec.model_validate(
        {"name": "x", "on": on, "steps": (Step(run="true", container="alpine:3"),), **spec}
    )
    source = RepositoryFolder(folder=str(folder / "src"))
    return resolve(batch, source, folder / "mirrors", only=only, allow_ignored=allow_ignored, jobs=4)


def places(resolution: Resolution) -> list[tuple[str, str, str]]:
    return [(each.repository, each.branch, each.path) for each in resolution.workspaces]


def test_a_query_gives_workspaces_whose_commits_are_in_the_mirrors(folder: Path) -> None:
    found = run(folder, OnQuery(query="file:README.md hello"))

    assert places(found) == [("acme/app", "main", ""), ("acme/lib", "main", "")]
    for workspace in found.workspaces:
        assert workspace.search_result_paths == ("README.md",)
        assert run_git(found.mirrors[workspace.repository], "cat-file", "-t", workspace.commit) == "commit"


def test_explicit_entries_and_branches(folder: Path) -> None:
    dev = commit_files(folder / "src/acme/app", {"x": "x"}, branch="dev")
    run_git(folder / "src/acme/app", "checkout", "--quiet", "main")

    found = run(
        folder,
        OnRepository(repository="acme/app", branches=("dev", "refs/heads/main", "dev")),
        OnRepository(repository="acme/lib"),
        OnQuery(query="repo:acme"),
    )

    assert places(found) == [("acme/app", "dev", ""), ("acme/app", "main", ""), ("acme/lib", "main", "")]
    assert found.workspaces[0].commit == dev


def test_workspaces_are_the_folders_that_hold_a_file(folder: Path) -> None:
    found = run(
        folder,
        OnQuery(query="file:package.json"),
        OnRepository(repository="acme/lib"),
        workspaces=(WorkspaceRule(root_at_location_of="package.json", in_="*app", only_fetch_workspace=True),),
    )

    assert places(found) == [("acme/app", "main", "web"), ("acme/app", "main", "web2"), ("acme/lib", "main", "")]
    assert found.workspaces[0].only_fetch_workspace
    assert found.workspaces[0].search_result_paths == ("web/package.json",)


def test_nothing_found_is_an_answer(folder: Path) -> None:
    assert run(folder, OnQuery(query="no such thing")) == Resolution()
    assert run(folder) == Resolution()


def test_everything_that_is_wrong_is_told_together(folder: Path) -> None:
    make_repository(folder / "src/acme/empty")

    with pytest.raises(ResolutionError) as caught:
        run(
            folder,
            OnQuery(query='author:me "x"'),
            OnRepository(repository="acme/apq"),
            OnRepository(repository="acme/app", branches=("nope", "neither")),
            OnRepository(repository="acme/empty"),
            OnQuery(query=""),
            import_changesets=(ImportChangesets(repository="github.com/x/y", external_ids=("1",)),),
        )

    assert caught.value.reasons == (
        r'resolving "author:me \"x\"": "author:me" cannot be answered from git: '
        "only the files of one commit are searched, not the history",
        'resolving "repository:acme/apq": repository "acme/apq" not found, did you mean "acme/app"?',
        'resolving "repository:acme/app": no branch matching "nope" found for repository acme/app',
        'resolving "repository:acme/app": no branch matching "neither" found for repository acme/app',
        'resolving "repository:acme/empty": repository acme/empty is empty: it has no commit',
        "resolving \"\": malformed 'on' field; missing either a repository name or a query",
        'importChangesets: repository "github.com/x/y" not found (there are 3 repositories)',
    )


def test_a_query_skips_empty_repositories_with_a_reason(folder: Path) -> None:
    make_repository(folder / "src/acme/empty")

    assert run(folder, OnQuery(query="repo:acme")).skipped == (("acme/empty", "is empty: it has no commit"),)


def test_a_batchignore_keeps_a_repository_out_unless_allowed(folder: Path) -> None:
    commit_files(folder / "src/acme/app", {".batchignore": ""})
    commit_files(folder / "src/acme/lib", {"pkg/.batchignore": ""})
    on = OnQuery(query="repo:acme")

    asked = run(folder, on)
    allowed = run(folder, on, allow_ignored=True)

    assert places(asked) == [("acme/lib", "main", "")]
    assert asked.ignored == (("acme/app", "there is a .batchignore in its root"),)
    assert [(each.repository, each.ignored) for each in allowed.workspaces] == [("acme/app", True), ("acme/lib", False)]
    assert allowed.ignored == ()


def test_a_batchignore_that_is_a_folder_is_an_error(folder: Path) -> None:
    commit_files(folder / "src/acme/app", {".batchignore/x": ""})

    with pytest.raises(ResolutionError, match=r'^repository acme/app: not a blob: "\.batchignore"$'):
        run(folder, OnRepository(repository="acme/app"))


def test_only_some_repositories_can_be_tried_out(folder: Path) -> None:
    on = (OnQuery(query="repo:acme"), OnRepository(repository="acme/lib", branches=("nope",)))

    assert places(run(folder, *on, only="*/app")) == [("acme/app", "main", "")]
    with pytest.raises(ResolutionError, match="unexpected end of input"):
        run(folder, *on, only="[")


def test_trouble_that_may_pass_is_a_temporary_error(folder: Path) -> None:
    source = RepositoryList(repositories="- {name: far, url: 'http://127.0.0.1:1/x'}")
    spec = BatchSpec(name="x", on=(OnQuery(query="repo:far"),), steps=(Step(run="", container="a"),))

    with pytest.raises(TemporaryError, match='resolving "repo:far": repository far: git ls-remote failed'):
        resolve(spec, source, folder / "mirrors")


def test_a_source_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ResolutionError, match="there is no folder"):
        run(tmp_path)


def test_resolving_again_fetches_nothing_and_finds_the_same(folder: Path) -> None:
    first = run(folder, OnQuery(query="hello"))
    packs = sorted((folder / "mirrors").rglob("*"))

    assert run(folder, OnQuery(query="hello")) == first
    assert sorted((folder / "mirrors").rglob("*")) == packs
