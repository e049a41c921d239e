"""A Podman behind its Docker-compatible API, on a socket and a storage of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from tests.engines import answers, wait_until

_SECONDS = 60

_CONFIGURATION = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "modest"
[engine.runtimes]
modest = ["{folder}/runtime"]
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""

# Podman asks for more open files and processes than a machine without CAP_SYS_RESOURCE may give; its service reads no
# setting for that.
_RUNTIME = """\
#!/usr/bin/python3 -IS
import json, os, sys

def forget_limits(path, *way):
    with open(path) as file:
        document = process = json.load(file)
    for name in way:
        process = process[name]
    process.pop("rlimits", None)
    with open(path, "w") as file:
        json.dump(document, file)

words = sys.argv[1:]
if "create" in words:
    forget_limits(words[words.index("--bundle") + 1] + "/config.json", "process")
elif "exec" in words and "--process" in words:
    forget_limits(words[words.index("--process") + 1])
os.execvp("runc", ["runc", *words])
"""


class Podman:
    """A context manager; needs root. ``folder`` is for all of it; its path must be short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"unix://{folder}/podman.sock"

    def __enter__(self) -> Podman:
        files = {"containers.conf": _CONFIGURATION, "storage.conf": _STORAGE, "runtime": _RUNTIME}
        for name, text in files.items():
            (self._folder / name).write_text(text.replace("{folder}", str(self._folder)))
        (self._folder / "runtime").chmod(0o755)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["podman", "system", "service", "--time=0", self.host],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: answers(f"{self._folder}/podman.sock"), lambda: (self._folder / "log").read_text())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_SECONDS)
        said: list[str] = []

        def is_reset() -> bool:
            """Its storage is mounted on itself; it knows how to remove it, once nothing in there is busy."""
            reset = ["podman", "system", "reset", "--force"]
            done = subprocess.run(reset, env=self._environment, capture_output=True, text=True, check=False)
            said.append(done.stderr)
            return done.returncode == 0

        wait_until(is_reset, lambda: said[-1])

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_CONF": f"{self._folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self._folder}/storage.conf",
        }
