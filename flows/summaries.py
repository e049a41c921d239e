"""A run as Prefect shows it: one table of workspaces, one page with the diffs. Small on purpose; the store has all."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from blocks.blobs import Blobs
from blocks.store import StoreTrouble

from .batches.results import RunManifest, WorkspaceResult
from .ledger import Ledger
from .markdown import block
from .step_cache import stored

DIFF_LINES = 200
"""Of one workspace, on the page."""

PAGE_CHARACTERS = 500_000
"""The dashboard loads a page whole."""

TABLE_ROWS = 5_000


def publish(manifest: RunManifest, ledger: Ledger) -> None:
    """Make the artifacts of a run that has ended."""
    key = _artifact_key(manifest.name)
    create_table_artifact(
        key=f"{key}-workspaces",
        table=[_row(result) for result in manifest.workspaces[:TABLE_ROWS]],
        description=manifest.headline,
    )
    create_markdown_artifact(key=f"{key}-diffs", markdown=_page(manifest, ledger), description=manifest.headline)


def _row(result: WorkspaceResult) -> dict[str, str | int | float]:
    steps, change = result.step_counts, result.diffstat
    return {
        "workspace": result.title,
        "branch": result.branch,
        "state": result.state,
        "run": steps.executed,
        "cached": steps.cached,
        "skipped": steps.skipped,
        "files": change.files,
        "+": change.added_lines,
        "-": change.deleted_lines,
        "seconds": result.seconds,
        "reason": _first_line(result.failure.message) if result.failure else "",
    }


def _page(manifest: RunManifest, ledger: Ledger) -> str:
    size, parts = 0, []
    for part in (f"# {manifest.name}\n\n{manifest.headline}\n", *_sections(manifest, ledger)):
        size += len(part)
        if size > PAGE_CHARACTERS:
            parts.append(f"\n_The rest is in the store: `batchwright diff {manifest.run_id}`._\n")
            break
        parts.append(part)
    return "\n".join(parts)


def _sections(manifest: RunManifest, ledger: Ledger) -> Iterator[str]:
    if manifest.failure:
        yield block("", manifest.failure.message)
    for result in sorted(manifest.workspaces, key=lambda result: result.state == "completed"):
        change = result.diffstat
        stat = f"{change.files} files, +{change.added_lines} -{change.deleted_lines}"
        yield f"## {result.title}\n\n{result.state}: {stat}\n"
        if result.failure:
            yield block("", result.failure.message)
        if result.diff and result.state == "completed":
            yield block("diff", _shown_diff(result, ledger))


def _shown_diff(result: WorkspaceResult, ledger: Ledger) -> str:
    assert result.diff is not None
    try:
        lines = Blobs(ledger.store).get(stored(result.diff)).decode("utf-8", "replace").splitlines()
    except StoreTrouble as error:
        return f"the diff cannot be read: {error}"
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"... {len(lines) - DIFF_LINES} more lines are in the store"]
    return "\n".join(lines)


def _artifact_key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "batch-change"


def _first_line(text: str) -> str:
    """The line that says most: the last one of a failed step's message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
