"""Which batch specs are valid, and with what errors they are refused.

Compared are upstream's texts. Left aside: the errors without a place that only tell how upstream's schema is built
(if/then/else, allOf): they always come with one that says what is wrong. The decoder's type errors, which repeat the
schema's, are only counted in the vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.batches.environment import canonical
from flows.batches.errors import Fault, SpecError
from flows.batches.loading import parse_spec
from flows.batches.spec import BatchSpec, OnQuery, OnRepository, Step

_SCHEMA_NOISE = (
    'Must validate "then" as "if" was valid',
    'Must validate "else" as "if" was not valid',
    "Must validate all the schemas (allOf)",
)
_YAML = "failed to normalize JSON: "


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    values = {key: expect[key] for key in expect if key not in ("valid", "errors", "go_decoder_errors_omitted")}
    if not expect["valid"]:
        assert not values, f"values of a refused spec: {values}"
        with pytest.raises(SpecError) as caught:
            parse_spec(input["yaml"])
        if "errors" in expect:
            _compare(caught.value.faults, expect["errors"])
        return
    assert not expect.get("errors"), "a valid spec has no errors"
    spec = parse_spec(input["yaml"])
    for key, value in values.items():
        assert key in _VALUES, f"unknown key in expect: {key}"
        assert _VALUES[key](spec) == value, key


def _compare(faults: tuple[Fault, ...], errors: list[str]) -> None:
    if any(error.startswith(_YAML) for error in errors):
        return _compare_yaml(faults, errors)
    if any(fault.message.startswith("this is batch spec version 3") for fault in faults):
        # Our decision 22: one sentence in the place of all that upstream's rules for version 3 say.
        assert len(faults) == 1
        return None
    wanted = [error for error in errors if error not in _SCHEMA_NOISE]
    for error in wanted:
        assert any(_says(fault, error) for fault in faults), f"missing: {error}; got {faults}"
    for fault in faults:
        known = any(_says(fault, error) or fault.path == _path(error) for error in wanted)
        assert known or "belongs to batch spec version 3" in fault.message, f"not upstream's: {fault}"
    return None


def _compare_yaml(faults: tuple[Fault, ...], errors: list[str]) -> None:
    """The texts of the parsers differ, those about duplicate keys and about numbers that JSON lacks do not."""
    assert len(errors) == 1
    fragment = "unsupported value: " if "unsupported value: " in errors[0] else "yaml: "
    assert all(fault.message.startswith(fragment) and fault.line for fault in faults), faults
    duplicates = [line.strip() for line in errors[0].splitlines() if "already defined" in line]
    if duplicates:
        assert [fault.message.removeprefix("yaml: ") for fault in faults] == duplicates


def _says(fault: Fault, error: str) -> bool:
    """Whether the fault is upstream's error: the same text, or it with our hint behind, or with our path in front."""
    return any(text == error or text.startswith(error + "; ") for text in (str(fault), fault.message))


def _path(error: str) -> str:
    path, separator, _ = error.partition(": ")
    return path if separator and " " not in path else ""


def _steps(value: Callable[[Step], object]) -> Callable[[BatchSpec], object]:
    return lambda spec: [value(step) for step in spec.steps]


def _first_step(value: Callable[[Step], object]) -> Callable[[BatchSpec], object]:
    return lambda spec: value(spec.steps[0])


def _on(spec: BatchSpec) -> list[object]:
    return [_on_entry(entry) for entry in spec.on]


def _on_entry(entry: OnQuery | OnRepository) -> dict[str, object]:
    if isinstance(entry, OnQuery):
        return {"repositoriesMatchingQuery": entry.query}
    return {"repository": entry.repository, "branches": list(entry.branches)}


def _env(step: Step) -> object:
    return canonical(step.env)


def _published(spec: BatchSpec) -> object:
    assert spec.changeset_template is not None
    published = spec.changeset_template.published
    if isinstance(published, tuple):
        return [{rule.pattern: rule.value} for rule in published]
    return published


_VALUES: dict[str, Callable[[BatchSpec], object]] = {
    "version": lambda spec: spec.version,
    "name": lambda spec: spec.name,
    "description": lambda spec: spec.description,
    "on": _on,
    "workspaces": lambda spec: [
        {"rootAtLocationOf": rule.root_at_location_of, "in": rule.in_, "onlyFetchWorkspace": rule.only_fetch_workspace}
        for rule in spec.workspaces
    ],
    "steps": lambda spec: len(spec.steps),
    "runs": _steps(lambda step: step.run),
    "containers": _steps(lambda step: step.container),
    "if_condition": _first_step(lambda step: step.condition),
    "if_conditions": _steps(lambda step: step.condition),
    "env": _first_step(_env),
    "envs": _steps(_env),
    "files": _first_step(lambda step: step.files),
    "outputs": _first_step(lambda step: {name: output.model_dump() for name, output in step.outputs.items()}),
    "mounts": _first_step(lambda step: [mount.model_dump() for mount in step.mounts]),
    "groups": lambda spec: [group.model_dump(exclude_defaults=True) for group in spec.groups],
    "external_ids": lambda spec: [list(entry.external_ids) for entry in spec.import_changesets],
    "published": _published,
    "fork": lambda spec: spec.changeset_template and spec.changeset_template.fork,
    "body": lambda spec: spec.changeset_template and spec.changeset_template.body,
    "title": lambda spec: spec.changeset_template and spec.changeset_template.title,
    "branch": lambda spec: spec.changeset_template and spec.changeset_template.branch,
}
