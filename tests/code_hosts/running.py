"""Fake code hosts for tests: started, watched, and told what people do there."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "t0ken-of-the-code-host-XYZ"


@dataclass(frozen=True)
class RunningHost:
    """A fake host that runs."""

    kind: str
    url: str
    root: Path
    tls: Path | None = None

    @property
    def names(self) -> str:
        """What the names of its repositories begin with."""
        return self.url.partition("://")[2]

    def repository(self, path: str) -> Path:
        """The bare repository."""
        return self.root / f"{path}.git"

    def state(self) -> dict[str, Any]:
        """Everything that is on the host."""
        return dict(self.control("state", {}))

    def changes(self, **fields: Any) -> list[dict[str, Any]]:
        """The review requests that have these values."""
        found = self.state()["changes"]
        return [change for change in found if all(change[name] == value for name, value in fields.items())]

    def control(self, what: str, body: dict[str, Any]) -> Any:
        """Tell the host what somebody does there."""
        request = urllib.request.Request(f"{self.url}/_control/{what}", json.dumps(body).encode())
        context = ssl.create_default_context(cafile=self.tls) if self.tls else None
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return json.loads(answer.read())


@contextmanager
def running(kind: str, root: Path, *, check: bool = False, tls: Path | None = None) -> Iterator[RunningHost]:
    """A fake host for the repositories below ``root``. ``check``: its answers are validated; ``tls``: a certificate."""
    command = [sys.executable, "-m", "tests.code_hosts", kind, str(root), *(["--check"] if check else [])]
    command += ["--tls", str(tls)] if tls else []
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HOST_TOKEN": TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, "the fake host did not start"
        yield RunningHost(kind, url, root, tls)
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()
