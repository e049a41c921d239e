"""Failures put together by cause."""

from __future__ import annotations

from typing import get_args

import pytest

from flows.batches.causes import causes, what_to_do
from flows.batches.records import now
from flows.batches.results import Failure, FailureReason, RunManifest, StepReference, WorkspaceResult


def failed(title: str, reason: FailureReason, message: str, step: int | None = 1) -> WorkspaceResult:
    steps = (StepReference(index=step - 1, how="failed", key="steps/1.json"),) if step else ()
    return WorkspaceResult(
        title=title,
        repository=title,
        branch="main",
        commit="c" * 40,
        state="cancelled" if reason == "cancelled" else "failed",
        steps=steps,
        failure=Failure(reason=reason, message=message),
    )


def told(*results: WorkspaceResult) -> list[tuple[str, list[str]]]:
    return [(cause.title, [result.title for result in cause.workspaces]) for cause in causes(results)]


def test_what_most_workspaces_have_comes_first_and_what_was_only_cancelled_last() -> None:
    results = [
        *(failed(name, "cancelled", "Not begun.", None) for name in ("x", "y", "z")),
        failed("a", "step_failed", "out: a\nCommand failed with exit code 1."),
        failed("b", "image", "image 'missing' does not exist"),
        failed("c", "step_failed", "out: c\nCommand failed with exit code 1."),
    ]

    assert told(*results) == [
        ("Step 1 failed: Command failed with exit code 1.", ["a", "c"]),
        ("Step 1 has no image: image 'missing' does not exist", ["b"]),
        ("The workspace was cancelled: Not begun.", ["x", "y", "z"]),
    ]


def test_another_step_or_exit_code_is_another_cause() -> None:
    line = "Command failed with exit code {}."
    results = [failed("a", "step_failed", line.format(1)), failed("b", "step_failed", line.format(2))]

    assert len(told(*results, failed("c", "step_failed", line.format(1), 2))) == 3


def test_names_and_numbers_do_not_tell_trouble_apart() -> None:
    results = [
        failed("acme/a", "infrastructure", "cannot clone acme/a: reset after 1203 bytes by 0x7f00ab"),
        failed("acme/b", "infrastructure", "cannot clone acme/b: reset after 77 bytes by 0x7f00cd"),
    ]

    assert [titles for _, titles in told(*results)] == [["acme/a", "acme/b"]]


@pytest.mark.parametrize("reason", get_args(FailureReason))
def test_every_reason_says_what_to_do(reason: FailureReason) -> None:
    (cause,) = causes([failed("a", reason, "m")])

    assert cause.title.endswith(": m")
    assert len(cause.advice) > 20


def test_a_run_that_was_stopped_says_what_is_kept() -> None:
    steps = tuple(StepReference(index=index, how=how, key="k") for index, how in enumerate(("cached", "executed")))
    done = failed("a", "cancelled", "x", None).model_copy(
        update={"state": "completed", "steps": steps, "failure": None}
    )
    manifest = RunManifest(
        run_id="r",
        name="n",
        spec_digest="0" * 64,
        started_at=now(),
        state="cancelled",
        workspaces=(done, failed("b", "cancelled", "Cancelled.")),
    )

    assert what_to_do(manifest) == (
        "The run was stopped. Kept: 1 of 2 workspaces, 2 finished steps. Retry goes on from there."
    )
