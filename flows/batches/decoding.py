"""Data that the schema allows, as a BatchSpec. Upstream: the JSON tags of lib/batches/batch_spec.go.

Refuses nothing: ``loading`` has judged the data before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .spec import (
    Author,
    BatchSpec,
    ChangesetTemplate,
    EnvEntry,
    Group,
    ImportChangesets,
    Mount,
    OnQuery,
    OnRepository,
    Output,
    Published,
    PublishedRule,
    Step,
    WorkspaceRule,
)
from .workspaces import branches_of

Data = Mapping[str, Any]


def batch_spec(data: Data) -> BatchSpec:
    """The models of a whole batch spec. ``data`` has no findings against ``spec_schema.BATCH_SPEC``."""
    template = data.get("changesetTemplate")
    return BatchSpec(
        version=int(data.get("version", 1)),
        name=data["name"],
        description=data.get("description", ""),
        on=tuple(map(_on, data.get("on") or ())),
        workspaces=tuple(map(_workspace, data.get("workspaces") or ())),
        steps=tuple(map(_step, data.get("steps") or ())),
        groups=tuple(Group(**group) for group in (data.get("transformChanges") or {}).get("group") or ()),
        import_changesets=tuple(map(_import, data.get("importChangesets") or ())),
        changeset_template=None if template is None else _changeset_template(template),
    )


def environment(value: Any) -> tuple[EnvEntry, ...]:
    """A step's `env`, of any of its three forms: nothing, an object, or a list of names and one-key objects."""
    entries: list[EnvEntry] = []
    for item in [value] if isinstance(value, dict) else value or ():
        if isinstance(item, str):
            entries.append(EnvEntry(name=item, value=None))
        else:
            entries += [EnvEntry(name=name, value=text) for name, text in item.items()]
    return tuple(entries)


def _on(data: Data) -> OnQuery | OnRepository:
    if "repositoriesMatchingQuery" in data:
        return OnQuery(query=data["repositoriesMatchingQuery"])
    branches = branches_of(data.get("branch"), data.get("branches"))
    return OnRepository(repository=data["repository"], branches=branches)


def _workspace(data: Data) -> WorkspaceRule:
    return WorkspaceRule(
        root_at_location_of=data["rootAtLocationOf"],
        in_=data.get("in") or "*",
        only_fetch_workspace=data.get("onlyFetchWorkspace", False),
    )


def _step(data: Data) -> Step:
    return Step(
        run=data["run"],
        container=data["container"],
        env=environment(data.get("env")),
        files=data.get("files") or {},
        outputs={name: _output(output) for name, output in (data.get("outputs") or {}).items()},
        condition=_condition(data.get("if")),
        mounts=tuple(Mount(**mount) for mount in data.get("mount") or ()),
    )


def _output(data: Data) -> Output:
    # Upstream's schema lets other keys pass here, and nowhere else.
    return Output(value=data["value"], format=data.get("format", ""))


def _condition(value: bool | str | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value or ""


def _import(data: Data) -> ImportChangesets:
    ids = (each if isinstance(each, str) else str(int(each)) for each in data["externalIDs"] or ())
    return ImportChangesets(repository=data["repository"], external_ids=tuple(ids))


def _changeset_template(data: Data) -> ChangesetTemplate:
    author = data["commit"].get("author")
    return ChangesetTemplate(
        title=data["title"],
        body=data.get("body", ""),
        branch=data["branch"],
        message=data["commit"]["message"],
        author=None if author is None else Author(**author),
        fork=data.get("fork"),
        published=_published(data.get("published")),
    )


def _published(value: Any) -> Published | tuple[PublishedRule, ...] | None:
    if isinstance(value, list):
        return tuple(PublishedRule(pattern=pattern, value=flag) for rule in value for pattern, flag in rule.items())
    flag: Published | None = value
    return flag
