"""on_rules vectors: precedence of `on` entries, the query as sent, pattern types, .batchignore, branches."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from flows.batches.errors import ResolutionError
from flows.batches.query import default_pattern_type, with_count_all
from flows.batches.workspaces import BATCH_IGNORE, Revision, Rule, branches_of, ignore_status, merge_rules


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    shapes = {
        frozenset(("rules",)): _revisions,
        frozenset(("query",)): _sent,
        frozenset(("version",)): _pattern_type,
        frozenset(("root_entries", "force_override")): _status,
        frozenset(("branch", "branches")): _branches,
    }
    [shape] = [shape for shape in shapes if shape == frozenset(input) - {"sub_entries"}]
    assert shapes[shape](input) == expect


def _revisions(input: dict[str, Any]) -> dict[str, Any]:
    rules = [
        Rule(
            explicit={"repository": True, "query": False}[rule["type"]],
            revisions=tuple(Revision(repository, branch, "") for repository, branch in rule["revisions"]),
        )
        for rule in input["rules"]
    ]
    found = defaultdict(list)
    for revision in merge_rules(rules):
        found[revision.repository].append(revision.branch)
    return {"revisions": dict(found)}


def _sent(input: dict[str, Any]) -> dict[str, Any]:
    return {"sent": with_count_all(input["query"])}


def _pattern_type(input: dict[str, Any]) -> dict[str, Any]:
    return {"default_pattern_type": default_pattern_type(input["version"])}


def _status(input: dict[str, Any]) -> dict[str, Any]:
    kind = input["root_entries"].get(BATCH_IGNORE)
    try:
        return {"status": ignore_status(kind, allow_ignored=input["force_override"])}
    except ResolutionError as error:
        return {"error": str(error)}


def _branches(input: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"branches": list(branches_of(input["branch"], input["branches"]))}
    except ValueError as error:
        return {"branches": f"error: {error}"}
