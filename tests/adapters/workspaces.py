"""workspaces vectors: revisions and rules in, workspaces out.

Some vectors (ws/sort, ws/dynamic-path-kept) hold upstream's raw prefix match of search results: `a` with `api/c.go`.
Decision 1 of the reference wins over them: what they expect counts as far as it lies in the folder of the workspace.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from flows.batches.errors import ResolutionError
from flows.batches.spec import BatchSpec, Step, WorkspaceRule
from flows.batches.workspaces import Revision, Workspace, determine


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) <= {"spec", "revisions", "directories"}, input
    assert len(expect) == 1, expect
    [(kind, expected)] = expect.items()
    outcome, reasons = _outcome(input)
    if kind in ("errors", "error"):
        wanted = expected if isinstance(expected, list) else [expected]
        assert [_stable(reason) for reason in reasons] == [_stable(reason) for reason in wanted]
        return
    assert kind == "workspaces", expect
    assert not reasons
    assert [_shown(workspace, like) for workspace, like in zip(outcome, expected, strict=True)] == [
        _decided(workspace) for workspace in expected
    ]


def _outcome(input: dict[str, Any]) -> tuple[tuple[Workspace, ...], tuple[str, ...]]:
    spec, revisions = _spec(input["spec"]), _revisions(input["revisions"])
    directories = input.get("directories") or {}
    try:
        return determine(
            spec, revisions, lambda at, name: directories.get(f"{at.repository}@{at.branch}", {}).get(name, [])
        ), ()
    except ResolutionError as error:
        return (), error.reasons


def _decided(expected: dict[str, Any]) -> dict[str, Any]:
    """What a vector expects, by decision 1."""
    folder = PurePosixPath(expected["path"])
    paths = [path for path in expected.get("searchResultPaths", ()) if folder in PurePosixPath(path).parents]
    return {**expected, "searchResultPaths": paths} if "searchResultPaths" in expected else expected


def _spec(spec: dict[str, Any]) -> BatchSpec:
    assert set(spec) <= {"version", "name", "description", "on", "steps", "workspaces", "changesetTemplate"}, spec
    return BatchSpec(
        version=spec.get("version", 1),
        name=spec["name"],
        description=spec.get("description", ""),
        steps=tuple(
            Step(run=step["run"], container=step.get("container", ""), condition=_condition(step.get("if")))
            for step in spec.get("steps") or ()
        ),
        workspaces=tuple(
            WorkspaceRule(
                root_at_location_of=rule["rootAtLocationOf"],
                in_=rule.get("in") or "*",
                only_fetch_workspace=rule.get("onlyFetchWorkspace", False),
            )
            for rule in spec.get("workspaces") or ()
        ),
    )


def _condition(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _revisions(revisions: list[dict[str, Any]]) -> list[Revision]:
    for revision in revisions:
        assert set(revision) <= {"name", "branch", "commit", "fileMatches"}, revision
    return [
        Revision(revision["name"], revision["branch"], revision.get("commit", ""), tuple(revision["fileMatches"] or ()))
        for revision in revisions
    ]


def _shown(workspace: Workspace, like: dict[str, Any]) -> dict[str, Any]:
    """The workspace in the vectors' words; only what the vector says something about."""
    shown = {
        "repository": workspace.repository,
        "branch": workspace.branch,
        "commit": workspace.commit,
        "path": workspace.path,
        "onlyFetchWorkspace": workspace.only_fetch_workspace,
        "searchResultPaths": list(workspace.search_result_paths),
        "skippedSteps": list(workspace.skipped_steps),
        "ignored": workspace.ignored,
    }
    assert {"repository", "path"} <= set(like) <= set(shown), like
    return {key: shown[key] for key in like}


def _stable(reason: str) -> str:
    """A glob's own error is told in the words of its library: only which glob it is has to agree."""
    prefix = 'failed to compile glob "'
    return reason.rpartition('": ')[0] if reason.startswith(prefix) else reason
