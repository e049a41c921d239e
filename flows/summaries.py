"""A run as Prefect shows it: what to do, a table of workspaces, a page for some of them, a link to the report.

Small on purpose; the store has all. The dashboard is a view of it: what cannot be shown there fails no run.
"""

from __future__ import annotations

import logging
import re
from itertools import islice
from uuid import UUID

import httpx
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.exceptions import PrefectException

from blocks.blobs import Blobs
from blocks.store import StoreTrouble

from .batches.causes import Cause, causes, kept, last_line, what_to_do
from .batches.records import RecordError
from .batches.results import RunManifest, StepReference, StepResult, WorkspaceResult
from .ledger import Ledger
from .markdown import block, code
from .report import keep_report
from .step_cache import stored

log = logging.getLogger(__name__)

DIFF_LINES = 200
"""Of one workspace, on its page."""

PAGES = 20
"""Of workspaces. More would flood the list of artifacts, and the graph, where each has a mark."""

TABLE_ROWS = 5_000
NAMED = 20
"""Workspaces that a cause names."""

MESSAGE_CHARACTERS = 4_000
SCRIPT_CHARACTERS = 4_000


def publish(manifest: RunManifest, ledger: Ledger, report: str | None = None) -> None:
    """Write the report of a run that has ended into its store, and make its artifacts.

    ``report`` is the address at which browsers find the report, if there is one.
    """
    try:
        keep_report(ledger)
    except (StoreTrouble, RecordError, OSError) as error:
        log.warning("the report of the run is not in the store: %s", error)
    try:
        _make_artifacts(manifest, ledger, report)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("the dashboard does not show the results; `batchwright show %s` does: %s", manifest.run_id, error)


def publish_end(ledger: Ledger, report: str | None = None) -> None:
    """Say what is kept of a run that was stopped: quickly, as its process is being ended."""
    try:
        manifest = ledger.manifest()
        log.info("the run was stopped; kept: %s", kept(manifest))
        _make_overview(manifest, ledger, {}, report)
    except (StoreTrouble, RecordError, httpx.HTTPError, PrefectException) as error:
        log.warning("the dashboard does not show what is kept of the run: %s", error)


def artifact_key(*names: str) -> str:
    """Names as the key of an artifact: Prefect takes small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-") or "batch-change"


def _make_artifacts(manifest: RunManifest, ledger: Ledger, report: str | None) -> None:
    name = manifest.name
    pages = {result.title: _make_page(manifest, ledger, result, report) for result in _with_pages(manifest)}
    create_table_artifact(
        key=artifact_key(name, "workspaces"),
        table=[_row(number, result) for number, result in enumerate(manifest.workspaces[:TABLE_ROWS], 1)],
        description=f"{manifest.headline}. {_where(manifest, report)}",
    )
    if report:
        text = f"Report of {manifest.run_id}: steps, output and diffs of all workspaces"
        create_link_artifact(link=report, link_text=text, key=artifact_key(name, "report"), description=text)
    _make_overview(manifest, ledger, pages, report)


def _make_overview(manifest: RunManifest, ledger: Ledger, pages: dict[str, UUID], report: str | None) -> None:
    create_markdown_artifact(
        key=artifact_key(manifest.name, "overview"),
        markdown=_overview(manifest, ledger, pages, report),
        description=f"**{manifest.state}**: {manifest.headline}",
    )


def publish_upload(name: str, url: str, *, applied: bool) -> None:
    """Link to what a run brought to an instance."""
    what = "Applied as a batch change" if applied else "Uploaded; look at it, and apply it, in the preview"
    create_markdown_artifact(key=artifact_key(name, "instance"), markdown=f"{what}: [{url}]({url})", description=what)


def _make_page(manifest: RunManifest, ledger: Ledger, result: WorkspaceResult, report: str | None) -> UUID:
    made = create_markdown_artifact(
        key=artifact_key(manifest.name, "workspace", result.title),
        markdown=_page(manifest, ledger, result, report),
        description=f"{code(result.title)}: {result.state}, {_stat(result)}",
    )
    assert isinstance(made, UUID)  # a coroutine only where an event loop runs
    return made


def _with_pages(manifest: RunManifest) -> list[WorkspaceResult]:
    """What failed, then what changed something."""
    failed = [result for result in manifest.workspaces if result.state == "failed"]
    changed = [result for result in manifest.workspaces if result.state == "completed" and result.diff]
    return [*failed, *changed][:PAGES]


def _row(number: int, result: WorkspaceResult) -> dict[str, str | int | float]:
    steps, change = result.step_counts, result.diffstat
    return {
        "#": number,
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
        "changeset specs": " ".join(map(str, result.changeset_specs)),
        "reason": last_line(result.failure.message) if result.failure else "",
    }


def _overview(manifest: RunManifest, ledger: Ledger, pages: dict[str, UUID], report: str | None) -> str:
    """The one place that says what to do."""
    parts = [f"# {code(manifest.name)}: {manifest.state}", manifest.headline]
    if todo := what_to_do(manifest):
        parts += ["## What to do", todo]
    if manifest.failure:
        parts.append(block("", manifest.failure.message[:MESSAGE_CHARACTERS]))
    parts += [_cause(cause, pages) for cause in causes(manifest.workspaces)]
    parts += ["## Where to look", _where(manifest, report), _file(ledger)]
    if pages:
        listed = [f"* {_link(title, pages)}" for title in pages]
        more = sum(result.diff is not None or result.state == "failed" for result in manifest.workspaces) - len(pages)
        parts += ["Workspaces that failed or changed something:", "\n".join(listed)]
        if more > 0:
            parts.append(f"and {more} more, in the report.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _cause(cause: Cause, pages: dict[str, UUID]) -> str:
    named = ", ".join(_link(result.title, pages) for result in cause.workspaces[:NAMED])
    more = len(cause.workspaces) - NAMED
    return "\n\n".join(
        (
            f"### {len(cause.workspaces)} × {code(cause.title)}",
            f"{cause.advice}",
            named + (f" and {more} more" if more > 0 else ""),
            block("", cause.message[-MESSAGE_CHARACTERS:]),
        )
    )


def _link(title: str, pages: dict[str, UUID]) -> str:
    """A workspace's name, leading to its page if it has one."""
    return f"[{code(title)}](/v2/artifacts/artifact/{pages[title]})" if title in pages else code(title)


def _where(manifest: RunManifest, report: str | None) -> str:
    commands = ", ".join(
        code(f"batchwright {words}")
        for words in (
            f"show {manifest.run_id} WORKSPACE",
            f"logs {manifest.run_id} WORKSPACE STEP",
            f"diff {manifest.run_id} WORKSPACE",
        )
    )
    first = f"All steps, output and diffs: [the report]({report}), or " if report else "All steps, output and diffs: "
    return f"{first}{commands}."


def _file(ledger: Ledger) -> str:
    return f"In the store ({code(ledger.store.location)}) the report is {code(ledger.key('report.html'))}."


def _page(manifest: RunManifest, ledger: Ledger, result: WorkspaceResult, report: str | None) -> str:
    """One workspace: why it failed, its steps as they were rendered, its diff."""
    parts = [
        f"# {code(result.title)}: {result.state}",
        f"{code(result.branch)} at {code(result.commit[:12])}, {_stat(result)}, {result.seconds:.1f} s",
    ]
    if report:
        number = manifest.workspaces.index(result) + 1
        parts.append(f"[In the report, with all output and the diff side by side]({report}#w{number})")
    if result.failure:
        parts.append(block("", result.failure.message[-MESSAGE_CHARACTERS:]))
    try:
        parts += [_step(reference, step) for reference, step in ledger.steps(result)]
    except (StoreTrouble, RecordError) as error:
        parts.append(f"The records of its steps cannot be read: {code(str(error))}")
    if result.diff and result.state == "completed":
        parts += ["## Diff", block("diff", _shown_diff(result, ledger))]
    return "\n\n".join(parts) + "\n"


def _step(reference: StepReference, result: StepResult) -> str:
    heading = f"## Step {reference.index + 1}: {reference.how}"
    if result.rendered is None:
        return f"{heading}\n\n{code(result.skip_reason)}" if result.skip_reason else heading
    ended = f"exit code {result.exit.code}" if result.exit else "no container ended"
    facts = f"{code(result.rendered.image)}, {ended}, {result.seconds:.1f} s, attempt {result.attempts}"
    return f"{heading}\n\n{facts}\n\n{block('sh', result.rendered.script.rstrip()[:SCRIPT_CHARACTERS])}"


def _shown_diff(result: WorkspaceResult, ledger: Ledger) -> str:
    assert result.diff is not None
    try:
        lines = Blobs(ledger.store).get(stored(result.diff)).decode("utf-8", "replace").splitlines()
    except StoreTrouble as error:
        return f"the diff cannot be read: {error}"
    shown = list(islice(lines, DIFF_LINES))
    if len(lines) > DIFF_LINES:
        shown.append(f"... {len(lines) - DIFF_LINES} more lines are in the report and in the store")
    return "\n".join(shown)


def _stat(result: WorkspaceResult) -> str:
    change = result.diffstat
    return f"{change.files} files, +{change.added_lines} -{change.deleted_lines}"
