"""Batch changes: changeset specs and batch specs that are uploaded, applied, and told about by webhooks."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import sqlite3
from collections.abc import Mapping
from io import StringIO
from typing import Any

from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from . import repositories
from .accounts import User
from .relay import decode, encode
from .search import Query, matches
from .state import Instance, now
from .webhooks import enqueue

SCHEMA = """
CREATE TABLE IF NOT EXISTS changeset_specs (
    id INTEGER PRIMARY KEY, rand_id TEXT NOT NULL UNIQUE, user_id INTEGER NOT NULL, repository_id INTEGER NOT NULL,
    head_ref TEXT, spec TEXT NOT NULL, batch_spec_id INTEGER);
CREATE TABLE IF NOT EXISTS batch_specs (
    id INTEGER PRIMARY KEY, rand_id TEXT NOT NULL UNIQUE, user_id INTEGER NOT NULL, namespace TEXT NOT NULL,
    name TEXT NOT NULL, description TEXT NOT NULL, raw TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batch_changes (
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, batch_spec_id INTEGER NOT NULL,
    creator_id INTEGER NOT NULL, last_applier_id INTEGER NOT NULL, last_applied_at TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, closed_at TEXT, UNIQUE (namespace, name));
"""
_TEXT = {"type": "string"}
_REF = {"type": "string", "pattern": r"^refs\/heads\/\S+$"}
_CHANGESET_SPEC = Draft7Validator(
    {
        "oneOf": [
            {
                "type": "object",
                "properties": {"baseRepository": _TEXT, "externalID": _TEXT, "version": {"type": "integer"}},
                "required": ["baseRepository", "externalID"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("baseRepository", "baseRev", "headRepository", "title", "body"), _TEXT),
                    "version": {"type": "integer"},
                    "baseRef": _REF,
                    "headRef": _REF,
                    "fork": {"type": "boolean"},
                    "published": {"oneOf": [{"type": "boolean"}, {"const": "draft"}]},
                    "commits": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "properties": {
                                **dict.fromkeys(("message", "diff", "authorName"), _TEXT),
                                "authorEmail": {"type": "string", "pattern": "^[^@]+@[^@]+$"},
                                "version": {"type": "integer"},
                            },
                            "required": ["message", "diff", "authorName", "authorEmail"],
                            "additionalProperties": False,
                        },
                    },
                },
                "required": [
                    *("baseRepository", "baseRef", "baseRev", "headRepository", "headRef"),
                    *("title", "body", "commits"),
                ],
                "additionalProperties": False,
            },
        ]
    }
)


class Problem(Exception):
    """What becomes an entry of `errors` in the GraphQL answer."""


def create_changeset_spec(instance: Instance, user: User, text: str) -> dict[str, Any]:
    """Check and keep a changeset spec. Raises Problem."""
    try:
        spec = json.loads(text)
    except ValueError as error:
        raise Problem(f"failed to parse changeset spec: {error}") from error
    if faults := [fault.message for fault in _CHANGESET_SPEC.iter_errors(spec)]:
        raise Problem(f"{len(faults)} errors occurred: {'; '.join(faults)}")
    if "externalID" not in spec:
        if spec["headRepository"] != spec["baseRepository"]:
            raise Problem("headRepository does not match baseRepository")
        _check_diff(instance, spec["commits"][0])
    repository = _readable(instance, user, spec["baseRepository"])
    rand_id = secrets.token_urlsafe(9)
    with instance.transaction() as db:
        db.execute(
            "INSERT INTO changeset_specs (rand_id, user_id, repository_id, head_ref, spec) VALUES (?, ?, ?, ?, ?)",
            (rand_id, user.id, repository["id"], spec.get("headRef"), text),
        )
    return {"__typename": "VisibleChangesetSpec", "id": encode("ChangesetSpec", rand_id), "expiresAt": None}


def create_batch_spec(instance: Instance, user: User, namespace: str, raw: str, changesets: list[str]) -> str:
    """Keep a batch spec with its changeset specs; its rand id. Raises Problem."""
    check_namespace(instance, user, namespace)
    spec = parse(raw)
    rand_ids = [decode("ChangesetSpec", each) for each in changesets]
    rand_id = secrets.token_urlsafe(9)
    with instance.transaction() as db:
        rows = []
        for each in rand_ids:
            row = db.execute("SELECT * FROM changeset_specs WHERE rand_id = ?", (each,)).fetchone()
            if row is None or row["user_id"] != user.id:
                raise Problem(f"changeset spec not found: id={each}")
            rows.append(row)
        taken = [(row["repository_id"], row["head_ref"]) for row in rows if row["head_ref"]]
        if len(set(taken)) < len(taken):
            raise Problem("Validating changeset specs resulted in an error: several changesets use the same branch")
        added = db.execute(
            "INSERT INTO batch_specs (rand_id, user_id, namespace, name, description, raw, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (rand_id, user.id, namespace, spec["name"], spec.get("description", ""), raw, now()),
        ).lastrowid
        for row in rows:
            db.execute("UPDATE changeset_specs SET batch_spec_id = ? WHERE id = ?", (added, row["id"]))
    return rand_id


def apply(instance: Instance, user: User, batch_spec: str) -> int:
    """Apply a batch spec: the batch change of its name and namespace now has it; the batch change's id."""
    with instance.transaction() as db:
        spec = db.execute("SELECT * FROM batch_specs WHERE rand_id = ?", (decode("BatchSpec", batch_spec),)).fetchone()
    if spec is None:
        raise Problem("batch spec not found")
    check_namespace(instance, user, spec["namespace"])
    at = now()
    with instance.transaction() as db:
        known = db.execute(
            "SELECT * FROM batch_changes WHERE namespace = ? AND name = ?", (spec["namespace"], spec["name"])
        ).fetchone()
        if known is not None and known["batch_spec_id"] == spec["id"]:
            return int(known["id"])  # applied already: nothing happens, no event
        db.execute(
            "INSERT INTO batch_changes (namespace, name, batch_spec_id, creator_id, last_applier_id, last_applied_at,"
            " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, name) DO UPDATE SET"
            " batch_spec_id = excluded.batch_spec_id, last_applier_id = excluded.last_applier_id,"
            " last_applied_at = excluded.last_applied_at, updated_at = excluded.updated_at, closed_at = NULL",
            (spec["namespace"], spec["name"], spec["id"], user.id, user.id, at, at, at),
        )
        row = db.execute(
            "SELECT * FROM batch_changes WHERE namespace = ? AND name = ?", (spec["namespace"], spec["name"])
        ).fetchone()
        enqueue(db, "batch_change:apply", _payload(db, row))
    return int(row["id"])


def close(instance: Instance, batch_change: str) -> int:
    """Close a batch change; its id."""
    number = int(decode("BatchChange", batch_change))
    with instance.transaction() as db:
        db.execute("UPDATE batch_changes SET closed_at = ?, updated_at = ? WHERE id = ?", (now(), now(), number))
        row = db.execute("SELECT * FROM batch_changes WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise Problem("batch change not found")
        enqueue(db, "batch_change:close", _payload(db, row))
    return number


def check_namespace(instance: Instance, user: User, namespace: str) -> None:
    """Whether the user may have batch changes there. Raises Problem."""
    kind, _, number = decode("", namespace).partition(":")
    with instance.transaction() as db:
        member = db.execute(
            "SELECT 1 FROM members WHERE organization_id = ? AND user_id = ?", (number, user.id)
        ).fetchone()
    if not user.site_admin and not (kind == "User" and number == str(user.id)) and not (kind == "Org" and member):
        raise Problem("must be authenticated as the authorized user or site admin" if kind == "User" else "not found")


def parse(raw: str) -> dict[str, Any]:
    """A batch spec, from YAML or JSON. Raises Problem."""
    try:
        spec = YAML(typ="safe", pure=True).load(StringIO(raw))
    except YAMLError as error:
        raise Problem(f"parsing batch spec: {error}") from error
    if not isinstance(spec, dict) or not re.fullmatch(r"[\w.-]+", str(spec.get("name", ""))):
        raise Problem("parsing batch spec: name is required")
    return spec


def workspaces(instance: Instance, user: User, raw: str) -> list[tuple[sqlite3.Row, str, str, dict[str, Any]]]:
    """What `on` and `workspaces` of a spec come to: repository, branch (full), commit, and the workspace's fields."""
    spec = parse(raw)
    known = {row["name"]: row for row in repositories.visible(instance, user)}
    chosen: dict[str, tuple[bool, list[tuple[str, str]], list[str]]] = {}
    for entry in spec.get("on", []):
        found = _on(instance, user, known, entry, spec.get("version", 1))
        for name, (branches, paths) in found.items():
            explicit = "repository" in entry
            if explicit or name not in chosen or not chosen[name][0]:
                chosen[name] = (explicit, branches, paths)
    result = []
    for name in sorted(chosen):
        _, branches, paths = chosen[name]
        for branch, commit in branches:
            for path, only_fetch in _folders(instance, spec, name, commit):
                own = [each for each in paths if each.startswith(path)]  # upstream's prefix match, with its flaw
                fields = {"path": path, "onlyFetchWorkspace": only_fetch and bool(path), "searchResultPaths": own}
                result.append((known[name], branch, commit, fields))
    return result


def _on(
    instance: Instance, user: User, known: Mapping[str, sqlite3.Row], entry: Mapping[str, Any], version: int
) -> dict[str, tuple[list[tuple[str, str]], list[str]]]:
    if "repository" in entry:
        row = known.get(entry["repository"])
        if row is None:
            raise Problem(f'resolving "repository:{entry["repository"]}": repo not found: name="{entry["repository"]}"')
        wanted = entry.get("branches") or ([entry["branch"]] if "branch" in entry else [])
        branches = []
        for each in wanted:
            commit = repositories.resolve(instance, row["name"], f"refs/heads/{each}")
            if commit is None:
                raise Problem(f'no branch matching "{each}" found for repository {row["name"]}')
            branches.append((f"refs/heads/{each}", commit))
        if not wanted and (found := repositories.head(instance, row)):
            branches.append(found)
        return {row["name"]: (branches, [])}
    text = entry["repositoriesMatchingQuery"]
    if not re.search(r"\bcount:(\d+|all)\b", text):
        text += " count:all"
    query = Query(text, "keyword" if version >= 2 else "standard")
    if message := query.value("error"):
        raise Problem(f'resolving "{text}": {message}')
    answer: dict[str, tuple[list[tuple[str, str]], list[str]]] = {}
    for match in matches(instance, user, query):
        found = repositories.head(instance, known[match["repository"]])
        assert found is not None
        paths = answer.setdefault(match["repository"], ([found], []))[1]
        if "path" in match and match["path"] not in paths:
            paths.append(match["path"])
            paths.sort()
    return answer


def _folders(instance: Instance, spec: Mapping[str, Any], name: str, commit: str) -> list[tuple[str, bool]]:
    rules = [rule for rule in spec.get("workspaces", []) if repositories.glob(rule.get("in") or "*").fullmatch(name)]
    if len(rules) > 1:
        raise Problem(f"repository {name} matches multiple workspaces.in globs in the batch spec. glob: ...")
    if not rules:
        return [("", False)]
    wanted = re.compile(rf"(?:^|/){re.escape(rules[0]['rootAtLocationOf'])}$")
    found = {path.rpartition("/")[0] for path in repositories.files(instance, name, commit) if wanted.search(path)}
    return [(path, bool(rules[0].get("onlyFetchWorkspace"))) for path in sorted(found)]


def _check_diff(instance: Instance, commit: Mapping[str, Any]) -> None:
    if commit.get("version") == 2:
        try:
            diff = base64.b64decode(commit["diff"], validate=True)
        except binascii.Error as error:
            raise Problem(f"failed to decode the diff: {error}") from error
    else:
        diff = commit["diff"].encode()
    if problem := repositories.diff_problem(instance, diff):
        raise Problem(f"failed to parse the diff: {problem}")


def _readable(instance: Instance, user: User, id: str) -> sqlite3.Row:
    number = decode("Repository", id)
    for row in repositories.visible(instance, user):
        if str(row["id"]) == number:
            return row
    raise Problem(f"repo not found: id={number}")


def _payload(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    spec = db.execute("SELECT * FROM batch_specs WHERE id = ?", (row["batch_spec_id"],)).fetchone()
    return {
        "id": encode("BatchChange", row["id"]),
        "namespace_id": row["namespace"],
        "name": row["name"],
        "description": spec["description"],
        "state": "CLOSED" if row["closed_at"] else "OPEN",
        "creator_user_id": encode("User", row["creator_id"]),
        "last_applier_user_id": encode("User", row["last_applier_id"]),
        "url": f"/users/x/batch-changes/{row['name']}",
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "last_applied_at": row["last_applied_at"],
        "closed_at": row["closed_at"],
    }
