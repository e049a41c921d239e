"""Who asks: users with access tokens, as `Authorization: token ...` or as the user name of basic authentication."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from .state import Instance


@dataclass(frozen=True)
class User:
    id: int
    username: str
    email: str
    site_admin: bool


class Refused(Exception):
    """The request ends with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def authenticated(instance: Instance, request: Request) -> User:
    """The user of a request. Raises Refused."""
    token = _token(request.headers.get("Authorization"))
    with instance.transaction() as db:
        row = db.execute(
            "SELECT users.* FROM access_tokens JOIN users ON users.id = user_id WHERE sha256 = ?", (digest(token),)
        ).fetchone()
    if row is None:
        raise Refused(PlainTextResponse("Invalid access token.\n", 401))
    return User(row["id"], row["username"], row["email"], bool(row["site_admin"]))


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _token(header: str | None) -> str:
    if header is None:
        raise Refused(PlainTextResponse("Private mode requires authentication.\n", 401))
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "token" and value:
        return value
    if scheme.lower() == "basic":
        try:
            username = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            username = ""
        if username:
            return username
    raise Refused(PlainTextResponse("Invalid Authorization header.\n", 401))
