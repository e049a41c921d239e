"""POST /.api/graphql, against the schema: unknown fields, wrong types and missing variables are errors, as upstream."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from graphql import GraphQLResolveInfo, build_schema, graphql_sync
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from . import batches, repositories
from .accounts import User, authenticated
from .relay import decode, encode
from .state import Instance

Info = GraphQLResolveInfo[Any]
SCHEMA = build_schema((Path(__file__).with_name("schema.graphql")).read_text())


def router(instance: Instance) -> APIRouter:
    routes = APIRouter()

    @routes.post("/.api/graphql")
    async def graphql(request: Request) -> Response:
        user = await run_in_threadpool(authenticated, instance, request)
        body = await request.body()
        if request.headers.get("Content-Encoding") == "gzip":
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError, zlib.error):
                return PlainTextResponse("failed to inflate the request body\n", 400)
        try:
            asked = json.loads(body)
        except ValueError:
            return PlainTextResponse("failed to decode the request body\n", 400)
        if not isinstance(asked, dict) or not isinstance(asked.get("query"), str):
            return PlainTextResponse("no query\n", 400)
        return await run_in_threadpool(_answer, instance, user, asked)

    return routes


def _answer(instance: Instance, user: User, asked: Mapping[str, Any]) -> Response:
    result = graphql_sync(SCHEMA, asked["query"], _Root(instance, user), variable_values=asked.get("variables") or {})
    content: dict[str, Any] = {"data": result.data}
    if any(isinstance(error.original_error, OSError) for error in result.errors or ()):
        return PlainTextResponse("out of processes, try again\n", 503)  # this machine's trouble, no answer of ours
    if result.errors:
        content["errors"] = [{"message": error.message, "path": error.path} for error in result.errors]
    return JSONResponse(content)


class _Root:
    """Query and Mutation: a method per field."""

    def __init__(self, instance: Instance, user: User) -> None:
        self._instance, self._user = instance, user

    def node(self, _: Info, id: str) -> Any:
        kind, _colon, value = decode("", id).partition(":")
        if kind == "Repository":
            return self._repository_where("id", value)
        if kind == "BatchChange":
            return self._batch_change(value)
        if kind == "BatchSpec":
            return self._batch_spec("rand_id", value)
        raise batches.Problem(f"invalid id or not found: {kind or id}")

    def currentUser(self, _: Info) -> Any:
        return self._user_node("id", self._user.id)

    def user(self, _: Info, username: str = "") -> Any:
        return self._user_node("username", username)

    def organization(self, _: Info, name: str) -> Any:
        with self._instance.transaction() as db:
            row = db.execute("SELECT * FROM organizations WHERE name = ?", (name,)).fetchone()
        return _organization(row) if row else None

    def repository(self, _: Info, name: str = "", id: str = "") -> Any:
        return self._repository_where("name", name) if name else self._repository_where("id", decode("Repository", id))

    def site(self, _: Info) -> Any:
        return {"id": encode("Site", "site"), "productVersion": "5.5.0"}

    def maxUnlicensedChangesets(self, _: Info) -> int:
        return 10

    def batchChanges(self, _: Info, first: int) -> Any:
        with self._instance.transaction() as db:
            rows = db.execute("SELECT id FROM batch_changes ORDER BY id").fetchall()
        return {"nodes": [self._batch_change(row["id"]) for row in rows[:first]], "totalCount": len(rows)}

    def resolveWorkspacesForBatchSpec(self, _: Info, batchSpec: str) -> Any:
        found = []
        for row, branch, commit, fields in batches.workspaces(self._instance, self._user, batchSpec):
            kind = repositories.root_kind(self._instance, row["name"], commit, ".batchignore")
            if kind == "tree":
                raise batches.Problem('not a blob: ".batchignore"')
            found.append(
                {
                    **fields,
                    "ignored": bool(kind),
                    "unsupported": row["service_type"] not in repositories.SUPPORTED,
                    "repository": self._repository_node(row),
                    "branch": _ref(branch, commit),
                }
            )
        return found

    def createChangesetSpec(self, _: Info, changesetSpec: str) -> Any:
        return batches.create_changeset_spec(self._instance, self._user, changesetSpec)

    def createBatchSpec(self, _: Info, namespace: str, batchSpec: str, changesetSpecs: list[str]) -> Any:
        created = batches.create_batch_spec(self._instance, self._user, namespace, batchSpec, changesetSpecs)
        return self._batch_spec("rand_id", created)

    def applyBatchChange(self, _: Info, batchSpec: str, ensureBatchChange: str = "") -> Any:
        return self._batch_change(batches.apply(self._instance, self._user, batchSpec))

    def closeBatchChange(self, _: Info, batchChange: str, closeChangesets: bool) -> Any:
        return self._batch_change(batches.close(self._instance, batchChange))

    def _user_node(self, column: str, value: object) -> Any:
        with self._instance.transaction() as db:
            row = db.execute(f"SELECT * FROM users WHERE {column} = ?", (value,)).fetchone()
        if row is None:
            return None
        return {
            "__typename": "User",
            "id": encode("User", row["id"]),
            "username": row["username"],
            "namespaceName": row["username"],
            "url": f"/users/{row['username']}",
            "siteAdmin": bool(row["site_admin"]),
            "databaseID": row["id"],
        }

    def _repository_where(self, column: str, value: str) -> Any:
        rows = repositories.visible(self._instance, self._user)
        return next((self._repository_node(row) for row in rows if str(row[column]) == value), None)

    def _repository_node(self, row: sqlite3.Row) -> Any:
        found = repositories.head(self._instance, row)
        return {
            "__typename": "Repository",
            "id": encode("Repository", row["id"]),
            "name": row["name"],
            "url": f"/{row['name']}",
            "externalRepository": {"id": "R_1", "serviceType": row["service_type"], "serviceID": "https://host/"},
            "defaultBranch": _ref(*found) if found else None,
            "commit": partial(self._commit, row["name"]),
            "isPrivate": bool(row["private"]),
        }

    def _commit(self, name: str, _: Info, rev: str) -> Any:
        oid = repositories.resolve(self._instance, name, rev)
        return {"id": encode("GitCommit", oid), "oid": oid, "abbreviatedOID": oid[:7]} if oid else None

    def _namespace(self, id: str) -> Any:
        kind, _, number = decode("", id).partition(":")
        if kind == "User":
            return self._user_node("id", number)
        with self._instance.transaction() as db:
            row = db.execute("SELECT * FROM organizations WHERE id = ?", (number,)).fetchone()
        return _organization(row)

    def _batch_spec(self, column: str, value: object) -> Any:
        with self._instance.transaction() as db:
            row = db.execute(f"SELECT * FROM batch_specs WHERE {column} = ?", (value,)).fetchone()
        if row is None:
            return None
        namespace, id = self._namespace(row["namespace"]), encode("BatchSpec", row["rand_id"])
        return {
            "__typename": "BatchSpec",
            "id": id,
            "originalInput": row["raw"],
            "applyURL": f"{namespace['url']}/batch-changes/apply/{id}",
            "createdAt": row["created_at"],
            "creator": self._user_node("id", row["user_id"]),
            "namespace": namespace,
        }

    def _batch_change(self, id: int | str) -> Any:
        with self._instance.transaction() as db:
            row = db.execute("SELECT * FROM batch_changes WHERE id = ?", (id,)).fetchone()
        if row is None:
            return None
        namespace, spec = self._namespace(row["namespace"]), self._batch_spec("id", row["batch_spec_id"])
        return {
            "__typename": "BatchChange",
            "id": encode("BatchChange", row["id"]),
            "name": row["name"],
            "description": "",
            "state": "CLOSED" if row["closed_at"] else "OPEN",
            "url": f"{namespace['url']}/batch-changes/{row['name']}",
            "namespace": namespace,
            "creator": self._user_node("id", row["creator_id"]),
            "lastApplier": self._user_node("id", row["last_applier_id"]),
            "lastAppliedAt": row["last_applied_at"],
            "closedAt": row["closed_at"],
            "currentSpec": spec,
        }


def _organization(row: sqlite3.Row) -> Any:
    url = f"/organizations/{row['name']}"
    return {
        "__typename": "Org",
        "id": encode("Org", row["id"]),
        "name": row["name"],
        "namespaceName": row["name"],
        "url": url,
    }


def _ref(name: str, commit: str) -> Any:
    short = name.removeprefix("refs/heads/")
    return {
        "id": encode("GitRef", name),
        "name": name,
        "displayName": short,
        "abbrevName": short,
        "target": {"oid": commit},
    }
