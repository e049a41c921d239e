"""`batchwright resolve`: where a batch spec would run, without running it."""

from __future__ import annotations

import typer
from rich.table import Table

from .. import settings
from ..batches.loading import load_spec
from .console import output, print_json, read_text
from .sources import AllowIgnored, AllowUnsupported, Instance, Jobs, Only, Repositories, chosen_source
from .validate import AsJson, SpecFile


def register(app: typer.Typer) -> None:
    app.command()(resolve)


def resolve(
    spec: SpecFile,
    repositories: Repositories = None,
    instance: Instance = None,
    only: Only = "*",
    jobs: Jobs = 4,
    allow_ignored: AllowIgnored = False,
    allow_unsupported: AllowUnsupported = False,
    as_json: AsJson = False,
) -> None:
    """List the workspaces of a batch spec: repository, branch, commit, path, matches, steps that will be skipped."""
    from ..resolution import resolve as resolve_spec

    text = read_text(spec)
    found = resolve_spec(
        load_spec(text),
        chosen_source(repositories, instance),
        settings.home() / "mirrors",
        text=text,
        allow_ignored=allow_ignored,
        allow_unsupported=allow_unsupported,
        only=only,
        jobs=jobs,
    )
    if as_json:
        print_json(
            {
                "workspaces": [workspace.model_dump(mode="json") for workspace in found.workspaces],
                "ignored": [{"repository": name, "reason": reason} for name, reason in found.ignored],
                "skipped": [{"repository": name, "reason": reason} for name, reason in found.skipped],
            }
        )
        return
    table = Table(box=None, header_style="bold")
    for column in ("repository", "branch", "commit", "path", "matches", "skipped steps"):
        table.add_column(column, overflow="fold")
    for workspace in found.workspaces:
        table.add_row(
            workspace.repository,
            workspace.branch,
            workspace.commit[:10],
            workspace.path or "/",
            str(len(workspace.search_result_paths) or ""),
            " ".join(str(index + 1) for index in workspace.skipped_steps),
        )
    output.print(table)
    for name, reason in found.ignored:
        output.print(f"ignored: {name}: {reason}", style="yellow", markup=False)
    for name, reason in found.skipped:
        output.print(f"nothing to run on: {name}: {reason}", style="yellow", markup=False)
    output.print(f"{len(found.workspaces)} workspaces", style="bold")
