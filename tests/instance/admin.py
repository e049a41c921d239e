"""The tests' own channel, /.admin/: seed, look, order faults. A real instance has nothing like it."""

from __future__ import annotations

import hmac
import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from .accounts import digest
from .faults import ADMIN, KINDS
from .state import Instance


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewUser(_Strict):
    username: str
    email: str = ""
    site_admin: bool = False


class NewRepository(_Strict):
    """Git puts it at ``folder`` itself; this makes it known. ``readers``: the users who may see a private one."""

    name: str
    service_type: str = "github"
    private: bool = False
    cloned: bool = True
    readers: list[str] = []


class NewFault(_Strict):
    kind: str = Field(pattern=f"^({'|'.join(KINDS)})$")
    path: str = ""
    method: str = ""
    every: int = Field(default=1, ge=1)
    times: int | None = None
    status: int = 500
    headers: dict[str, str] = {}
    body: str = ""
    seconds: float = 0


def router(instance: Instance, token: str, *parts: APIRouter) -> APIRouter:
    """The routes, and those of other modules (``parts``), open to who has ``token``."""

    def check(x_admin: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(x_admin, token):
            raise HTTPException(401, "wrong X-Admin")

    routes = APIRouter(prefix=ADMIN.rstrip("/"), dependencies=[Depends(check)])

    @routes.get("/ready")
    def ready() -> str:
        return "ready"

    @routes.put("/settings/{name}")
    def set_setting(name: str, value: str) -> None:
        with instance.transaction() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    @routes.delete("/settings/{name}")
    def unset_setting(name: str) -> None:
        with instance.transaction() as db:
            db.execute("DELETE FROM settings WHERE name = ?", (name,))

    @routes.post("/users")
    def add_user(user: NewUser) -> dict[str, Any]:
        """A user and an access token of theirs."""
        with instance.transaction() as db:
            added = db.execute(
                "INSERT INTO users (username, email, site_admin) VALUES (?, ?, ?)",
                (user.username, user.email or f"{user.username}@example.com", user.site_admin),
            )
        return {"id": added.lastrowid, "token": add_token(user.username)}

    @routes.post("/users/{username}/tokens")
    def add_token(username: str) -> str:
        token = f"sgp_{secrets.token_hex(20)}"
        with instance.transaction() as db:
            db.execute(
                "INSERT INTO access_tokens SELECT ?, id FROM users WHERE username = ?", (digest(token), username)
            )
        return token

    @routes.delete("/tokens/{token}")
    def revoke_token(token: str) -> None:
        with instance.transaction() as db:
            db.execute("DELETE FROM access_tokens WHERE sha256 = ?", (digest(token),))

    @routes.post("/organizations/{name}")
    def add_organization(name: str, members: list[str]) -> int | None:
        with instance.transaction() as db:
            added = db.execute("INSERT INTO organizations (name) VALUES (?)", (name,)).lastrowid
            for member in members:
                db.execute("INSERT INTO members SELECT ?, id FROM users WHERE username = ?", (added, member))
        return added

    @routes.post("/repositories")
    def add_repository(repository: NewRepository) -> dict[str, Any]:
        """Its id, and the folder in which a bare repository is expected."""
        with instance.transaction() as db:
            added = db.execute(
                "INSERT INTO repositories (name, service_type, private, cloned) VALUES (?, ?, ?, ?)",
                (repository.name, repository.service_type, repository.private, repository.cloned),
            ).lastrowid
            for reader in repository.readers:
                db.execute("INSERT INTO permissions SELECT ?, id FROM users WHERE username = ?", (added, reader))
        return {"id": added, "folder": str(instance.repository_folder(repository.name))}

    @routes.post("/faults")
    def order_fault(fault: NewFault) -> int | None:
        with instance.transaction() as db:
            return db.execute(
                "INSERT INTO faults (kind, method, path, every, times, status, headers, body, seconds)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    fault.kind,
                    fault.method,
                    fault.path,
                    fault.every,
                    fault.times,
                    fault.status,
                    json.dumps(fault.headers),
                    fault.body,
                    fault.seconds,
                ),
            ).lastrowid

    @routes.delete("/faults")
    def end_faults() -> None:
        with instance.transaction() as db:
            db.execute("DELETE FROM faults")

    @routes.post("/sql")
    def query(statement: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        """Look into the state, or change it as no interface could (time passes, somebody restarts a database)."""
        with instance.transaction() as db:
            return [dict(row) for row in db.execute(statement, values or ()).fetchall()]

    for part in parts:
        routes.include_router(part)
    return routes
