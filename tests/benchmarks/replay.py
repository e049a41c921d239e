"""What src-cli 7.6 does for a workspace and its steps (bind mode): the same git and docker commands, in its order.

Kind to it where there was a choice: archives are there already, and nothing is rendered, logged or cached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cases import Case, Diffs, archive_of, script

_GIT = shutil.which("git") or "git"
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Sourcegraph",
    "GIT_AUTHOR_EMAIL": "batch-changes@sourcegraph.com",
    "GIT_COMMITTER_NAME": "Sourcegraph",
    "GIT_COMMITTER_EMAIL": "batch-changes@sourcegraph.com",
    # Not src-cli's: by default the length of ids in a diff depends on whether git has packed its objects meanwhile.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.abbrev",
    "GIT_CONFIG_VALUE_0": "7",
}


@dataclass(frozen=True)
class Replay:
    """The workspaces of a case as src-cli runs them. ``folder`` holds the archives; what is made there is removed."""

    case: Case
    folder: Path
    image: str

    def run(self) -> Diffs:
        """Every step of every workspace. Raises CalledProcessError."""
        (self.folder / "replay").mkdir(exist_ok=True)
        image_id = _output("docker", "image", "inspect", "--format", "{{ .Id }}", self.image).decode().strip()
        with ThreadPoolExecutor(self.case.at_once) as pool:
            diffs = pool.map(lambda place: self._run_workspace(place, image_id), self.case.places)
            return dict(zip(self.case.places, diffs, strict=True))

    def wait_for_leftovers(self) -> None:
        """Wait for the `git gc` that `git commit` has begun in the background, and remove what it kept alive."""
        while _is_working_in(self.folder / "replay"):
            time.sleep(0.1)
        shutil.rmtree(self.folder / "replay")

    def _run_workspace(self, place: tuple[str, str], image_id: str) -> list[bytes]:
        repository, path = place
        scratch = Path(tempfile.mkdtemp(dir=self.folder / "replay"))
        tree = scratch / "tree"
        try:
            _output("unzip", "-q", str(archive_of(self.folder, repository)), "-d", str(tree))
            _git(tree, "init")
            _git(tree, "add", "--force", "--all")
            _git(tree, "commit", "--quiet", "--all", "--allow-empty", "-m", "src-action-exec")
            return [self._run_step(tree, path, image_id, step) for step in range(self.case.steps)]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # `git gc` may still write to it

    def _run_step(self, tree: Path, path: str, image_id: str, step: int) -> bytes:
        shell, target = _probe(image_id)
        source, cid = tree.parent / f"script-{step}", tree.parent / f"cid-{step}"
        source.write_text(script(step))
        _output(
            *("docker", "run", "--rm", "--init", "--cidfile", str(cid), "--workdir", f"/work/{path}".rstrip("/")),
            *("--mount", f"type=bind,source={source},target={target},ro"),
            *("--mount", f"type=bind,source={tree},target=/work"),
            *("--entrypoint", shell, "--", image_id, target),
        )
        subprocess.run(["docker", "rm", "-f", "--", cid.read_text()], capture_output=True, check=False)
        _git(tree, "add", "--all")
        return _git(tree, "diff", "--cached", "--no-prefix", "--binary")


def _probe(image_id: str) -> tuple[str, str]:
    """The first shell that works, and where the script goes: a free name in the container's own /tmp."""
    for shell in ("/bin/bash", "/bin/sh"):
        command = ["docker", "run", "--rm", "--entrypoint", shell, image_id, "-c", "mktemp"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            return shell, done.stdout.decode().strip()
    raise RuntimeError(f"image {image_id} has no shell")


def _git(tree: Path, *args: str) -> bytes:
    return subprocess.run([_GIT, *args], cwd=tree, env=_ENVIRONMENT, capture_output=True, check=True).stdout


def _output(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout


def _is_working_in(folder: Path) -> bool:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):  # it has ended, or is the kernel's
                if os.readlink(process / "cwd").startswith(f"{folder}/"):
                    return True
    return False
