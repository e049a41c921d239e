"""A host that steps attack: a repository with all that git can hold, traps that no step may spring, a real engine."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import textwrap
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from blocks.docker_runtime import DockerRuntime
from blocks.runtime import RuntimeTrouble
from blocks.store import StoreTrouble
from flows.batches.errors import BatchError
from flows.batches.loading import load_spec
from flows.batches.results import StepResult
from flows.execution import WorkspaceRun
from flows.staging import StagedMount, stage_mounts
from flows.step_cache import stored
from infra.images import BUSYBOX
from tests.gitrepos import run_git
from tests.workbench import Workbench, finish

FILES = {
    "README.md": "hello\n",
    "src/main.py": "print(1)\n",
    "src/old.py": "old\n",
    "docs/a/b.md": "b\n",
    "moved.txt": "".join(f"line {number}\n" for number in range(30)),
    "run.bat": "echo 1\n",
    "tool.sh": "#!/bin/sh\n",
    ".gitignore": "ignored/\n*.log\n",
    ".gitattributes": "*.bat text eol=crlf\n",
}
LINKS = {"link": "README.md"}

Change = bytes | tuple[str, bytes] | None
"""Of a file: its content; of an executable or a link: ("executable", content), ("link", target); None: it is gone."""

_LOOKED_AT_BYTES = 64 << 20
"""Of one packed layer: more may be a file that is only said to be large."""

_KINDS = {"100755": "executable", "120000": "link", "160000": "submodule"}


class Host(AbstractContextManager["Host"]):
    """A workbench, and beside it things on the host that a step would like to read, write or run."""

    def __init__(self, folder: Path, runtime: DockerRuntime) -> None:
        self.runtime = runtime
        self.bench = Workbench(folder, dict(FILES), runtime=runtime, executable=("tool.sh",), symlinks=dict(LINKS))
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.precious = self.outside / "precious"
        self.precious.write_text("precious of the host")
        self.precious.chmod(0o600)
        self.sprung = folder / "sprung"
        self.trap = folder / "trap"
        self.trap.write_text(f"#!/bin/sh\necho $0 $* >> {self.sprung}\ncat\n")
        self.trap.chmod(0o755)
        self._looked_at: set[Path] = set()
        self.run("true")
        self.hold()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bench.__exit__(kind, error, at)

    def run(self, *steps: str | Mapping[str, object], image: str = BUSYBOX, **options: object) -> WorkspaceRun:
        """A workspace of these steps: a script each, or a step's fields. Nothing is taken from the cache."""
        spec = self.spec(*steps, image=image)
        run = self.bench.open(spec, **{"use_cache": False, **options})
        try:
            finish(run, spec)
        except (BatchError, RuntimeTrouble, StoreTrouble) as error:  # as the flow does
            run.fail(error)
        finally:
            run.close()
        return run

    def hold(self) -> None:
        """What is there now is what may not change from now on."""
        self._before = self._fingerprint()

    def limit(self, **settings: object) -> None:
        """Let the runtime have other settings in the next runs, until ``unlimit``."""
        self.bench.runtime = self.runtime.model_copy(update=settings)

    def unlimit(self) -> None:
        """Back to the runtime's own settings."""
        self.bench.runtime = self.runtime

    def spec(self, *steps: str | Mapping[str, object], image: str = BUSYBOX) -> str:
        """A batch spec of these steps."""
        return _spec(*steps, image=image)

    def staged(self, folders: Mapping[str, Path]) -> dict[str, StagedMount]:
        """Copies of these folders, to be mounted by the names they have here."""
        spec = load_spec(_spec({"run": "x", "mount": [{"path": name, "mountpoint": "/x"} for name in folders]}))
        return stage_mounts(spec, folders, self.bench.home / "mounts")

    def output(self, result: StepResult) -> bytes:
        """The standard output of a step."""
        assert result.stdout is not None
        return self.bench.blobs.get(stored(result.stdout))

    def diff(self, result: StepResult) -> bytes:
        assert result.diff is not None, result.failure
        return self.bench.blobs.get(stored(result.diff))

    def changes(self, result: StepResult) -> dict[str, Change]:
        """What the diff of a step makes of the repository when git applies it."""
        git = _Applied(self.bench.folder / "app", self.bench.commit)
        before, after = git.content(b""), git.content(self.diff(result))
        return {path: after.get(path) for path in sorted({**before, **after}) if before.get(path) != after.get(path)}

    def check_unharmed(self) -> None:
        """No trap was sprung, nothing but stores was written, no container, volume, mount or folder is left."""
        assert not self.sprung.exists(), self.sprung.read_text()
        assert self._fingerprint() == self._before
        assert self.bench.leftovers() == []
        assert left_in_engine(self.runtime, self.bench.run_id) == []
        assert str(self.bench.folder) not in Path("/proc/mounts").read_text()
        assert not self.stores(b"precious of the host")

    def stores(self, *values: bytes) -> bool:
        """Whether one of these stands in what came into the store since this was asked last."""
        found = False
        for path in set((self.bench.folder / "store").rglob("*")) - self._looked_at:
            self._looked_at.add(path)
            if path.is_file():
                raw = path.read_bytes()
                content = (
                    zlib.decompressobj(wbits=31).decompress(raw, _LOOKED_AT_BYTES)
                    if raw.startswith(b"\x1f\x8b")
                    else raw
                )
                found = found or any(value in content for value in values)
        return found

    def _fingerprint(self) -> dict[str, tuple[int, int, str]]:
        """What may not change: the checkouts, the mirrors, the repository, what lies outside."""
        roots = (self.bench.home / "checkouts", self.bench.home / "mirrors", self.outside, self.trap)
        return {str(path): _identity(path) for root in roots for path in (root, *root.rglob("*"))}


class PeakMemory:
    """The most memory that this process had, in bytes, beyond what it had when this was made. Linux."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = _memory("VmRSS")

    @property
    def grown_bytes(self) -> int:
        return _memory("VmHWM") - self._before


def python(program: str) -> str:
    """A shell script that runs a program, which may be indented."""
    return f"python3 - <<'END OF PROGRAM'\n{textwrap.dedent(program)}\nEND OF PROGRAM\n"


def _spec(*steps: str | Mapping[str, object], image: str = BUSYBOX) -> str:
    """A batch spec, as JSON: scripts arrive byte for byte."""
    listed = [{"container": image, **({"run": step} if isinstance(step, str) else step)} for step in steps]
    template = {"title": "T", "body": "B", "branch": "b", "commit": {"message": "M"}}
    spec = {"version": 2, "name": "test", "steps": listed, "changesetTemplate": template}
    return json.dumps(spec, ensure_ascii=False)


def left_in_engine(runtime: DockerRuntime, beginning: str) -> list[str]:
    """The names of what the engine still has of the runs whose ids begin so."""
    api = runtime._connected().engine.api
    label = "batchwright.run"
    containers = api.containers(all=True, filters={"label": [label]})
    volumes = api.volumes(filters={"label": [label]})["Volumes"] or ()
    found = [(one["Names"][0], one["Labels"]) for one in containers] + [(one["Name"], one["Labels"]) for one in volumes]
    return [name for name, labels in found if labels[label].startswith(beginning)]


class _Applied:
    """A commit with diffs applied to it, in an index of its own."""

    def __init__(self, repository: Path, commit: str) -> None:
        self._repository, self._commit = repository, commit
        self._environment = {**os.environ, "GIT_INDEX_FILE": str(repository.parent / "applied.index")}

    def content(self, diff: bytes) -> dict[str, Change]:
        run_git(self._repository, "rev-parse", self._commit)
        self._git("read-tree", self._commit)
        if diff:
            self._git("apply", "--cached", "-p0", "--whitespace=nowarn", stdin=diff)
        listed = [line.split(b"\t", 1) for line in self._git("ls-files", "-sz").split(b"\0") if line]
        oids = b"".join(about.split()[1] + b"\n" for about, _ in listed)
        contents = self._git("cat-file", "--batch", stdin=oids)
        found: dict[str, Change] = {}
        for about, path in listed:
            header, _, contents = contents.partition(b"\n")
            size = int(header.split()[2])
            content, contents = contents[:size], contents[size + 1 :]
            kind = _KINDS.get(about.split()[0].decode())
            found[path.decode(errors="surrogateescape")] = (kind, content) if kind else content
        return found

    def _git(self, *args: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["git", "-C", self._repository, *args], env=self._environment, input=stdin, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _identity(path: Path) -> tuple[int, int, str]:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        what = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        what = str(path.readlink()) if stat.S_ISLNK(status.st_mode) else ""
    return status.st_mode, status.st_uid, what


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
