"""A small read-only web server for what the store has of runs: reports, diffs, the output of steps.

/<block type>/<block>/runs/<run>/                    the report; of a run that goes on, as far as it is
/<block type>/<block>/runs/<run>/diffs/<n>.patch     a workspace's diff
/<block type>/<block>/runs/<run>/logs/<n>-<step>.stdout  .stderr

Only the stores that are blocks of the Prefect server can be named. There is nothing else: no listing, no other key.
Whoever can read the dashboard can read this, and nobody else: it asks for the same user and password.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Lock
from typing import BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

from blocks.blobs import Blobs
from blocks.store import ArtifactMissing, ArtifactStore, KeyRefused, StoreTrouble

from .batches.records import Blob as BlobRecord
from .batches.records import RecordError
from .batches.results import WorkspaceResult
from .ledger import Ledger
from .report import content_policy, copy_report
from .step_cache import stored

log = logging.getLogger(__name__)

BLOCK_TYPES = ("local-artifacts", "s3-artifacts")

_ROUTE = re.compile(
    rf"/(?P<type>{'|'.join(BLOCK_TYPES)})/(?P<block>[a-z0-9-]{{1,200}})/runs/(?P<run>[^/]{{1,200}})/"
    r"(?:|diffs/(?P<diff>\d{1,6})\.patch|logs/(?P<workspace>\d{1,6})-(?P<step>\d{1,4})\.(?P<stream>stdout|stderr))"
)
_REPORTS_AT_ONCE = 2
_STORE_SECONDS = 60
_CHUNK_BYTES = 1 << 16

Stores = Callable[[str, str], ArtifactStore]
"""The store of a block, by the slug of its type and its name. Raises KeyError if there is none."""


def address(view: str, block_type: str, block: str, run_id: str) -> str:
    """Where the server at ``view`` shows a run."""
    return f"{view}/{block_type}/{quote(block)}/runs/{quote(run_id, safe='')}/"


def serve(
    host: str, port: int, stores: Stores, *, names: Iterable[str] = (), auth: str | None = None
) -> ThreadingHTTPServer:
    """A server that listens; ``serve_forever`` is left to the caller.

    ``names``: hosts under which browsers reach it. Others are refused: a page of somebody else whose name was turned
    to this address must not read reports. ``auth``: `user:password`, to be given by whoever asks; None: nobody has to.
    """
    server = _Server((host, port), _Handler)
    own = {f"{name}:{server.server_port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    server.stores, server.hosts = _Remembered(stores), own | {name.lower() for name in names}
    server.auth = f"Basic {b64encode(auth.encode()).decode()}" if auth else None
    return server


def block_store(block_type: str, name: str) -> ArtifactStore:
    """The store that a block of the Prefect server describes. Raises KeyError."""
    from blocks.artifacts import LocalArtifacts
    from blocks.s3_artifacts import S3Artifacts

    try:
        block = LocalArtifacts.load(name) if block_type == "local-artifacts" else S3Artifacts.load(name)
    except ValueError as error:
        raise KeyError(name) from error
    assert isinstance(block, (LocalArtifacts, S3Artifacts))  # a coroutine only where an event loop runs
    return block.store()


class _Remembered:
    """Stores, remembered for a minute: an edited block counts soon, and a page costs no question each time."""

    def __init__(self, stores: Stores) -> None:
        self._stores, self._lock = stores, Lock()
        self._known: dict[tuple[str, str], tuple[float, ArtifactStore]] = {}

    def __call__(self, block_type: str, name: str) -> ArtifactStore:
        with self._lock:
            since, store = self._known.get((block_type, name), (float("-inf"), None))
            if store is None or time.monotonic() - since > _STORE_SECONDS:
                store = self._stores(block_type, name)
                self._known = {**dict(list(self._known.items())[-20:]), (block_type, name): (time.monotonic(), store)}
            return store


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stores: Stores
    hosts: set[str]
    auth: str | None
    rendering = BoundedSemaphore(_REPORTS_AT_ONCE)


@dataclass(frozen=True)
class _NotThere(Exception):
    """What was asked for does not exist, in words for people."""

    what: str


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = f"batchwright/{os.getpid()}", ""  # who started it knows it by this
    timeout = 60
    _begun = False

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)

    @property
    def _ours(self) -> _Server:
        return cast(_Server, self.server)

    def _answer(self) -> None:
        self._begun = False
        try:
            self._route()
        except _NotThere as error:
            self._tell(HTTPStatus.NOT_FOUND, error.what)
        except (ArtifactMissing, KeyRefused):
            self._tell(HTTPStatus.NOT_FOUND, "the store has no such run, or no longer all of it")
        except (StoreTrouble, RecordError) as error:
            self._tell(HTTPStatus.BAD_GATEWAY, f"the store cannot be read: {error}")
        except ConnectionError:
            self.close_connection = True  # the browser has gone

    def _route(self) -> None:
        if self.headers.get("Host", "").lower() not in self._ours.hosts:
            self._tell(HTTPStatus.MISDIRECTED_REQUEST, "this server is not known under that name")
            return
        if self._ours.auth and not compare_digest(
            self.headers.get("Authorization", "").encode(), self._ours.auth.encode()
        ):
            self._tell(HTTPStatus.UNAUTHORIZED, "give the user and password of the dashboard")
            return
        found = _ROUTE.fullmatch(urlsplit(self.path).path)
        if found is None:
            raise _NotThere("there is nothing here; reports are opened from the page of a run in the dashboard")
        try:
            store = self._ours.stores(found["type"], found["block"])
        except KeyError:
            raise _NotThere(f"the Prefect server has no block {found['type']}/{found['block']}") from None
        ledger = Ledger(store, unquote(found["run"]))
        if found["diff"]:
            self._send_blob(ledger, _workspace(ledger, int(found["diff"])).diff)
        elif found["step"]:
            self._send_blob(ledger, _stream(ledger, int(found["workspace"]), int(found["step"]), found["stream"]))
        else:
            self._send_report(ledger)

    def _send_report(self, ledger: Ledger) -> None:
        with tempfile.TemporaryFile() as file, self._ours.rendering:
            copy_report(ledger, cast(BinaryIO, file))
            size = file.seek(0, 2)
            file.seek(0)
            self._begin(HTTPStatus.OK, "text/html; charset=utf-8", size)
            while self.command == "GET" and (chunk := file.read(_CHUNK_BYTES)):
                self.wfile.write(chunk)

    def _send_blob(self, ledger: Ledger, blob: BlobRecord | None) -> None:
        if blob is None:
            raise _NotThere("the record has no such content")
        self._begin(HTTPStatus.OK, "text/plain; charset=utf-8", blob.size_bytes)
        if self.command == "GET":
            Blobs(ledger.store).copy_to(stored(blob), self.wfile)

    def _tell(self, status: HTTPStatus, text: str) -> None:
        if self._begun:  # too late to say so: what was sent must not look whole
            self.close_connection = True
            return
        content = f"{text}\n".encode()
        self._begin(status, "text/plain; charset=utf-8", len(content))
        if self.command == "GET":
            self.wfile.write(content)

    def _begin(self, status: HTTPStatus, content_type: str, size: int) -> None:
        self._begun = True
        self.send_response(status)
        for name, value in (
            ("Content-Type", content_type),
            ("Content-Length", str(size)),
            ("Content-Security-Policy", f"{content_policy()}; frame-ancestors 'none'; sandbox allow-scripts"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="batchwright", charset="UTF-8"')
        self.end_headers()


def _workspace(ledger: Ledger, number: int) -> WorkspaceResult:
    results = ledger.manifest().workspaces
    if not 1 <= number <= len(results):
        raise _NotThere(f"the run has no workspace {number}")
    return results[number - 1]


def _stream(ledger: Ledger, number: int, step: int, name: str) -> BlobRecord | None:
    for reference, result in ledger.steps(_workspace(ledger, number)):
        if reference.index == step - 1:
            return result.stdout if name == "stdout" else result.stderr
    raise _NotThere(f"the workspace has no record of step {step}")
