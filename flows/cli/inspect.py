"""`batchwright show`, `diff` and `logs`: what a past run did, from the store alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from blocks.blobs import Blobs

from ..batches.results import StepResult, WorkspaceResult
from ..ledger import LATEST, Ledger, find_run
from ..report import write_report
from ..step_cache import stored
from . import display
from .console import output, print_json
from .errors import BadInput
from .sources import Store, artifact_store
from .validate import AsJson

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, the beginning of it, or `last`.")]
WorkspaceName = Annotated[
    str | None,
    typer.Argument(
        metavar="WORKSPACE", help="A repository, or repository/path; the end of it is enough.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(show)
    app.command()(diff)
    app.command()(logs)


def show(
    run: RunName = LATEST,
    workspace: WorkspaceName = None,
    store: Store = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the run's report: one page for a browser, whole without a network."),
    ] = None,
) -> None:
    """Show what a run did: its workspaces, or the steps of one."""
    ledger = find_run(artifact_store(store), run)
    if html is not None:
        _write_report(ledger, html)
        return
    manifest = ledger.manifest()
    chosen = _choose(manifest.workspaces, workspace) if workspace else None
    if as_json:
        steps = [result.model_dump(mode="json") for _, result in ledger.steps(chosen)] if chosen else None
        print_json(manifest.model_dump(mode="json") if steps is None else {"steps": steps})
        return
    if chosen:
        _show_steps(ledger, chosen)
        return
    output.print(Text.assemble((manifest.run_id, "bold"), f"  {manifest.started_at:%Y-%m-%d %H:%M:%S} UTC  "), end="")
    output.print(Text(manifest.state, display.STATE_STYLES[manifest.state]))
    output.print(display.workspaces_table(manifest))
    for text in display.failures(manifest):
        output.print(text)


def _write_report(ledger: Ledger, file: Path) -> None:
    try:
        with file.open("wb") as out:
            write_report(ledger, out)
    except OSError as error:
        raise BadInput(f"--html {file}: {error.strerror}; name a file that can be written") from error
    output.print(f"{file}", markup=False, soft_wrap=True)


def diff(run: RunName = LATEST, workspace: WorkspaceName = None, store: Store = None) -> None:
    """Print the diffs of a run, coloured on a terminal, byte for byte otherwise."""
    ledger = find_run(artifact_store(store), run)
    results = ledger.manifest().workspaces
    blobs = Blobs(ledger.store)
    for result in [_choose(results, workspace)] if workspace else results:
        if result.diff is None:
            continue
        content = blobs.get(stored(result.diff))
        if output.is_terminal:
            output.print(Text(f"# {result.title}", "bold"))
            output.print(Syntax(content.decode("utf-8", "replace"), "diff", background_color="default"))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()


def logs(
    run: RunName,
    workspace: Annotated[str, typer.Argument(metavar="WORKSPACE", help="A repository, or repository/path.")],
    step: Annotated[int, typer.Argument(min=1, help="The step, counted from 1.")],
    store: Store = None,
) -> None:
    """Print what a step wrote: its stdout to standard output, its stderr to standard error."""
    ledger = find_run(artifact_store(store), run)
    chosen = _choose(ledger.manifest().workspaces, workspace)
    result = next((result for reference, result in ledger.steps(chosen) if reference.index == step - 1), None)
    if result is None:
        raise BadInput(f"{chosen.title} has no record of step {step}; it has {len(chosen.steps)} steps")
    if result.state == "skipped":
        raise BadInput(f"{chosen.title}: step {step} was skipped ({result.skip_reason})")
    blobs = Blobs(ledger.store)
    for blob, stream in ((result.stdout, sys.stdout), (result.stderr, sys.stderr)):
        if blob is not None:
            stream.flush()
            blobs.copy_to(stored(blob), stream.buffer)
            stream.buffer.flush()


def _choose(results: tuple[WorkspaceResult, ...], name: str) -> WorkspaceResult:
    """The workspace that ``name`` means: its title, or an end of it that no other has. Raises BadInput."""
    wanted = name.strip("/")
    exact = [result for result in results if result.title == wanted]
    found = exact or [result for result in results if f"/{result.title}".endswith(f"/{wanted}")]
    if len(found) == 1:
        return found[0]
    titles = ", ".join(result.title for result in (found or results)[:8])
    if found:
        raise BadInput(f"{name!r} means {len(found)} workspaces of this run: {titles}; write more of the name")
    raise BadInput(f"this run has no workspace {name!r}; it has {titles or 'none'}")


def _show_steps(ledger: Ledger, workspace: WorkspaceResult) -> None:
    output.print(
        Text.assemble((workspace.title, "bold"), f" {workspace.branch} {workspace.commit[:10]} {workspace.state}")
    )
    for reference, result in ledger.steps(workspace):
        output.print(Text(f"\nstep {reference.index + 1}: {reference.how}", "bold cyan"))
        output.print(_step_table(result))
    if workspace.failure:
        output.print(Text(workspace.failure.message, "red"))


def _step_table(result: StepResult) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    if result.skip_reason:
        table.add_row("skipped", Text(result.skip_reason))
    if result.rendered:
        rendered = result.rendered
        table.add_row("image", Text(f"{rendered.image} ({rendered.image_digest})"))
        for name, value in rendered.environment.items():
            table.add_row("env", Text(f"{name}={value}"))
        for target in (*rendered.files, *rendered.mounts):
            table.add_row("file", Text(target))
        table.add_row("run", Text(rendered.script.rstrip("\n")))
    if result.exit:
        table.add_row("exit", f"{result.exit.code} after {result.seconds:.1f} s")
    if result.state == "completed":
        change = result.diffstat
        table.add_row("change so far", f"{change.files} files, +{change.added_lines} -{change.deleted_lines}")
    for output_name, output_value in result.outputs.items():
        table.add_row("output", Text(f"{output_name} = {output_value}"))
    return table
