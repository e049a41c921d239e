"""One repository, one store, any runtime: runs a batch spec's steps without Prefect."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from types import TracebackType
from uuid import uuid4

from blocks.blobs import Blobs
from blocks.folder import FolderStore
from blocks.runtime import Runtime
from blocks.sources import location
from blocks.store import ArtifactStore
from flows.batches.loading import load_spec
from flows.batches.results import StepResult
from flows.batches.steps import Outside
from flows.batches.workspaces import Workspace
from flows.checkout import Checkouts
from flows.execution import Limits, Setting, WorkspaceRun
from flows.mirror import Mirror
from flows.staging import StagedMount
from flows.step_cache import StepCache, stored
from flows.step_runs import Bench
from tests.fakes import FakeRuntime
from tests.gitrepos import Content, make_repository

REPOSITORY = "github.com/acme/app"


class Workbench(AbstractContextManager["Workbench"]):
    """Everything that a workspace needs, in ``folder``. ``run_id`` begins the ids of its runs."""

    def __init__(
        self,
        folder: Path,
        files: dict[str, Content],
        *,
        runtime: Runtime | None = None,
        executable: tuple[str, ...] = (),
        symlinks: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.home = folder, folder / "home"
        self.run_id = f"test-{uuid4().hex[:12]}"
        self.runtime: Runtime = runtime or FakeRuntime()
        self.commit = make_repository(folder / "app", files, executable=executable, symlinks=symlinks)
        self.store: ArtifactStore = FolderStore(folder / "store")
        self.blobs = Blobs(self.store)
        self.shown: list[str] = []
        self.cancel = Event()
        self._checkouts = Checkouts(self.home / "checkouts")
        self._mirror = Mirror(self.home / "mirrors", location(REPOSITORY, str(folder / "app")))
        self._mirror.fetch(self.commit)
        self._runs = 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._checkouts.close()

    def open(
        self,
        spec: str,
        *,
        path: str = "",
        outside: Outside | None = None,
        limits: Limits | None = None,
        use_cache: bool = True,
        skipped_steps: tuple[int, ...] = (),
        mounts: dict[str, StagedMount] | None = None,
        layer_bytes: int = 1 << 30,
    ) -> WorkspaceRun:
        """A workspace about to begin."""
        self._runs += 1
        bench = Bench(
            run_id=f"{self.run_id}-{self._runs}",
            home=self.home,
            runtime=self.runtime,
            blobs=self.blobs,
            checkouts=self._checkouts,
            mirrors={REPOSITORY: self._mirror.git_dir},
            mounts=mounts or {},
            layer_bytes=layer_bytes,
            cancel=self.cancel,
        )
        cache = StepCache(self.blobs, enabled=use_cache)
        setting = Setting(load_spec(spec), bench, cache, outside or Outside(), limits or Limits())
        workspace = Workspace(
            repository=REPOSITORY, branch="main", commit=self.commit, path=path, skipped_steps=skipped_steps
        )
        run = WorkspaceRun(setting, workspace)
        run.show = self.shown.append
        return run

    def run(self, spec: str, **options: object) -> WorkspaceRun:
        """A workspace from its set-up to its end."""
        workspace = self.open(spec, **options)  # type: ignore[arg-type]  # passed on as they come
        try:
            finish(workspace, spec)
        finally:
            workspace.close()
        return workspace

    def diff(self, result: StepResult | None) -> str:
        """The diff of a completed step, as text."""
        assert result is not None
        assert result.diff is not None
        return self.blobs.get(stored(result.diff)).decode()

    def leftovers(self) -> list[Path]:
        """What ended workspaces left on the host."""
        folder = self.home / "workspaces"
        return sorted(folder.iterdir()) if folder.exists() else []


def finish(workspace: WorkspaceRun, spec: str) -> None:
    """Set the workspace up and run its steps, as the flow does."""
    workspace.set_up()
    for index in range(len(load_spec(spec).steps)):
        if workspace.done:
            break
        workspace.run_step(index)


def spec_of(*steps: str, container: str = "image:1") -> str:
    """A batch spec of these scripts; a step that begins with ``{`` is taken as YAML."""
    items = []
    for step in steps:
        if step.startswith("{"):
            items.append(f"  - {step}")
        else:
            script = "".join(f"\n      {line}" for line in step.splitlines())
            items.append(f"  - container: {container}\n    run: |{script}")
    listed = "\n".join(items)
    return (
        f"version: 2\nname: test\nsteps:\n{listed}\n"
        "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}\n"
    )
