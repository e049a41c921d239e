"""`batchwright exec`: the steps of one workspace in a repository on disk, told in upstream's event lines."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from .. import settings
from ..batches.steps import Outside
from .console import read_text
from .errors import FAILED, BadInput, exit_code_of, tell
from .sources import Store, artifact_store

if TYPE_CHECKING:
    from ..batches.execution_input import ExecutionInput
    from ..executor.benches import Place
    from ..executor.event_stream import EventStream
    from ..executor.input_run import Conditions


def register(app: typer.Typer) -> None:
    app.command("exec")(run_input)


def run_input(
    file: Annotated[
        Path, typer.Option("-f", "--file", metavar="FILE", help="The input: a WorkspacesExecutionInput as JSON.")
    ],
    repository: Annotated[Path, typer.Option("-repo", "--repo", metavar="DIR", help="The repository, checked out.")],
    scratch: Annotated[
        Path | None,
        typer.Option("-tmp", "--tmp", metavar="DIR", help="Taken for compatibility; nothing is written there."),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option("-workspaceFiles", "--workspace-files", metavar="DIR", help="Where `mount` paths are looked up."),
    ] = None,
    timeout: Annotated[
        str, typer.Option("-timeout", "--timeout", metavar="DURATION", help="How long all of it may take.")
    ] = "60m",
    as_image_user: Annotated[
        bool,
        typer.Option(
            "-run-as-image-user", "--run-as-image-user", help="Let steps run as their image's user, not as root."
        ),
    ] = False,
    binary_diffs: Annotated[
        bool, typer.Option("-binaryDiffs", "--binary-diffs", help="Results of version 2: diffs in base64.")
    ] = False,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An environment variable that is a secret: masked, never in a diff."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step, also if its result is known.")] = False,
    store: Store = None,
) -> None:
    """Run the steps of one workspace as `src batch exec` does: the same flags, input, event lines and cache keys.

    Steps work on the repository's HEAD; the repository itself is not changed.
    """
    from blocks.docker_runtime import DockerRuntime

    from ..batches.execution_input import read_execution_input
    from ..execution import Limits
    from ..executor.benches import Place
    from ..executor.durations import go_seconds
    from ..executor.event_stream import EventStream
    from ..executor.input_run import Conditions

    given = read_execution_input(read_text(file).encode("utf-8", "surrogateescape"))
    try:
        limits = Limits(workspace_seconds=go_seconds(timeout))
    except ValueError as error:
        raise BadInput(f"--timeout: {error}") from error
    conditions = Conditions(
        outside=_outside(given, frozenset(secret or ())),
        limits=limits,
        files=files.absolute() if files else None,
        result_version=2 if binary_diffs else 1,
    )
    runtime = DockerRuntime(run_as="image" if as_image_user else "root")
    place = Place(settings.home(), artifact_store(store).store(), runtime)
    ok = _run(given, repository.absolute(), place, conditions, EventStream(_write), use_cache=not no_cache)
    raise typer.Exit(0 if ok else FAILED)


def _run(
    given: ExecutionInput,
    repository: Path,
    place: Place,
    conditions: Conditions,
    story: EventStream,
    *,
    use_cache: bool,
) -> bool:
    """Run all of it; whether it went well. What goes wrong before the steps is told on standard error, as upstream."""
    from blocks.blobs import Blobs

    from ..executor.benches import JOBS, open_bench
    from ..executor.images import make_ready, static_images
    from ..executor.input_run import InputRun
    from ..leftovers import remove_leftovers
    from ..step_cache import StepCache

    try:
        with _cancelled_by_signals() as cancel:
            remove_leftovers(place.home, place.runtime.reap, JOBS)
            given, git_dir = _fetched(given, repository, place, cancel)
            with open_bench(place, f"exec-{uuid4().hex[:12]}", given, git_dir, conditions.files, cancel) as bench:
                story.images(make_ready(given, place.runtime, cancel), len(static_images(given)))
                story.begins()
                run = InputRun(given, bench, StepCache(Blobs(place.store), enabled=use_cache), conditions, story)
                try:
                    run.run_all()
                finally:
                    run.close()
                story.ended(run.results(), run.failure)
                return run.failure is None
    except Exception as error:
        if exit_code_of(error) is None:
            raise
        tell(error)
        return False


def _fetched(given: ExecutionInput, repository: Path, place: Place, cancel: Event) -> tuple[ExecutionInput, Path]:
    """The input for the repository's HEAD, and the mirror that has it. The keys keep the commit that was sent."""
    from blocks.sources import location

    from ..gitcommand import git
    from ..mirror import Mirror

    if not repository.is_dir():
        raise BadInput(f"-repo {repository}: there is no such folder")
    head = git(["rev-parse", "--verify", "HEAD^{commit}"], cwd=repository).decode().strip()
    mirror = Mirror(place.home / "mirrors", location(given.workspace.repository, str(repository)), cancel)
    mirror.fetch(head)
    return replace(given, workspace=given.workspace.model_copy(update={"commit": head})), mirror.git_dir


def _outside(given: ExecutionInput, secrets: frozenset[str]) -> Outside:
    """What the environment has of the names that steps ask for."""
    environment = settings.environment()
    asked = {entry.name for step in given.spec.steps for entry in step.env if entry.value is None} & environment.keys()
    return Outside.of(
        secrets={name: environment[name] for name in asked & secrets},
        variables={name: environment[name] for name in asked - secrets},
    )


def _write(line: str, _keep: bool) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _cancelled_by_signals() -> Iterator[Event]:
    cancel = Event()
    before = {number: signal.signal(number, lambda *_: cancel.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
