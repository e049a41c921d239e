"""How far a run is, in words."""

from __future__ import annotations

from flows.batches.results import WorkspaceResult
from flows.progress import WorkspaceEnded, WorkspacesFound, WorkspaceStage
from flows.progress_artifact import ProgressArtifact


class Counted(ProgressArtifact):
    """One that counts its updates and asks no server."""

    def __init__(self) -> None:
        super().__init__("key")
        self.shown: list[str] = []

    def _send(self) -> None:
        self.shown.append(self.sentence)


def result(state: str) -> WorkspaceResult:
    return WorkspaceResult.model_validate(
        {"title": "a", "repository": "a", "branch": "b", "commit": "c", "state": state, "schema_version": 1}
    )


def test_it_tells_what_is_done_and_what_runs() -> None:
    bar = Counted()

    bar(WorkspacesFound(8))
    for number in range(1, 8):
        bar(WorkspaceStage(number, f"acme/{number}", "step 1"))
    bar(WorkspaceEnded(1, result("completed")))
    bar(WorkspaceEnded(2, result("failed")))

    assert bar.percent == 25.0
    assert bar.sentence == (
        "2 of 8 workspaces: 1 completed, 1 failed; "
        "now `acme/3` step 1, `acme/4` step 1, `acme/5` step 1, `acme/6` step 1, `acme/7` step 1"
    )


def test_a_thousand_workspaces_that_end_at_once_are_a_handful_of_updates() -> None:
    """The first, the last, and what the clock allows."""
    bar = Counted()

    bar(WorkspacesFound(1000))
    for number in range(1000):
        bar(WorkspaceStage(number, "acme/x", "step 1"))
        bar(WorkspaceEnded(number, result("completed")))
    bar.end()

    assert 2 < len(bar.shown) < 10
    assert bar.shown[-1] == "1000 of 1000 workspaces: 1000 completed"


def test_a_workspace_that_ends_again_counts_once() -> None:
    """That of a shard that was sent out again."""
    bar = Counted()

    bar(WorkspacesFound(2))
    for state in ("failed", "completed"):
        bar(WorkspaceEnded(1, result(state)))

    assert bar.percent == 50.0
    assert bar.sentence == "1 of 2 workspaces: 1 completed"
