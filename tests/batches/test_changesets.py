"""Changeset specs: what upstream would build, and what an instance would refuse, said before anything is sent."""

import json
from typing import Any

import pytest

from flows.batches.changeset_schema import faults
from flows.batches.changesets import (
    DEFAULT_AUTHOR,
    BaseRepository,
    ChangesetSpec,
    build,
    check_duplicates,
    draft,
    evaluate_published,
    import_specs,
)
from flows.batches.errors import ChangesetError, TemplateError
from flows.batches.spec import Author, BatchSpec, ChangesetTemplate, Group, ImportChangesets, PublishedRule

REPOSITORY = BaseRepository(
    id="id", name="github.com/acme/widget", base_ref="refs/heads/main", base_rev="c0ffee", file_matches=("b", "a")
)


def _entry(path: str) -> bytes:
    return f"diff --git {path} {path}\nold mode 100644\nnew mode 100755\n".encode()


def _spec(groups: tuple[Group, ...] = (), **template: Any) -> BatchSpec:
    fields = {"title": "T", "body": "B", "branch": "tidy", "message": "M", **template}
    return BatchSpec(name="tidy", description="d", groups=groups, changeset_template=ChangesetTemplate(**fields))


def _build(spec: BatchSpec, diff: bytes = _entry("x"), **arguments: Any) -> tuple[ChangesetSpec, ...]:
    return build(spec, REPOSITORY, **{"path": "", "outputs": {}, "diff": diff, **arguments})


def test_a_changeset_spec_is_encoded_as_upstream_does() -> None:
    (spec,) = _build(_spec(published=False), binary_diffs=False)

    assert json.dumps(spec.encode()) == json.dumps(
        {
            "baseRepository": "id",
            "baseRev": "c0ffee",
            "baseRef": "refs/heads/main",
            "headRepository": "id",
            "headRef": "refs/heads/tidy",
            "title": "T",
            "body": "B",
            "commits": [
                {
                    "message": "M",
                    "diff": _entry("x").decode(),
                    "authorName": "Sourcegraph",
                    "authorEmail": "batch-changes@sourcegraph.com",
                }
            ],
            "published": False,
        }
    )


def test_an_empty_diff_makes_no_changeset_spec() -> None:
    assert _build(_spec(), diff=b"") == ()
    assert _build(BatchSpec(name="n"), diff=_entry("x")) == ()


def test_every_field_is_rendered_in_the_changeset_context() -> None:
    spec = _spec(
        title="${{ repository.name }}@${{ repository.branch }}",
        body='${{ join steps.modified_files "," }} ${{ batch_change.name }} ${{ repository.search_result_paths }}',
        branch="${{ batch_change.name }}/${{ steps.path }}",
        message="${{ batch_change.description }} ${{ outputs.x }}",
        author=Author(name="${{ outputs.who }}", email="${{ outputs.who }}@example.com"),
    )

    (built,) = _build(spec, diff=_entry("x") + _entry("y"), path="pkg/web", outputs={"x": 3.0, "who": "ada"})

    assert built.commit is not None
    assert built.title == "github.com/acme/widget@main"
    assert built.body == "x,y tidy a b"
    assert built.branch == "tidy/pkg/web"
    assert built.commit.message == "d 3"
    assert built.commit.author == Author(name="ada", email="ada@example.com")


def test_the_author_is_the_templates_else_the_callers_else_the_default() -> None:
    caller = Author(name="Grace", email="grace@example.com")
    own = Author(name="Ada", email="ada@example.com")

    authors = [
        _build(spec, fallback_author=fallback)[0].commit
        for spec, fallback in [(_spec(author=own), caller), (_spec(), caller), (_spec(), None)]
    ]

    assert [commit.author for commit in authors if commit] == [own, caller, DEFAULT_AUTHOR]


def test_groups_make_one_changeset_spec_per_branch_sorted_and_none_without_files() -> None:
    groups = (
        Group(directory="d", branch="z"),
        Group(directory="e", branch="a"),
        Group(directory="unused", branch="never"),
        Group(directory="x", branch="other", repository="github.com/acme/other"),
    )
    diff = _entry("d/1") + _entry("e/1") + _entry("d/2") + _entry("x/1")

    specs = _build(_spec(groups), diff=diff)

    assert [(spec.branch, spec.commit.diff) for spec in specs if spec.commit] == [
        ("a", _entry("e/1")),
        ("tidy", _entry("x/1")),
        ("z", _entry("d/1") + _entry("d/2")),
    ]


def test_the_default_branch_gets_nothing_if_everything_is_grouped() -> None:
    specs = _build(_spec((Group(directory="d", branch="g"),)), diff=_entry("d/1"))

    assert [spec.branch for spec in specs] == ["g"]


def test_a_group_with_the_templates_branch_is_refused() -> None:
    with pytest.raises(ChangesetError, match='is the same as branch "tidy" in changesetTemplate'):
        _build(_spec((Group(directory="d", branch="tidy"),)))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"branch": "${{ steps.path }}"}, r"changesetTemplate\.branch '': Does not match pattern"),
        ({"branch": "a b"}, r"changesetTemplate\.branch 'a b': Does not match pattern"),
        (
            {"author": {"name": "n", "email": "${{ outputs.mail }}"}},
            r"changesetTemplate\.commit\.author\.email 'nope': Does not match format 'email'",
        ),
        ({"title": " "}, r"changesetTemplate\.title renders to nothing"),
        ({"message": "${{ steps.path }}"}, r"changesetTemplate\.commit\.message renders to nothing"),
    ],
)
def test_what_an_instance_would_refuse_is_refused_after_rendering(template: dict[str, Any], message: str) -> None:
    with pytest.raises(ChangesetError, match=message):
        _build(_spec(**template), outputs={"mail": "nope"})


def test_a_group_with_a_branch_that_an_instance_would_refuse_is_named() -> None:
    with pytest.raises(ChangesetError, match=r"transformChanges\.group\.branch 'a b': Does not match pattern"):
        _build(_spec((Group(directory="d", branch="a b"),)), diff=_entry("d/1"))


def test_an_empty_body_is_fine() -> None:
    (spec,) = _build(_spec(body=""))

    assert "body" not in spec.encode()


def test_a_base_that_is_no_branch_is_refused() -> None:
    base = BaseRepository(id="r", name="r", base_ref="main", base_rev="c")

    with pytest.raises(ChangesetError, match="r: baseRef: Does not match pattern"):
        build(_spec(), base, path="", outputs={}, diff=_entry("x"))
    assert draft(_spec(), base, path="", outputs={}, diff=_entry("x"))[0].base_ref == "main"


def test_a_missing_output_is_an_error_with_its_field() -> None:
    with pytest.raises(TemplateError, match=r"changesetTemplate\.title: .*map has no entry for key \"v\""):
        _build(_spec(title="${{ outputs.v }}"))


def test_bytes_that_are_not_utf_8_survive_in_binary_diffs_only() -> None:
    diff = b"diff --git x x\nnew file mode 100644\n--- /dev/null\n+++ x\n@@ -0,0 +1 @@\n+\xff\n"

    (binary,), (text,) = _build(_spec(), diff=diff), _build(_spec(), diff=diff, binary_diffs=False)

    assert binary.encode()["commits"] != text.encode()["commits"]
    assert "+\ufffd\n" in json.dumps(text.encode(), ensure_ascii=False).encode().decode().replace("\\n", "\n")


def test_bytes_that_are_not_utf_8_become_one_mark_each_in_the_json() -> None:
    # A file's name may hold them, and a UTF-8 sequence may be cut short.
    diff = b"diff --git x x\nnew file mode 100644\n--- /dev/null\n+++ x\n@@ -0,0 +1 @@\n+\xe2\x82\n"
    spec = _spec(title="${{ index outputs `name` }}", message="${{ outputs.name }}")

    (made,) = _build(spec, diff=diff, outputs={"name": "latin-\udce9.txt"}, binary_diffs=False)

    content = json.loads(json.dumps(made.encode(), ensure_ascii=False).encode())
    assert (content["title"], content["commits"][0]["message"]) == ("latin-\ufffd.txt", "latin-\ufffd.txt")
    assert content["commits"][0]["diff"].endswith("\n+\ufffd\ufffd\n")


def _rules(*rules: tuple[str, Any]) -> tuple[PublishedRule, ...]:
    return tuple(PublishedRule(pattern=pattern, value=value) for pattern, value in rules)


@pytest.mark.parametrize(
    ("published", "branch", "value"),
    [
        (None, "b", None),
        (False, "b", False),
        ("draft", "b", "draft"),
        (_rules(("*", True), ("github.com/acme/*", "draft")), "b", "draft"),
        (_rules(("*", True), ("gitlab.com/*", False)), "b", True),
        (_rules(("*@b", True)), "refs/heads/b", True),
        (_rules(("*@refs/heads/b", True)), "refs/heads/b", True),
        (_rules(("*@b@c", True)), "b@c", True),
        (_rules(("*@b*", True)), "bb", None),
        (_rules(("*@", False)), "b", False),
    ],
)
def test_the_last_matching_rule_says_whether_to_publish(published: Any, branch: str, value: Any) -> None:
    assert evaluate_published(published, "github.com/acme/widget", branch) is value


def test_two_changeset_specs_of_one_branch_are_refused_all_at_once() -> None:
    (one,) = _build(_spec())
    (same,) = _build(_spec(branch="refs/heads/tidy"))
    imported = import_specs([ImportChangesets(repository="r", external_ids=("1", "1"))], {"r": "r"})

    check_duplicates([one, *imported])
    with pytest.raises(ChangesetError) as caught:
        check_duplicates([one, same, *imported])

    assert "Multiple changeset specs have the same branch:" in str(caught.value)
    assert '* github.com/acme/widget: 2 changeset specs have the branch "tidy"' in str(caught.value)


def test_imports_are_one_changeset_spec_per_external_id() -> None:
    imports = [ImportChangesets(repository="r", external_ids=("12", "PR-3"))]

    encoded = [spec.encode() for spec in import_specs(imports, {"r": "id"})]

    assert encoded == [
        {"baseRepository": "id", "externalID": "12"},
        {"baseRepository": "id", "externalID": "PR-3"},
    ]
    assert not any(faults(spec) for spec in encoded)


def test_all_unknown_repositories_of_imports_are_named() -> None:
    imports = [ImportChangesets(repository=name, external_ids=("1",)) for name in ("a", "b", "a")]

    with pytest.raises(ChangesetError) as caught:
        import_specs(imports, {})

    assert str(caught.value) == 'repository "a" not found\nrepository "b" not found'


def test_what_is_built_is_what_an_instance_takes() -> None:
    specs = _build(_spec(fork=True, published="draft"))

    assert [faults(spec.encode()) for spec in specs] == [()]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"headRepository": "other"}, "headRepository does not match baseRepository"),
        ({"commits": []}, "commits: Array must have at least 1 items"),
        ({"title": None}, "title: Invalid type. Expected: string, given: null"),
        ({"more": 1}, "Additional property more is not allowed"),
        ({"published": "pushed-only"}, "published: Does not match pattern '^draft$'"),
    ],
)
def test_what_an_instance_refuses_is_told_in_its_words(change: dict[str, Any], fault: str) -> None:
    (spec,) = _build(_spec())

    assert any(str(each).endswith(fault) for each in faults({**spec.encode(), **change}))
