"""`batchwright events`: what an instance, src-cli or `batchwright exec` kept of an execution, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..batches.diff import statistics
from ..batches.events import STDERR, STDOUT
from ..batches.step_stories import StepStory, read_stories
from .console import output, print_json, read_text
from .validate import AsJson

OUTPUT_LINES = 40
"""Of one step."""


def register(app: typer.Typer) -> None:
    app.command()(events)


def events(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="An execution's log entries as a JSON list, or the event lines of `src batch exec`; - for stdin.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the steps of an execution at an instance, whichever way and by whichever version they ran."""
    stories = read_stories(read_text(file))
    if as_json:
        print_json([_json(story) for story in stories])
        return
    for story in stories:
        output.print(Text(f"\nstep {story.index + 1}: {story.state}", "bold cyan"))
        output.print(_table(story))


def _table(story: StepStory) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in story.environment.items():
        table.add_row("env", Text(f"{name}={value if value is not None else '(from outside)'}"))
    lines = story.output.splitlines()
    for line in lines[:OUTPUT_LINES]:
        table.add_row("out" if line.startswith(STDOUT) else "err", Text(line.removeprefix(STDOUT).removeprefix(STDERR)))
    if len(lines) > OUTPUT_LINES:
        table.add_row("", Text(f"(... {len(lines) - OUTPUT_LINES} more lines ...)"))
    if story.exit_code is not None:
        table.add_row("exit", str(story.exit_code))
    if story.error:
        table.add_row("error", Text(story.error.rstrip(), "red"))
    if story.result is not None:
        change = statistics(story.result.diff)
        table.add_row("change so far", f"{change.files} files, +{change.added_lines} -{change.deleted_lines}")
        for name, value in (story.result.outputs or {}).items():
            table.add_row("output", Text(f"{name} = {value}"))
    if story.key:
        table.add_row("key", story.key)
    return table


def _json(story: StepStory) -> dict[str, object]:
    result = story.result
    return {
        "index": story.index,
        "state": story.state,
        "exitCode": story.exit_code,
        "environment": dict(story.environment),
        "output": story.output,
        "error": story.error,
        "key": story.key,
        "diff": None if result is None else result.diff.decode("utf-8", "replace"),
        "outputs": None if result is None else result.outputs,
    }
