"""Cache keys: ours change with what a step reads and with nothing else; upstream's are upstream's, byte for byte."""

import time
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.cache import StepInputs, step_key
from flows.batches.upstream_key import (
    MountMetadata,
    UpstreamKeyError,
    UpstreamRepository,
    UpstreamTask,
    upstream_canonical_json,
    upstream_key,
)

_INPUTS = StepInputs(
    base_commit="c0ffee",
    path="",
    sparse=False,
    state_digest="s",
    image_digest="sha256:1",
    shell="/bin/sh",
    working_directory="/work",
    script="echo",
    environment={"A": "1", "TOKEN": "hunter2"},
    secret_names=frozenset(),
    files={"/tmp/a": "f1", "/tmp/b": "f2"},
    mounts={"/mnt/a": "m1", "/mnt/b": "m2"},
    runtime={"user": "", "network": "bridge"},
)
_CHANGED: dict[str, Any] = {
    "base_commit": "decaf",
    "path": "pkg",
    "sparse": True,
    "state_digest": "t",
    "image_digest": "sha256:2",
    "shell": "/bin/bash",
    "working_directory": "/work/pkg",
    "script": "echo ",
    "environment": {"A": "2", "TOKEN": "hunter2"},
    "secret_names": frozenset({"TOKEN"}),
    "files": {"/tmp/a": "f2", "/tmp/b": "f1"},
    "mounts": {"/mnt/a": "m1"},
    "runtime": {"user": "0:0", "network": "bridge"},
}


def test_everything_that_a_step_reads_is_in_its_key() -> None:
    assert set(_CHANGED) == {entry.name for entry in fields(StepInputs)}
    keys = {step_key(replace(_INPUTS, **{name: value})) for name, value in _CHANGED.items()}

    assert len(keys | {step_key(_INPUTS)}) == len(_CHANGED) + 1


def test_a_key_is_64_hex_digits_and_stays_as_it_is() -> None:
    """Keys are names in stores that live longer than a release: another meaning needs another KEY_FORMAT."""
    assert step_key(_INPUTS) == "c02bf0c42f9d5add65ab4fcd697740a1f9cfc37a740ab674fa87e1a14208c06b"
    assert (
        step_key(replace(_INPUTS, secret_names=frozenset({"TOKEN"})))
        == "3e0b39d70e695729dce5d4c3206bb62b652322f3a471cbbd36fd7176c1db1823"
    )


_TEXT = st.text(st.characters(codec=None), max_size=4)
_MAP = st.dictionaries(_TEXT, _TEXT, max_size=4)


@given(_MAP, _MAP, _MAP, st.randoms())
def test_order_does_not_matter(
    environment: dict[str, str], files: dict[str, str], mounts: dict[str, str], random: Any
) -> None:
    def shuffled(content: dict[str, str]) -> MappingProxyType[str, str]:
        return MappingProxyType(dict(random.sample(list(content.items()), len(content))))

    first = replace(_INPUTS, environment=environment, files=files, mounts=mounts)
    second = replace(_INPUTS, environment=shuffled(environment), files=shuffled(files), mounts=shuffled(mounts))

    assert step_key(first) == step_key(second)


@given(st.tuples(_TEXT, _MAP, _MAP), st.tuples(_TEXT, _MAP, _MAP))
def test_different_inputs_have_different_keys(
    first: tuple[str, dict[str, str], dict[str, str]], second: tuple[str, dict[str, str], dict[str, str]]
) -> None:
    def key(inputs: tuple[str, dict[str, str], dict[str, str]]) -> str:
        script, environment, files = inputs
        return step_key(replace(_INPUTS, script=script, environment=environment, files=files))

    assert (key(first) == key(second)) is (first == second)


def test_a_key_of_a_step_with_secrets_is_slow_to_guess() -> None:
    """A plain digest of known inputs and a short secret could be searched; scrypt makes each guess expensive."""
    secret = replace(_INPUTS, secret_names=frozenset({"TOKEN"}))

    started = time.process_time()
    step_key(secret)

    assert time.process_time() - started > 0.005


def test_values_of_variables_stand_in_no_repr() -> None:
    assert "hunter2" not in repr(_INPUTS)


_TASK = UpstreamTask(
    repository=UpstreamRepository(
        id="UmVwb3NpdG9yeTox",
        name="github.com/sourcegraph/automation-testing",
        base_ref="executors-e2e",
        base_rev="1c94aaf85d51e9d016b8ce4639b9f022d94c52e6",
    ),
    path="",
    only_fetch_workspace=False,
    steps=[
        {
            "run": "IFS=$'\\n'; echo Hello World | tee -a $(find -name README.md)",
            "container": "ubuntu:18.04",
            "env": {},
        }
    ],
    batch_change_name="e2e-test-batch-change",
    batch_change_description="Add Hello World to READMEs",
)


def test_upstreams_own_expectation_is_met() -> None:
    """The key in upstream's end-to-end test (reference, instance-protocol 1.6)."""
    assert upstream_key(_TASK, 0) == "wHcoEItqNkdJj9k1-1sRCQ-step-0"


def _key(**changes: Any) -> str:
    return upstream_key(replace(_TASK, **changes), 0)


def test_what_go_leaves_out_of_a_step_is_left_out() -> None:
    full = {
        "run": "",
        "container": "c",
        "timeout": 3,
        "env": ["B", {"A": "1"}],
        "files": {"/b": "2", "/a": "1"},
        "outputs": {"y": {"value": "v", "format": ""}, "x": {"value": "", "format": "json", "more": 1}},
        "mount": [{"path": "p", "mountpoint": "/m"}],
        "if": False,
    }
    empty = {"run": "r", "container": "c", "image": "", "files": {}, "outputs": None, "mount": [], "if": None}

    text = upstream_canonical_json(replace(_TASK, steps=[empty, full]), 1)

    assert (
        '"Steps":[{"run":"r","container":"c","env":{}},'
        '{"container":"c","env":["B",{"A":"1"}],"files":{"/a":"1","/b":"2"},'
        '"outputs":{"x":{"format":"json"},"y":{"value":"v"}},"mount":[{"mountpoint":"/m","path":"p"}],"if":false}],'
    ) in text


def test_unset_and_empty_outer_variables_are_the_same_and_unused_ones_do_not_count() -> None:
    steps = [{"run": "r", "container": "c", "env": ["TOKEN"]}]

    assert _key(steps=steps, outer=["TOKEN="]) == _key(steps=steps, outer=["OTHER=1"])
    assert _key(steps=steps, outer=["TOKEN=1", "A=2"]) == _key(steps=steps, outer=["A=3", "TOKEN=1"])
    assert _key(steps=steps, outer=["TOKEN=1"]) != _key(steps=steps, outer=["TOKEN=2"])


def test_both_forms_of_static_variables_have_one_key() -> None:
    listed = [{"run": "r", "container": "c", "env": [{"B": "2"}, {"A": "1"}]}]
    mapped = [{"run": "r", "container": "c", "env": {"A": "1", "B": "2"}}]

    assert _key(steps=listed) == _key(steps=mapped)


def test_file_matches_are_sorted_and_mounts_are_said_only_if_there_are_any() -> None:
    repository = replace(_TASK.repository, file_matches=["b", "a"])
    mounts = [MountMetadata("t.sh", 3, "2024-01-02T03:04:05Z")]

    assert '"FileMatches":["a","b"]' in upstream_canonical_json(replace(_TASK, repository=repository), 0)
    assert "MountsMetadata" not in upstream_canonical_json(_TASK, 0)
    assert upstream_canonical_json(replace(_TASK, mounts=mounts), 0).endswith(
        '"MountsMetadata":[{"Path":"t.sh","Size":3,"Modified":"2024-01-02T03:04:05Z"}]}'
    )


@pytest.mark.parametrize("index", [-1, 1])
def test_a_step_that_is_not_there_has_no_key(index: int) -> None:
    with pytest.raises(UpstreamKeyError, match="there is no step"):
        upstream_key(_TASK, index)
