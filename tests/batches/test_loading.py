"""A batch spec is loaded whole or refused with all of its faults, each with its place and what to do."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.addresses import is_address
from flows.batches.documents import Json
from flows.batches.errors import Fault, SpecError
from flows.batches.loading import load_spec, parse_spec, validate
from flows.batches.spec import (
    Author,
    BatchSpec,
    EnvEntry,
    Group,
    ImportChangesets,
    Mount,
    OnQuery,
    OnRepository,
    Output,
    PublishedRule,
    WorkspaceRule,
)

TEMPLATE = "changesetTemplate: {title: t, branch: b, commit: {message: m}}\n"

FULL = """\
version: 2
name: full
description: All that a spec can say.
on:
  - repositoriesMatchingQuery: lang:go
  - repository: github.com/acme/one
  - {repository: github.com/acme/two, branch: main}
  - {repository: github.com/acme/three, branches: [a, b]}
workspaces:
  - rootAtLocationOf: go.mod
  - {rootAtLocationOf: package.json, in: "github.com/*", onlyFetchWorkspace: true}
steps:
  - run: |
      echo ${{ repository.name }}
    container: alpine:3
    env: [TOKEN, {A: b}]
    files: {/tmp/a: text}
    outputs: {o: {value: "${{ step.stdout }}", format: json}, p: {value: v}}
    if: ${{ eq repository.name "x" }}
    mount: [{path: scripts, mountpoint: /scripts}]
  - {run: "true", container: alpine:3, env: {C: d}, if: false}
transformChanges:
  group:
    - {directory: a, branch: in-a}
    - {directory: b, branch: in-b, repository: github.com/acme/one}
importChangesets:
  - {repository: github.com/acme/one, externalIDs: [12, "13"]}
changesetTemplate:
  title: Title
  body: Body
  branch: branch
  fork: true
  commit:
    message: Message
    author: {name: Ada, email: ada@example.com}
  published:
    - "github.com/*": draft
    - "github.com/acme/*@branch": true
"""


def with_step(step: str) -> str:
    return f"name: a\nsteps:\n- run: x\n  container: y\n  {step}\n{TEMPLATE}"


def only_fault(text: str) -> Fault:
    (fault,) = validate(text)
    return fault


def test_everything_that_a_spec_says_is_in_the_models() -> None:
    spec = load_spec(FULL)

    template = spec.changeset_template
    assert template is not None
    assert (spec.version, spec.name, spec.description) == (2, "full", "All that a spec can say.")
    assert spec.on == (
        OnQuery(query="lang:go"),
        OnRepository(repository="github.com/acme/one"),
        OnRepository(repository="github.com/acme/two", branches=("main",)),
        OnRepository(repository="github.com/acme/three", branches=("a", "b")),
    )
    assert spec.workspaces == (
        WorkspaceRule(root_at_location_of="go.mod"),
        WorkspaceRule(root_at_location_of="package.json", in_="github.com/*", only_fetch_workspace=True),
    )
    first, second = spec.steps
    assert (first.run, first.container) == ("echo ${{ repository.name }}\n", "alpine:3")
    assert first.env == (EnvEntry(name="TOKEN", value=None), EnvEntry(name="A", value="b"))
    assert first.files == {"/tmp/a": "text"}
    assert first.outputs == {"o": Output(value="${{ step.stdout }}", format="json"), "p": Output(value="v")}
    assert first.condition == '${{ eq repository.name "x" }}'
    assert first.mounts == (Mount(path="scripts", mountpoint="/scripts"),)
    assert (second.env, second.condition) == ((EnvEntry(name="C", value="d"),), "false")
    assert spec.groups == (
        Group(directory="a", branch="in-a"),
        Group(directory="b", branch="in-b", repository="github.com/acme/one"),
    )
    assert spec.import_changesets == (ImportChangesets(repository="github.com/acme/one", external_ids=("12", "13")),)
    assert (template.title, template.body, template.branch, template.message) == ("Title", "Body", "branch", "Message")
    assert template.author == Author(name="Ada", email="ada@example.com")
    assert template.fork is True


def test_published_rules_keep_their_order_and_suffixes() -> None:
    template = load_spec(FULL).changeset_template

    assert template is not None
    assert template.published == (
        PublishedRule(pattern="github.com/*", value="draft"),
        PublishedRule(pattern="github.com/acme/*@branch", value=True),
    )


@pytest.mark.parametrize(("published", "value"), [("true", True), ("draft", "draft"), ("null", None), ("[]", ())])
def test_published_without_rules(published: str, value: object) -> None:
    template = load_spec(
        f"name: a\nchangesetTemplate: {{title: t, branch: b, commit: {{message: m}}, published: {published}}}\n"
    ).changeset_template

    assert template is not None
    assert template.published == value


def test_the_least_spec_has_the_defaults() -> None:
    assert load_spec("name: a\n") == BatchSpec(name="a")


@pytest.mark.parametrize(
    "nothing", ["on:", "workspaces:", "steps:", "transformChanges:", "importChangesets:", "on: []"]
)
def test_what_is_left_empty_is_as_if_left_out(nothing: str) -> None:
    assert load_spec(f"name: a\n{nothing}\n") == BatchSpec(name="a")


def test_all_faults_are_told_in_the_order_of_the_text() -> None:
    found = validate("name: bad name\nversion: 7\nsteps:\n- run: x\non:\n- {}\n")

    assert [(fault.line, str(fault)) for fault in found] == [
        (1, "name: The batch change name can only contain word characters, dots and dashes. "
            "No whitespace or newlines allowed."),
        (2, "version: version must be one of the following: 1, 2, 3"),
        (4, "steps.0: container is required"),
        (6, "on.0: Must validate one and only one schema (oneOf)"),
        (6, "on.0: repositoriesMatchingQuery is required"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("nam: a\nname: b\n", "", "Additional property nam is not allowed; did you mean 'name'?"),
        (
            with_step("contaner: y"),
            "steps.0",
            "Additional property contaner is not allowed; did you mean 'container'?",
        ),
        (
            with_step("timeout: 5"),
            "steps.0",
            "Additional property timeout is not allowed; time limits are set where the batch change is run",
        ),
        (
            "name: a\ntransformChanges: {group: [{directory: d, branch: b, title: t}]}\n",
            "transformChanges.group.0",
            "Additional property title is not allowed; every group has the title of the changesetTemplate",
        ),
        ("name: 12\n", "name", "Invalid type. Expected: string, given: integer; write it in quotes"),
        (
            "name: a\nimportChangesets: [{repository: r, externalIDs: [1, 1]}]\n",
            "importChangesets.0.externalIDs",
            "array items[0,1] must be unique",
        ),
    ],
)
def test_a_fault_says_what_to_do(text: str, path: str, message: str) -> None:
    fault = only_fault(text)

    assert (fault.path, fault.message) == (path, message)


def test_an_unknown_key_is_found_on_its_line() -> None:
    assert only_fault(with_step("env: {}\n  unheard: 1")).line == 6


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("version: 3\nname: bad name\nsteps: [{image: x}]\n", "version"),
        ("version: 3.0\n", "version"),
        ("version: 2\nname: a\nchangesetHooks: {}\n", "version"),
        (f"name: a\nsteps: [{{run: x, image: y}}]\n{TEMPLATE}", "steps.0"),
        (f"name: a\nsteps: [{{codingAgent: {{}}, container: y}}]\n{TEMPLATE}", "steps.0"),
        (with_step("buildImage: {}"), "steps.0"),
    ],
)
def test_version_3_is_refused_with_one_sentence(text: str, path: str) -> None:
    fault = only_fault(text)

    assert fault.path == path
    assert fault.message.endswith(
        "batch spec version 3, which is not supported: use version 1 or 2, whose steps have `run` and `container`"
    )


def test_an_image_beside_a_container_is_tolerated() -> None:
    assert validate(with_step("image: z")) == ()


def test_steps_need_a_changeset_template() -> None:
    assert only_fault("name: a\nsteps: [{run: x, container: y}]\n") == Fault(
        "", "batch spec includes steps but no changesetTemplate", 2
    )


@pytest.mark.parametrize(
    ("step", "path", "message"),
    [
        ('files: {"/a,b": x}', "steps.0.files./a,b", "step 1 files target path contains invalid characters"),
        ('files: {"/a\\0b": x}', "steps.0.files./a\0b", "step 1 files target path contains invalid characters"),
        ("files: {a: x}", "steps.0.files.a", "step 1 files target path 'a' is not absolute; begin it with /"),
        ("files: {/a/../b: x}", "steps.0.files./a/../b", "contains '..'; write the path without it"),
        ("files: {/./: x}", "steps.0.files././", "is the root of the container; name a path below it"),
        ('mount: [{path: "a,b", mountpoint: /m}]', "steps.0.mount.0.path", "mount path contains invalid characters"),
        (
            "mount: [{path: a, mountpoint: '/m,n'}]",
            "steps.0.mount.0.mountpoint",
            "step 1 mount mountpoint contains invalid characters",
        ),
        ("mount: [{path: a, mountpoint: m}]", "steps.0.mount.0.mountpoint", "'m' is not absolute; begin it with /"),
    ],
)
def test_a_target_that_no_container_can_have_is_refused(step: str, path: str, message: str) -> None:
    fault = only_fault(with_step(step))

    assert fault.path == path
    assert message in fault.message
    assert fault.line == 5


@pytest.mark.parametrize("target", ["/a..b", "/..a/b", "/work/new file", "/é"])
def test_an_odd_target_is_allowed(target: str) -> None:
    assert validate(with_step(f"files: {{{json.dumps(target)}: x}}")) == ()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('"["', "building rule for array entry 0: unexpected end of input"),
        ('"[@x"', "building rule for array entry 0: unexpected end of input"),
    ],
)
def test_a_glob_of_published_is_checked(rule: str, message: str) -> None:
    text = f"name: a\nchangesetTemplate: {{title: t, branch: b, commit: {{message: m}}, published: [{{{rule}: true}}]}}"

    assert only_fault(text) == Fault("changesetTemplate.published.0", message, 2)


def test_a_bad_template_is_a_fault_on_its_line() -> None:
    text = with_step("if: ${{ nope }}").replace("run: x", "run: |\n    one\n    two ${{ three }}")

    found = validate(text)

    assert [(fault.path, fault.line) for fault in found] == [("steps.0.run", 5), ("steps.0.if", 7)]
    assert "three" in found[0].message


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ("env: {A: '${{ x'}", "steps.0.env.A"),
        ("env: [{A: '${{ x'}]", "steps.0.env.A"),
        ("files: {/f: '${{ x'}", "steps.0.files./f"),
        ("outputs: {o: {value: '${{ x'}}", "steps.0.outputs.o.value"),
        ("if: '${{ x'", "steps.0.if"),
    ],
)
def test_every_templated_field_of_a_step_is_parsed(step: str, path: str) -> None:
    fault = only_fault(with_step(step))

    assert (fault.path, fault.line) == (path, 5)


@pytest.mark.parametrize(
    "path", ["title", "body", "branch", "commit.message", "commit.author.name", "commit.author.email"]
)
def test_every_templated_field_of_the_changeset_template_is_parsed(path: str) -> None:
    data: dict[str, Any] = {
        "title": "t",
        "body": "b",
        "branch": "c",
        "commit": {"message": "m", "author": {"name": "n", "email": "a@b.c"}},
    }
    place = data
    *parents, key = path.split(".")
    for parent in parents:
        place = place[parent]
    place[key] = "${{ x"

    assert only_fault(json.dumps({"name": "a", "changesetTemplate": data})).path == f"changesetTemplate.{path}"


def test_what_is_no_template_is_not_parsed() -> None:
    text = (
        "name: a\ndescription: ${{ x\non: [{repository: '${{ x'}]\nworkspaces: [{rootAtLocationOf: '${{ x'}]\n"
        "transformChanges: {group: [{directory: '${{ x', branch: '${{ x'}]}\n" + TEMPLATE
    )

    assert validate(text) == ()


def test_parsing_without_the_templates_is_what_upstream_calls_valid() -> None:
    assert parse_spec(with_step("if: ${{ nope }}")).steps[0].condition == "${{ nope }}"


@pytest.mark.parametrize(
    ("email", "valid"),
    [
        ("ada@example.com", True),
        ("Ada Lovelace <ada@example.com>", True),
        ('"Lovelace, Ada" <ada@example.com>', True),
        ("é@example.com", True),
        ("ada@localhost", True),
        ("ada@[127.0.0.1]", True),
        ("nope", False),
        ("", False),
        ("a@b, c@d", False),
        ("a..b@c", False),
        ("a@b.", False),
        ("Ada <a@b", False),
        ('""@b', False),
        ("a@b\n", False),
    ],
)
def test_an_address_is_what_go_takes_for_one(email: str, valid: bool) -> None:
    assert is_address(email) is valid


def test_a_hostile_address_is_judged_at_once() -> None:
    start = time.monotonic()

    assert not any(map(is_address, ("a." * 50_000 + "@", "a " * 50_000 + "<", '"' * 50_000, "(" * 50_000)))

    assert time.monotonic() - start < 2


def test_validating_takes_no_time() -> None:
    """Under a second with all imports: people wait for it."""
    code = "import sys; from flows.batches.loading import validate; assert validate(sys.stdin.read()) == ()"
    start = time.monotonic()

    subprocess.run([sys.executable, "-c", code], input=FULL, text=True, check=True)

    assert time.monotonic() - start < 5, "generous: the machine may be busy"


KEYS = """
version name description on repository branch branches repositoriesMatchingQuery workspaces rootAtLocationOf in
onlyFetchWorkspace steps run container image env files outputs value format if mount path mountpoint transformChanges
group directory importChangesets externalIDs changesetTemplate title body fork commit message author email published
changesetHooks codingAgent
"""
keys = st.sampled_from(KEYS.split())
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
json_like: st.SearchStrategy[Json] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=6),
    max_leaves=25,
)


@given(st.dictionaries(keys, json_like, max_size=8))
def test_any_data_is_loaded_or_refused(data: Json) -> None:
    with contextlib.suppress(SpecError):
        load_spec(json.dumps(data))


@given(st.text())
def test_any_text_is_loaded_or_refused(text: str) -> None:
    with contextlib.suppress(SpecError):
        load_spec(text)


plain = st.text(st.characters(exclude_characters="\x7f$", codec="utf-8"), max_size=10)
names = st.text(st.sampled_from("abcXYZ019_.-"), min_size=1, max_size=10)
targets = names.map(lambda name: f"/t/x{name}")
steps = st.fixed_dictionaries(
    {"run": plain, "container": plain},
    optional={
        "env": st.none() | st.dictionaries(names, plain, max_size=3),
        "files": st.none() | st.dictionaries(targets, plain, max_size=2),
        "outputs": st.dictionaries(names, st.fixed_dictionaries({"value": plain}), max_size=2),
        "if": st.none() | st.booleans() | plain,
        "mount": st.lists(st.fixed_dictionaries({"path": names, "mountpoint": targets}), max_size=2),
    },
)
published = (
    st.none()
    | st.booleans()
    | st.just("draft")
    | st.lists(names.flatmap(lambda name: st.fixed_dictionaries({name: st.booleans() | st.just("draft")})), max_size=3)
)
specs = st.fixed_dictionaries(
    {
        "name": names,
        "changesetTemplate": st.fixed_dictionaries(
            {"title": plain, "branch": plain, "commit": st.fixed_dictionaries({"message": plain})},
            optional={"body": plain, "fork": st.booleans(), "published": published},
        ),
    },
    optional={
        "version": st.sampled_from([1, 2]),
        "description": plain,
        "on": st.lists(st.fixed_dictionaries({"repository": names}, optional={"branch": names}), max_size=3),
        "steps": st.lists(steps, max_size=3),
    },
)


@given(specs)
def test_a_valid_spec_comes_through_its_yaml(data: dict[str, Any]) -> None:
    spec = load_spec(json.dumps(data))

    template = spec.changeset_template
    assert template is not None
    assert spec.name == data["name"]
    assert [step.run for step in spec.steps] == [step["run"] for step in data.get("steps", [])]
    assert [step.files for step in spec.steps] == [step.get("files") or {} for step in data.get("steps", [])]
    assert [{entry.name: entry.value for entry in step.env} for step in spec.steps] == [
        step.get("env") or {} for step in data.get("steps", [])
    ]
    rules = template.published
    found = [{rule.pattern: rule.value} for rule in rules] if isinstance(rules, tuple) else rules
    assert found == data["changesetTemplate"].get("published")
