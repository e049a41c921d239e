"""Start the fake instance as a process of its own, and talk to its /.admin/: what tests use."""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.gitrepos import make_repository
from tests.ports import free_port

_START_SECONDS = 60


@dataclass(frozen=True)
class Account:
    """A user of the instance, with an access token."""

    id: int
    username: str
    token: str


class RunningInstance:
    """``with RunningInstance(folder) as instance:`` starts and stops it; ``kill`` and ``start`` keep port and state."""

    def __init__(self, folder: Path, *, certificates: Path | None = None) -> None:
        """With a folder of ``certificates`` (tests/engines.py makes them) it serves https."""
        self._folder, self._certificates = folder, certificates
        self._admin_token = secrets.token_hex(16)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningInstance:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"{'https' if self._certificates else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        self._port = self._port or free_port()
        command = [sys.executable, "-m", "tests.instance", f"--folder={self._folder / 'state'}"]
        command += [f"--port={self._port}", f"--admin-token={self._admin_token}"]
        if self._certificates:
            command += [f"--certificate={self._certificates / 'server-cert.pem'}"]
            command += [f"--key={self._certificates / 'server-key.pem'}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the fake instance did not start:\n{self.log[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def log(self) -> str:
        """What the process said."""
        return (self._folder / "log").read_text()

    def admin(self, method: str, path: str, body: object = None, **parameters: Any) -> Any:
        """One call of /.admin/: ``instance.admin("POST", "users", {"username": "ada"})``."""
        answer = httpx.request(
            method,
            f"{self.url}/.admin/{path}",
            content=None if body is None else json.dumps(body),
            params=parameters,
            headers={"X-Admin": self._admin_token, "Content-Type": "application/json"},
            timeout=30,
            verify=ssl.create_default_context(cafile=self._certificates / "ca.pem") if self._certificates else True,
        )
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def add_user(self, username: str, *, site_admin: bool = False) -> Account:
        added = self.admin("POST", "users", {"username": username, "site_admin": site_admin})
        return Account(added["id"], username, added["token"])

    def add_repository(
        self, name: str, files: Mapping[str, str | bytes | None] | None = None, **settings: Any
    ) -> tuple[int, str]:
        """A repository with one commit of ``files`` on main; gives its id and the commit."""
        added = self.admin("POST", "repositories", {"name": name, **settings})
        return added["id"], make_repository(Path(added["folder"]), files, bare=True)

    def set(self, name: str, value: str) -> None:
        """A setting of the site configuration: ``instance.set("executors.accessToken", ...)``."""
        self.admin("PUT", f"settings/{name}", value=value)

    def fault(self, kind: str, path: str = "", **order: Any) -> None:
        """Order a fault (tests/instance/faults.py says which there are)."""
        self.admin("POST", "faults", {"kind": kind, "path": path, **order})

    def end_faults(self) -> None:
        self.admin("DELETE", "faults")

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Look into its state, or change it as no interface could."""
        found: list[dict[str, Any]] = self.admin("POST", "sql", list(values), statement=statement)
        return found

    def _answers(self) -> bool:
        try:
            self.admin("GET", "ready")
        except httpx.TransportError:
            return False
        return True
