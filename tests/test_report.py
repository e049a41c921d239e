"""The report of a run: one page that needs nothing, shows what nobody trusts as text, and keeps to its limits."""

from __future__ import annotations

import io
import re
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.blobs import Blobs
from blocks.folder import FolderStore
from flows.batches.diff import DiffStat
from flows.batches.results import (
    ExitRecord,
    Failure,
    RenderedRecord,
    RunManifest,
    StepCounts,
    StepReference,
    StepResult,
    WorkspaceResult,
)
from flows.ledger import Ledger
from flows.report import ReportLimits, is_current, write_report
from flows.step_cache import recorded
from tests.browser import Eyes

BEGAN = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOSTILE = """</pre><script>document.title='owned'</script><img src=x onerror="document.title='owned'">"""
DIFF = f"""\
diff --git src/app.py src/app.py
index 1..2 100644
--- src/app.py
+++ src/app.py
@@ -1,4 +1,4 @@
 import os
--- a deleted line that looks like a header
-old = 1
+new = "{HOSTILE}"
+more = "\u202etxet"
 end
\\ No newline at end of file
diff --git "we\\"ird" "we\\"ird"
new file mode 100644
index 0..1
--- /dev/null
+++ "we\\"ird"
@@ -0,0 +1 @@
+x
"""


class Run:
    """A run that is written record by record."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(FolderStore(folder), "demo-0123456789ab")
        self.blobs = Blobs(self.ledger.store)
        self.results: list[WorkspaceResult] = []

    def step(self, number: int, *, how: str = "executed", script: str = "make", output: str = "") -> StepReference:
        """Keep a step; its records may stand for many workspaces."""
        rendered = RenderedRecord(
            image="alpine:3",
            image_digest="sha256:1",
            shell="/bin/sh",
            script=script,
            environment={"TOKEN": "${{ secrets.TOKEN }}"},
            files={},
            mounts={},
            working_directory="/work",
        )
        skipped, failed = how == "skipped", how == "failed"
        result = StepResult(
            index=number - 1,
            state="skipped" if skipped else "failed" if failed else "completed",
            skip_reason="if: false" if skipped else "",
            rendered=None if skipped else rendered,
            exit=None if skipped else ExitRecord(code=3 if failed else 0),
            started_at=BEGAN + timedelta(seconds=10 * number),
            ended_at=BEGAN + timedelta(seconds=10 * number + 5),
            stdout=recorded(self.blobs.put(output.encode())) if output else None,
            failure=Failure(reason="step_failed", message="Command failed with exit code 3.") if failed else None,
        )
        key = self.ledger.keep_steps(len(self.results) + 1, [result])[number - 1]
        return StepReference.model_validate({"index": number - 1, "how": how, "key": key})

    def workspace(self, title: str, *steps: StepReference, diff: str = "", message: str = "", **more: Any) -> None:
        self.results.append(
            WorkspaceResult(
                title=title,
                repository=title,
                branch="main",
                commit="c" * 40,
                state="failed" if message else "completed",
                steps=steps,
                diff=recorded(self.blobs.put(diff.encode())) if diff else None,
                diffstat=DiffStat(files=2, added_lines=3, deleted_lines=2) if diff else DiffStat(),
                step_counts=StepCounts(executed=len(steps)),
                seconds=12.5,
                failure=Failure(reason="step_failed", message=message) if message else None,
                **more,
            )
        )

    def end(self) -> None:
        failed = any(result.state == "failed" for result in self.results)
        self.ledger.begin(
            RunManifest(
                run_id=self.ledger.run_id,
                name="demo",
                spec_digest="0" * 64,
                started_at=BEGAN,
                ended_at=BEGAN + timedelta(seconds=60),
                state="failed" if failed else "completed",
                workspaces=tuple(self.results),
            ),
            "name: demo",
        )

    def report(self, limits: ReportLimits | None = None) -> str:
        out = io.BytesIO()
        write_report(self.ledger, out, limits or ReportLimits())
        return out.getvalue().decode()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A workspace that failed, one that changed something, one that did nothing; nothing of it is to be trusted."""
    run = Run(tmp_path / "store")
    run.workspace(
        f"acme/{HOSTILE}",
        run.step(1, script=f"echo {HOSTILE}", output=f"{HOSTILE}\x1b[31m"),
        run.step(2, how="failed"),
        message=f"standard error:\n\t{HOSTILE}\nCommand failed with exit code 3.",
    )
    run.workspace("acme/changed", run.step(1), run.step(2, how="skipped"), diff=DIFF, changeset_specs=(1,))
    run.workspace("acme/nothing", run.step(1, how="cached"))
    run.end()
    return run


def test_nothing_that_comes_from_outside_becomes_markup(run: Run) -> None:
    page = run.report()
    body = page[page.index("<body>") : page.rindex("<script>")]

    assert "<img" not in page
    assert "<script" not in body
    assert "onerror=&quot;" in body
    assert "␛[31m" in body
    assert "[U+202E]txet" in body
    assert re.findall(r'(?:src|href)="(?!#w|logs/|diffs/)', page) == []


def test_the_pages_policy_allows_its_own_style_and_script_and_nothing_else(run: Run) -> None:
    page = run.report()

    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "unsafe" not in policy[1]
    assert page.index("Content-Security-Policy") < page.index("<title>")
    assert is_current(page.encode()[:200])
    assert not is_current(b"<!doctype html>\n<!-- batchwright report, page 0 -->")


@pytest.mark.browser
def test_a_browser_shows_it_from_a_file(run: Run, tmp_path: Path, eyes: Eyes) -> None:
    """Filters, search, diffs side by side: all without a network; what is hostile is text."""
    file = tmp_path / "report.html"
    file.write_text(run.report())
    page = eyes.page()
    asked: list[str] = []
    troubles: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))

    page.goto(file.as_uri())
    assert page.locator("#count").inner_text() == "3 of 3"
    page.get_by_role("button", name="changed").click()
    assert page.locator(".workspace:visible").count() == 1
    page.locator(".workspace:visible > summary").click()
    rows = page.locator(".sides").first.locator("tr")
    shown = [row.locator("td").all_inner_texts() for row in rows.all()]
    assert shown == [
        ["@@ -1,4 +1,4 @@"],
        ["1", "import os", "1", "import os"],
        ["2", "-- a deleted line that looks like a header", "2", f'new = "{HOSTILE}"'],
        ["3", "old = 1", "3", 'more = "[U+202E]txet"'],
        ["4", "end", "4", "end"],
        ["\\ No newline at end of file"],
    ]
    eyes.picture(page, "report-side-by-side")
    page.get_by_label("side by side").uncheck()
    assert page.locator("pre.diff:visible").inner_text() == DIFF.replace("\u202e", "[U+202E]")
    page.get_by_role("button", name="all").click()
    page.get_by_placeholder("Search").fill("NOTHING")
    assert page.locator("#count").inner_text() == "1 of 3"
    page.get_by_placeholder("Search").fill("")
    page.locator("#todo a").first.click()
    assert page.locator("#w1").get_attribute("open") is not None
    eyes.picture(page, "report-failed", whole=True)

    assert page.title() == "demo: failed"
    assert [url for url in asked if not url.startswith(file.as_uri())] == []
    assert troubles == []


def test_causes_are_put_together_with_what_to_do(run: Run) -> None:
    for name in ("b", "c"):
        run.workspace(f"acme/{name}", run.step(1, how="failed"), message="Command failed with exit code 3.")
    run.end()

    page = run.report()

    assert re.findall("<h3>([^<]*×[^<]*)</h3>", page) == [
        "2 × Step 1 failed: Command failed with exit code 3.",
        "1 × Step 2 failed: Command failed with exit code 3.",
    ]
    assert "press Retry: only what has no result runs again" in page


def test_what_is_too_much_is_left_out_and_said(run: Run) -> None:
    page = run.report(ReportLimits(workspaces=2, diff_bytes=100))

    assert page.count('class="workspace"') == 2
    assert "1 more workspaces are not on this page: batchwright show demo-0123456789ab" in page
    (diff,) = re.findall('<pre class="diff">(.*?)</pre>', page, re.S)
    assert diff.endswith("\n@@ -1,4 +1,4 @@\n")
    assert f"{len(DIFF.encode()) - 100} more bytes of the diff are left out here: batchwright diff" in page


def test_a_record_that_is_gone_is_missed_and_nothing_else(run: Run) -> None:
    step = run.results[1].steps[0]
    (run.ledger.store.folder / step.key).unlink()  # type: ignore[attr-defined]

    page = run.report()

    assert page.count("its record cannot be read") == 1
    assert page.count('class="workspace"') == 3


def test_a_thousand_workspaces_are_written_at_flat_memory(tmp_path: Path) -> None:
    run = Run(tmp_path / "store")
    steps = (run.step(1), run.step(2))
    diff = "diff --git f f\n--- f\n+++ f\n@@ -0,0 +1,600 @@\n" + "+a line of twenty\n" * 600
    for number in range(1000):
        run.workspace(f"acme/{number}", *steps, diff=diff)
    run.end()

    class Count:
        total = 0

        def write(self, content: bytes) -> int:
            self.total += len(content)
            return len(content)

    out = Count()
    tracemalloc.start()
    try:
        write_report(run.ledger, out)  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert out.total > 12_000_000
    assert peak < 9_000_000
