"""A Docker engine that a user without rights runs, in a user namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.engines import answers, wait_until

_SECONDS = 60


class RootlessEngine:
    """A context manager; needs root, for it makes a user and removes it. ``folder``: for all of it, its path short.

    It has no network but none, and on most machines it keeps no limits of memory and processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user = f"bw-test-{os.getpid() % 100_000}"
        self.host = f"unix://{folder}/docker.sock"

    def __enter__(self) -> RootlessEngine:
        _run("useradd", "--home-dir", str(self._folder), "--no-create-home", self._user)  # with a range of ids
        _run("chown", self._user, str(self._folder))
        (self._folder / "log").touch()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--reuid", self._user, "--regid", self._user, "--init-groups"),
                    "dockerd-rootless.sh",
                    *("--host", self.host),
                    *("--data-root", f"{self._folder}/data"),
                    *("--exec-root", f"{self._folder}/exec"),
                    *("--pidfile", f"{self._folder}/docker.pid"),
                    # It may not delete the bridge of the machine's engine, as one of root's would.
                    *("--bridge=none", "--iptables=false"),
                ],
                env={
                    "HOME": str(self._folder),
                    "XDG_RUNTIME_DIR": str(self._folder),
                    # The script lies where no PATH leads to.
                    "PATH": "/usr/share/docker.io/contrib:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "DOCKERD_ROOTLESS_ROOTLESSKIT_NET": "host",
                    "DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER": "none",
                    "DOCKERD_ROOTLESS_ROOTLESSKIT_MTU": "0",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: answers(f"{self._folder}/docker.sock"), lambda: (self._folder / "log").read_text())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(_SECONDS)
        _run("userdel", self._user)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
