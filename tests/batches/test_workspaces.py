"""Which workspaces come out of revisions and rules."""

import pytest

from flows.batches.errors import ResolutionError, TemplateError
from flows.batches.spec import BatchSpec, Step, WorkspaceRule
from flows.batches.workspaces import (
    Revision,
    Rule,
    Workspace,
    branches_of,
    determine,
    folders_with,
    ignore_status,
    is_at_or_below,
    merge_rules,
)

ONE_STEP = (Step(run="true", container="alpine:3"),)
MONO = Revision("acme/mono", "main", "c1", ("api/c.go", "web/a.js", "web2/b.js"))


def spec(*rules: WorkspaceRule, steps: tuple[Step, ...] = ONE_STEP) -> BatchSpec:
    return BatchSpec(name="tidy", workspaces=rules, steps=steps)


def nowhere(revision: Revision, name: str) -> list[str]:
    return []


def test_search_results_belong_to_a_workspace_by_path_segment() -> None:
    """Decision 1: upstream gives web2/b.js to web."""
    found = determine(
        spec(WorkspaceRule(root_at_location_of="package.json")), [MONO], lambda revision, name: ["web2", "web", ""]
    )

    assert [(each.path, each.search_result_paths) for each in found] == [
        ("", ("api/c.go", "web/a.js", "web2/b.js")),
        ("web", ("web/a.js",)),
        ("web2", ("web2/b.js",)),
    ]


def test_the_root_is_never_fetched_alone() -> None:
    rule = WorkspaceRule(root_at_location_of="package.json", only_fetch_workspace=True)

    found = determine(spec(rule), [MONO], lambda revision, name: ["", "web"])

    assert [(each.path, each.only_fetch_workspace) for each in found] == [("", False), ("web", True)]


def test_branches_of_a_repository_are_workspaces_in_order() -> None:
    revisions = [Revision("b", "main", "1"), Revision("a", "v2", "2"), Revision("a", "v1", "3")]

    found = determine(spec(), revisions, nowhere)

    assert [(each.repository, each.branch) for each in found] == [("a", "v1"), ("a", "v2"), ("b", "main")]


def test_all_faults_of_globs_are_told() -> None:
    with pytest.raises(ResolutionError) as caught:
        determine(
            spec(WorkspaceRule(root_at_location_of="x", in_="[a"), WorkspaceRule(root_at_location_of="x", in_="{[")),
            [],
            nowhere,
        )

    assert [reason[:28] for reason in caught.value.reasons] == [
        'failed to compile glob "[a":',
        'failed to compile glob "{[":',
    ]


def test_a_repository_in_two_globs_is_told_once_for_all_its_branches() -> None:
    rules = (WorkspaceRule(root_at_location_of="x"), WorkspaceRule(root_at_location_of="y", in_="acme/*"))

    with pytest.raises(ResolutionError) as caught:
        determine(spec(*rules), [MONO, Revision("acme/mono", "dev", "c2")], nowhere)

    assert caught.value.reasons == (
        'repository acme/mono matches multiple workspaces.in globs in the batch spec. glob: "acme/*"',
    )


def test_steps_that_surely_do_not_run_are_named() -> None:
    steps = (
        Step(run="a", container="x", condition='${{ eq repository.name "other" }}'),
        Step(run="b", container="x", condition='${{ eq steps.path "" }}'),
    )

    [workspace] = determine(spec(steps=steps), [MONO], nowhere)

    assert workspace.skipped_steps == (0,)


def test_nothing_runs_where_no_step_is_left() -> None:
    assert determine(spec(steps=()), [MONO], nowhere) == ()
    assert determine(spec(steps=(Step(run="a", container="x", condition="false"),)), [MONO], nowhere) == ()


def test_a_condition_that_does_not_parse_stops_the_planning() -> None:
    with pytest.raises(TemplateError):
        determine(spec(steps=(Step(run="a", container="x", condition="${{ nope }}"),)), [MONO], nowhere)


def test_a_query_never_replaces_an_explicit_entry() -> None:
    explicit = Rule(explicit=True, revisions=(Revision("a", "dev", "1"),))
    query = Rule(explicit=False, revisions=(Revision("a", "main", "2", ("x",)), Revision("b", "main", "3")))

    assert merge_rules([explicit, query]) == (Revision("a", "dev", "1"), Revision("b", "main", "3"))
    assert merge_rules([query, explicit]) == (Revision("a", "dev", "1"), Revision("b", "main", "3"))


def test_a_later_query_replaces_the_file_matches_of_an_earlier_one() -> None:
    first = Rule(explicit=False, revisions=(Revision("a", "main", "1", ("x",)),))
    second = Rule(explicit=False, revisions=(Revision("a", "main", "1", ("y",)),))

    assert merge_rules([first, second]) == (Revision("a", "main", "1", ("y",)),)


def test_folders_are_found_by_the_whole_name() -> None:
    paths = [
        "package.json",
        "web/package.json",
        "web/xpackage.json",
        "web/package.json.bak",
        "a/b/package.json",
        "package_json",
    ]

    assert folders_with("package.json", paths) == ["", "a/b", "web"]
    assert folders_with("web/package.json", paths) == ["web"]


@pytest.mark.parametrize(
    ("path", "folder", "below"),
    [
        ("web/a", "web", True),
        ("web2/a", "web", False),
        ("web", "web", True),
        ("a", "", True),
        ("a/web/b", "web", False),
    ],
)
def test_a_path_is_below_a_folder_by_segments(path: str, folder: str, below: bool) -> None:
    assert is_at_or_below(path, folder) is below


def test_a_batchignore_has_to_be_a_file() -> None:
    assert ignore_status(None, allow_ignored=False) == "run"
    assert ignore_status("blob", allow_ignored=False) == "ignored"
    assert ignore_status("blob", allow_ignored=True) == "run"
    for kind in ("tree", "symlink", "commit"):
        with pytest.raises(ResolutionError, match=r'not a blob: "\.batchignore"'):
            ignore_status(kind, allow_ignored=True)


def test_branch_and_branches_exclude_each_other() -> None:
    assert branches_of(None, ["a", "b"]) == ("a", "b")
    assert branches_of("a", []) == ("a",)
    with pytest.raises(ValueError, match="both branch and branches specified"):
        branches_of("a", ["b"])


def test_a_workspace_survives_json() -> None:
    workspace = Workspace(repository="a", branch="main", commit="c", path="web", search_result_paths=("web/ä",))

    assert Workspace.model_validate_json(workspace.model_dump_json()) == workspace
    assert workspace.title == "a/web"
