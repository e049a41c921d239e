"""What the command line says of a run."""

from __future__ import annotations

from flows.batches.records import now
from flows.batches.results import Failure, RunManifest, StepReference, WorkspaceResult
from flows.cli.display import failures


def failed(title: str, message: str) -> WorkspaceResult:
    return WorkspaceResult(
        title=title,
        repository=title,
        branch="main",
        commit="c" * 40,
        state="failed",
        steps=(StepReference(index=0, how="failed", key="steps/1.json"),),
        failure=Failure(reason="step_failed", message=message),
    )


def test_failures_are_told_by_cause_with_the_message_of_the_first() -> None:
    """As in the dashboard: what the steps said before their last line does not tell causes apart."""
    workspaces = [failed(f"acme/{number}", f"out: {number}\nexit code 1") for number in range(7)]
    manifest = RunManifest(
        run_id="r",
        name="n",
        spec_digest="0" * 64,
        started_at=now(),
        state="failed",
        failure=Failure(reason="infrastructure", message="the store is away"),
        workspaces=(failed("acme/other", "exit code 2"), *workspaces),
    )

    assert [text.plain for text in failures(manifest)] == [
        "the run failed\n  the store is away",
        "acme/0, acme/1, acme/2, acme/3, acme/4 and 2 more\n  out: 0\n  exit code 1",
        "acme/other\n  exit code 2",
    ]
