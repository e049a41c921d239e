"""A run on the terminal: a bar and what runs now, then a table. Without a terminal: one line per event."""

from __future__ import annotations

import time
from threading import Lock
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .. import progress
from ..batches.causes import causes
from ..batches.results import RunManifest, WorkspaceResult

RUNNING_LINES = 8
"""How many running workspaces are shown by name."""

NAMED = 5
"""How many workspaces that failed for the same cause are named."""

STATE_STYLES = {"completed": "green", "failed": "bold red", "cancelled": "yellow", "running": "cyan"}


class LiveDisplay:
    """Shows the events of a run on ``console`` while it lasts. Use as a context manager; safe to call from threads."""

    def __init__(self, console: Console) -> None:
        self.run_ended = self.run_stopped = False
        self._console = console
        self._lock = Lock()
        self._running: dict[int, tuple[str, str, float]] = {}
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("finding workspaces", total=None)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> LiveDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, event: progress.Event) -> None:
        with self._lock:
            match event:
                case progress.WorkspacesFound(total):
                    self._bar.update(self._task, description="workspaces", total=total)
                    self._say(f"{total} workspaces found")
                case progress.WorkspaceStage(number, title, stage):
                    self._running[number] = (title, stage, time.monotonic())
                    if stage.startswith("step"):
                        self._say(f"  {title}: {stage}")
                case progress.WorkspaceEnded(number, result):
                    self._running.pop(number, None)
                    self._bar.advance(self._task)
                    self._say(_ended_line(result))
                case progress.RunEnded():
                    self.run_ended = True
                case progress.RunStopped():
                    self.run_stopped = True

    def _say(self, line: str) -> None:
        """One line per event, where there is no bar to watch; the end of a workspace in any case."""
        if not self._console.is_terminal:
            self._console.print(line, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        with self._lock:
            running = sorted(self._running.values(), key=lambda shown: shown[2])
        lines = [
            Text.assemble("  ", (title, "cyan"), f" · {stage} · {time.monotonic() - since:.0f} s")
            for title, stage, since in running[:RUNNING_LINES]
        ]
        if len(running) > RUNNING_LINES:
            lines.append(Text(f"  and {len(running) - RUNNING_LINES} more"))
        return Group(self._bar, *lines)


def workspaces_table(manifest: RunManifest) -> Table:
    """The workspaces of a run: state, steps, change, time."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("workspace", overflow="fold")
    table.add_column("state")
    for column in ("run", "cached", "skipped", "files", "+", "-", "seconds"):
        table.add_column(column, justify="right")
    for result in manifest.workspaces:
        steps, change = result.step_counts, result.diffstat
        table.add_row(
            Text(result.title),
            Text(result.state, STATE_STYLES[result.state]),
            *map(_number, (steps.executed, steps.cached, steps.skipped, change.files)),
            Text(_number(change.added_lines), "green"),
            Text(_number(change.deleted_lines), "red"),
            f"{result.seconds:.1f}",
        )
    return table


def failures(manifest: RunManifest) -> list[Text]:
    """Why the run, or workspaces, did not complete; workspaces that failed for the same cause are told together."""
    texts = []
    if manifest.failure:
        texts.append(Text.assemble(("the run failed\n", "bold red"), _indented(manifest.failure.message)))
    for cause in causes(manifest.workspaces):
        first, more = cause.workspaces[:NAMED], len(cause.workspaces) - NAMED
        named = ", ".join(result.title for result in first) + (f" and {more} more" if more > 0 else "")
        texts.append(Text.assemble((f"{named}\n", "bold red"), _indented(cause.message)))
    return texts


def _ended_line(result: WorkspaceResult) -> str:
    steps, change = result.step_counts, result.diffstat
    counted = f"{steps.executed} run, {steps.cached} cached, {steps.skipped} skipped"
    stat = f"{change.files} files, +{change.added_lines} -{change.deleted_lines}"
    return f"{result.title}: {result.state} ({counted}; {stat}; {result.seconds:.1f} s)"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())


def _number(value: int) -> str:
    return str(value) if value else "·"
