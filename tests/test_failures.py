"""Why something did not complete, in words and for programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.runtime import ContainerRefused, Exit, Image, ImageRefused, ImageUnavailable, RuntimeUnavailable
from blocks.store import ArtifactCorrupt, StoreFull, StoreRefused, StoreUnavailable
from flows.batches.errors import ChangesetError, PermanentError, TemplateError, TemporaryError
from flows.batches.outputs import OutputError
from flows.batches.results import Failure
from flows.batches.steps import ImageNameError, RenderedStep
from flows.failures import TAIL_BYTES, failure_of_error, failure_of_exit, go_duration, is_temporary, secret_failure
from flows.step_runs import Plan, Ran


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (TemporaryError("x"), True),
        (PermanentError("x"), False),
        (RuntimeUnavailable("x"), True),
        (ImageUnavailable("x"), True),
        (ImageRefused("x"), False),
        (ContainerRefused("x"), False),
        (StoreUnavailable("x", "y"), True),
        (StoreFull("x", "y"), False),
        (StoreRefused("x", "y"), False),
        (ArtifactCorrupt("x", "y"), False),
        (ZeroDivisionError("a bug"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_what_may_pass_is_worth_another_try(error: BaseException, temporary: bool) -> None:
    assert is_temporary(error) is temporary


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImageRefused("no such image"), "image"),
        (ImageUnavailable("rate limit"), "image"),
        (ImageNameError(1, "empty image"), "image"),
        (StoreFull("folder /x", "no room left"), "disk_full"),
        (RuntimeUnavailable("write /x: no space left on device"), "disk_full"),
        (OSError(28, "No space left on device"), "disk_full"),
        (OutputError("x", "json", "not JSON"), "outputs"),
        (TemplateError("bad", field="steps.0.outputs.x"), "outputs"),
        (TemplateError("bad", field="steps.0.run"), "step_failed"),
        (ChangesetError("bad"), "step_failed"),
        (RuntimeUnavailable("gone"), "infrastructure"),
        (TemporaryError("gone"), "infrastructure"),
        (ZeroDivisionError(), "infrastructure"),
    ],
)
def test_errors_are_told_apart(error: BaseException, reason: str) -> None:
    failure = failure_of_error(error)

    assert failure.reason == reason
    assert failure.message == (str(error) or "ZeroDivisionError")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path


def told(
    spool: Path,
    exit: Exit,
    *,
    script: str = "make",
    stdout: bytes = b"",
    stderr: bytes = b"",
    limit_seconds: float | None = None,
    whole: bool = False,
) -> Failure:
    (spool / "stdout").write_bytes(stdout)
    (spool / "stderr").write_bytes(stderr)
    rendered = RenderedStep(0, "alpine:3", script, {}, frozenset(), {}, ())
    plan = Plan(rendered, Image("alpine:3", "id", "digest", "/bin/sh"), "key", "", "/work", {}, {})
    ran = Ran(exit, spool / "stdout", spool / "stderr")
    return failure_of_exit(ran, plan, limit_seconds=limit_seconds, whole=whole)


def test_a_failed_step_shows_its_script_image_and_output(spool: Path) -> None:
    """Upstream's form."""
    failure = told(spool, Exit(3), script="make\nmake test\nmake x\n", stdout=b"one\ntwo\n", stderr=b"broken\n")

    assert failure.reason == "step_failed"
    assert failure.message == (
        "run: make\n"
        "\t(... and 2 more lines)\n"
        "container: alpine:3\n"
        "\nstandard out:\n\tone\n\ttwo\n"
        "\nstandard error:\n\tbroken\n"
        "\nCommand failed with exit code 3."
    )


def test_a_silent_step_shows_no_empty_output(spool: Path) -> None:
    failure = told(spool, Exit(1), stdout=b"\n \n")

    assert failure.message == "run: make\ncontainer: alpine:3\n\nCommand failed with exit code 1."


def test_of_long_output_only_the_end_is_shown(spool: Path) -> None:
    failure = told(spool, Exit(1), stderr=b"x" * TAIL_BYTES + b"\xff" * TAIL_BYTES)

    assert f"\t(... {TAIL_BYTES} bytes before)\n\t{'�' * TAIL_BYTES}\n" in failure.message
    assert "standard out:" not in failure.message


@pytest.mark.parametrize(
    ("exit", "limit_seconds", "reason", "end"),
    [
        (
            Exit(137, timed_out=True),
            90,
            "timed_out",
            "by this step. Execution took longer than 1m30s.",
        ),
        (
            Exit(137, timed_out=True),
            0.1,
            "timed_out",
            "Timeout reached by this step. Execution took longer than 100ms.",
        ),
        (Exit(137, oom_killed=True), None, "out_of_memory", "(exit code 137); raise the memory limit."),
        (Exit(137), None, "step_failed", "exit code 137."),
        (Exit(137, cancelled=True, timed_out=True), None, "cancelled", "the step's container was stopped and removed."),
    ],
)
def test_ends_are_told_apart(spool: Path, exit: Exit, limit_seconds: float | None, reason: str, end: str) -> None:
    failure = told(spool, exit, limit_seconds=limit_seconds)

    assert failure.reason == reason
    assert failure.message.endswith(end)


def test_a_limit_of_the_workspace_is_not_said_to_be_the_steps(spool: Path) -> None:
    failure = told(spool, Exit(137, timed_out=True), limit_seconds=60, whole=True)

    assert failure.message.endswith("\nTimeout reached. Execution took longer than 1m0s.")


def test_a_secret_is_named_and_not_shown() -> None:
    failure = secret_failure("TOKEN")

    assert failure.reason == "secret_in_diff"
    assert "the secret TOKEN" in failure.message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1, "100ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (10, "10s"),
        (59.9999, "1m0s"),
        (60, "1m0s"),
        (90.25, "1m30.25s"),
        (3600, "1h0m0s"),
        (100_000, "27h46m40s"),
    ],
)
def test_durations_read_as_gos(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_a_message_steers_no_terminal(spool: Path) -> None:
    """What a step prints stands in it as text: no colours, no titles, no NUL that a database would refuse."""
    printed = b"\x1b]0;title\x07\x1b[31mred\x1b[0m\r\na\rb\0\x9b\xc2\x9b[bold]\x1bc"

    failure = told(spool, Exit(3), stdout=printed)

    assert "\tred\n\ta\n\tb\ufffd\ufffd\ufffd[bold]\ufffdc\n" in failure.message
