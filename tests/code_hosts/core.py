"""What the fakes of code hosts have in common: HTTP, git over HTTP, accounts, limits, review requests on real git.

Written from the hosts' public documentation; imports nothing of the product. Strict: unknown paths, fields and query
parameters are refused, and whoever asks before a limit is over is remembered.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.code_hosts import repos

GRACE_SECONDS = 0.5
"""Requests that were under way when a limit was told are no offence."""


class Refused(Exception):
    """An answer that is none of success."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body, headers or {}


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Change:
    """A review request. While it is open, its head is where the branch is; then where it was."""

    number: int
    title: str
    body: str
    repository: str
    head_repository: str
    head: str
    base: str
    author: str
    draft: bool = False
    state: str = "open"  # closed, merged
    frozen: str = ""
    merge_commit: str = ""
    labels: list[str] = field(default_factory=list)
    reviewers: list[str] = field(default_factory=list)
    assignees: list[str] = field(default_factory=list)
    reviews: list[tuple[str, str]] = field(default_factory=list)
    edits: int = 0
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Repository:
    path: str
    id: int
    parent: str = ""
    changes: list[Change] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, dict[str, str]] = field(default_factory=dict)
    """Commit -> context -> state."""


@dataclass
class Limits:
    """How the host is to refuse for a while."""

    kind: str = ""
    after: int = 0
    """How many requests it takes before it does."""
    seconds: float = 0.0
    until: float = 0.0
    told: float = 0.0
    refusals: int = 0
    offences: int = 0


class Host(ABC):
    """One fake host. Subclasses route requests of the API."""

    api = ""
    """What the API's paths begin with."""

    def __init__(self, root: Path, token: str, user: str) -> None:
        self.root, self.token, self.user = root, token, user
        self.people = {user: 1, "rita": 2, "otto": 3}
        self.repositories: dict[str, Repository] = {}
        self.lock = threading.RLock()
        self.limits = Limits()
        self.log: list[str] = []
        self.failures: list[int] = []
        """Statuses with which the next requests that change something fail, after they took effect."""
        self.problems: list[str] = []
        """What went wrong in the fake itself."""
        self.address = ""
        for folder in sorted(root.rglob("*.git")):
            self.add(folder.relative_to(root).as_posix().removesuffix(".git"))

    def add(self, path: str, parent: str = "") -> Repository:
        repos.allow_pushes(self.folder(path))
        self.repositories[path] = Repository(path, id=len(self.repositories) + 100, parent=parent)
        return self.repositories[path]

    def folder(self, path: str) -> Path:
        return self.root / f"{path}.git"

    def repository(self, path: str) -> Repository:
        found = next((each for name, each in self.repositories.items() if name.lower() == path.lower()), None)
        if found is None:
            raise self.not_found()
        return found

    def change(self, repository: Repository, number: str) -> Change:
        found = next((each for each in repository.changes if str(each.number) == number), None)
        if found is None:
            raise self.not_found()
        self.look_at(found)
        return found

    def look_at(self, change: Change) -> None:
        """A review request whose branch is gone is closed."""
        if change.state == "open":
            commit = repos.branch_commit(self.folder(change.head_repository), change.head)
            if commit:
                change.frozen = commit
            else:
                change.state = "closed"

    def head_commit(self, change: Change) -> str:
        self.look_at(change)
        return change.frozen

    def base_commit(self, change: Change) -> str:
        return repos.branch_commit(self.folder(change.repository), change.base)

    def conflicts(self, change: Change) -> bool:
        if change.head_repository != change.repository:
            repos.borrow(self.folder(change.repository), self.folder(change.head_repository))
        return not repos.merged_tree(self.folder(change.repository), self.base_commit(change), self.head_commit(change))

    def default_branch(self, repository: Repository) -> str:
        return repos.git(self.folder(repository.path), "symbolic-ref", "--short", "HEAD")

    def open_change(self, repository: Repository, **content: Any) -> Change:
        change = Change(number=len(repository.changes) + 1, repository=repository.path, author=self.user, **content)
        repository.changes.append(change)
        self.look_at(change)
        return change

    def twin(self, repository: Repository, head_repository: str, head: str, base: str) -> Change | None:
        """An open review request for the same branches."""
        for change in repository.changes:
            self.look_at(change)
            same = (change.head_repository, change.head, change.base) == (head_repository, head, base)
            if same and change.state == "open":
                return change
        return None

    def merge(self, change: Change) -> str:
        if change.head_repository != change.repository:
            repos.borrow(self.folder(change.repository), self.folder(change.head_repository))
        change.merge_commit = repos.merge(
            self.folder(change.repository), change.base, self.head_commit(change), f"Merge {change.head}"
        )
        change.state = "merged"
        return change.merge_commit

    def fork_of(self, repository: Repository, owner: str) -> tuple[Repository, bool]:
        """The fork, and whether it was there already."""
        path = f"{owner}/{repository.path.rpartition('/')[2]}"
        if path in self.repositories:
            return self.repositories[path], True
        repos.fork(self.folder(repository.path), self.folder(path))
        return self.add(path, parent=repository.path), False

    # What subclasses say.

    @abstractmethod
    def authenticated(self, request: Request) -> bool:
        """Whether it carries a token that opens this host."""

    @abstractmethod
    def route(self, request: Request) -> Answer:
        """What the host's interface answers. Raises Refused."""

    def not_found(self) -> Refused:
        return Refused(404, {"message": "Not Found"})

    def unauthorized(self) -> Refused:
        return Refused(401, {"message": "Bad credentials"})

    @abstractmethod
    def limited(self, kind: str, seconds: float) -> Refused:
        """How the host says that it was asked too often, and for how long."""

    # Serving.

    def answer(self, request: Request) -> Answer:
        with self.lock:
            if request.path.startswith("/_control"):
                return self.control(request)
            self.log.append(f"{request.method} {request.path}")
            try:
                self._obey_limits()
                if not self.authenticated(request):
                    raise self.unauthorized()
                answer = self.route(request)
                if request.method != "GET" and self.failures:
                    return Answer(self.failures.pop(0), {"message": "Server Error"})
                return answer
            except Refused as refused:
                return Answer(refused.status, refused.body, refused.headers)
            except Exception as error:
                self.problems.append(f"{request.method} {request.path}: {error!r}")
                return Answer(500, {"message": f"the fake is broken: {error!r}"})

    def _obey_limits(self) -> None:
        limits, now = self.limits, time.time()
        if limits.kind and limits.after > 0:
            limits.after -= 1
            return
        if limits.kind:
            limits.until, limits.told = now + limits.seconds, now
            refused = self.limited(limits.kind, limits.seconds)
            limits.kind = ""
            limits.refusals += 1
            raise refused
        if now < limits.until:
            limits.refusals += 1
            limits.offences += now > limits.told + GRACE_SECONDS
            raise self.limited("again", limits.until - now)

    def control(self, request: Request) -> Answer:
        """What tests do behind the host's back, as people and programs on the real one would."""
        what = request.path.removeprefix("/_control/")
        body = request.body
        if what == "state":
            return Answer(200, self.dump())
        if what == "limit":
            self.limits = Limits(**body)
        elif what == "fail":
            self.failures = list(body["statuses"])
        elif what == "review":
            self.change(self.repository(body["repository"]), body["number"]).reviews.append(
                (body["who"], body["state"])
            )
        elif what == "status":
            change = self.change(self.repository(body["repository"]), body["number"])
            statuses = self.repository(body["repository"]).statuses.setdefault(self.head_commit(change), {})
            statuses[body.get("context", "ci")] = body["state"]
        elif what == "set":
            change = self.change(self.repository(body["repository"]), body["number"])
            for name, value in body["fields"].items():
                setattr(change, name, value)
        elif what == "label":
            repository = self.repository(body["repository"])
            repository.labels[body["name"]] = len(repository.labels) + 1
        else:
            raise Refused(404, {"message": what})
        return Answer(200, {})

    def dump(self) -> dict[str, Any]:
        """Everything that is on the host."""
        changes = [
            {**vars(change), "created": change.created.isoformat(), "head_commit": self.head_commit(change)}
            for repository in self.repositories.values()
            for change in repository.changes
        ]
        return {
            "changes": changes,
            "repositories": sorted(self.repositories),
            "limits": vars(self.limits),
            "log": self.log,
            "problems": self.problems,
        }

    def fields(
        self, given: dict[str, Any], refuse: Callable[[str], Refused], **allowed: type | tuple[type, ...]
    ) -> None:
        """Refuse unknown fields and wrong types."""
        for name, value in given.items():
            if name not in allowed or not isinstance(value, allowed[name]):
                raise refuse(name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def _handle(self) -> None:
        body = self._body()
        parts = urlsplit(self.path)
        if not parts.path.startswith((self.host.api, "/_control")) and not parts.path.startswith("/api/"):
            self._git(parts.path, parts.query, body)
            return
        try:
            content = json.loads(body) if body else {}
        except ValueError:
            self._send(400, {}, b'{"message": "Problems parsing JSON"}')
            return
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(self.command, parts.path, query, content, {k.lower(): v for k, v in self.headers.items()})
        answer = self.host.answer(request)
        raw = b"" if answer.status == 204 else json.dumps(answer.body).encode()
        self._send(answer.status, {"Content-Type": "application/json", **answer.headers}, raw)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _git(self, path: str, query: str, body: bytes) -> None:
        scheme, _, login = (self.headers.get("Authorization") or "").partition(" ")
        password = base64.b64decode(login).decode().partition(":")[2] if scheme == "Basic" else ""
        if not self.host.accepts(password):  # type: ignore[attr-defined]
            self._send(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.host.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "3",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_1": "true",
            "GIT_CONFIG_KEY_2": "receive.autogc",
            "GIT_CONFIG_VALUE_2": "false",
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": self.host.user,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        with self.host.lock:
            self.host.log.append(f"git {self.command} {path} {query} {len(body)}")
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


def serve(host: Host, announce: Callable[[str], None], certificate: Path | None = None) -> None:
    """Serve for ever; ``announce`` gets the address. ``certificate``: for localhost, with `key.pem` beside it."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": host}))
    host.address = f"http://127.0.0.1:{server.server_port}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        host.address = f"https://localhost:{server.server_port}"
    announce(host.address)
    server.serve_forever(poll_interval=0.05)


def paged(entries: list[Any], request: Request, host: Host, *, size: str, default: int, most: int) -> Answer:
    """One page of a list, with the links to the next ones."""
    page, per_page = int(request.query.get("page", "1")), int(request.query.get(size, str(default)))
    if not 1 <= per_page <= most:
        per_page = most
    start = (page - 1) * per_page
    headers = {"X-Total-Count": str(len(entries)), "X-Total": str(len(entries))}
    if start + per_page < len(entries):
        query = "&".join(f"{k}={v}" for k, v in {**request.query, "page": str(page + 1), size: str(per_page)}.items())
        headers["Link"] = f'<{host.address}{request.path}?{query}>; rel="next"'
        headers["X-Next-Page"] = str(page + 1)
    return Answer(200, entries[start : start + per_page], headers)
