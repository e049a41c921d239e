"""A registry that an engine can pull from: in this process, with a password and faults to order."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from infra.images import busybox_tree

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry:
    """A context manager. ``login`` (user, password) if it wants one; ``fault``: an HTTP status and a body to answer."""

    def __init__(self, login: tuple[str, str] | None = None) -> None:
        self.login = login
        self.fault: tuple[int, bytes] | None = None
        self.asked: list[str] = []
        """The manifests that were asked for, name:tag or name@digest; an engine may ask for both in a pull."""
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, str] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, headers, body = registry._answer(self.path, self.headers.get("Authorization"))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Registry:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(self, name: str, marker: str = "") -> tuple[str, str]:
        """Offer a busybox image as ``name`` (with tag); another ``marker`` makes another image.

        Returns the full reference and the digest.
        """
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            for info, content in busybox_tree():
                if info.isreg() and isinstance(content, str):
                    with open(content, "rb") as file:
                        archive.addfile(info, file)
                else:
                    archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) and info.isreg() else None)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Labels": {"marker": marker}},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._blob(_CONFIG, json.dumps(config).encode()),
            "layers": [self._blob(_LAYER, gzip.compress(layer.getvalue(), mtime=0))],
        }
        digest = str(self._blob(_MANIFEST, json.dumps(manifest).encode())["digest"])
        self._manifests[name] = digest
        return f"{self.address}/{name}", digest

    def _blob(self, kind: str, content: bytes) -> dict[str, object]:
        self._blobs[_digest(content)] = content
        return {"mediaType": kind, "size": len(content), "digest": _digest(content)}

    def _answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        if self.login and authorization != "Basic " + base64.b64encode(":".join(self.login).encode()).decode():
            return 401, {"WWW-Authenticate": 'Basic realm="test"'}, _error("UNAUTHORIZED", "authentication required")
        if path == "/v2/":
            return 200, {}, b"{}"
        if self.fault:
            return self.fault[0], {"Content-Type": "application/json"}, self.fault[1]
        name, _, wanted = path.removeprefix("/v2/").rpartition("/")
        name, _, kind = name.rpartition("/")
        digest = wanted
        if kind == "manifests":
            self.asked.append(f"{name}{'@' if ':' in wanted else ':'}{wanted}")
            digest = self._manifests.get(f"{name}:{wanted}", wanted)
        if digest not in self._blobs:
            return 404, {"Content-Type": "application/json"}, _error("MANIFEST_UNKNOWN", "manifest unknown")
        headers = {"Docker-Content-Digest": digest, "Content-Type": _MANIFEST if kind == "manifests" else _LAYER}
        return 200, headers, self._blobs[digest]


def rate_limited() -> tuple[int, bytes]:
    return 429, _error("TOOMANYREQUESTS", "You have reached your pull rate limit")


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
