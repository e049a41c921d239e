"""What instances and executors send to one another: inputs, jobs, event lines, records of executions."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from flows.batches import gojson
from flows.batches.after_step_result import AfterStepResult
from flows.batches.errors import SpecError
from flows.batches.events import event_line, go_time, read_events, result_line
from flows.batches.execution_input import InputError, read_execution_input
from flows.batches.jobs import JobRefused, read_job
from flows.batches.step_stories import RecordUnknown, read_stories

TIME = datetime(2023, 4, 20, 10, 0, 0, 120_999, tzinfo=UTC)
GOLDEN: dict[str, Any] = {
    "BatchChangeAttributes": {"Name": "e2e-test-batch-change", "Description": "Add Hello World to READMEs"},
    "repository": {"id": "UmVwb3NpdG9yeTox", "name": "github.com/sourcegraph/automation-testing"},
    "branch": {"name": "executors-e2e", "target": {"oid": "1c94aaf85d51e9d016b8ce4639b9f022d94c52e6"}},
    "path": "",
    "onlyFetchWorkspace": False,
    "steps": [
        {
            "run": "IFS=$'\\n'; echo Hello World | tee -a $(find -name README.md)",
            "container": "ubuntu:18.04",
            "env": {},
        }
    ],
    "searchResultPaths": None,
    "cachedStepResultFound": False,
    "cachedStepResult": {"diff": None},
    "skippedSteps": {},
}


def test_the_key_of_an_input_is_upstreams() -> None:
    """Upstream's end-to-end test of executors expects this one."""
    given = read_execution_input(json.dumps(GOLDEN).encode())

    assert given.key(0, ()) == "wHcoEItqNkdJj9k1-1sRCQ-step-0"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": []}, "no steps"),
        ({"repository": None}, "repository: Field required"),
        ({"cachedStepResultFound": True, "cachedStepResult": {"stepIndex": 7}}, "step 8 of 1 steps"),
    ],
)
def test_an_input_that_cannot_be_run_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_execution_input(json.dumps({**GOLDEN, **change}).encode())


def test_steps_are_checked_like_those_of_a_batch_spec() -> None:
    steps = [{"run": "x", "container": "i", "files": {"/a,b": "x"}}]

    with pytest.raises(SpecError, match="invalid characters"):
        read_execution_input(json.dumps({**GOLDEN, "steps": steps}).encode())


@pytest.mark.parametrize(
    ("number", "text"),
    [(3.0, "3"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1e-6, "0.000001"), (1e-7, "1e-7"), (-0.5, "-0.5")],
)
def test_numbers_are_written_as_go_does(number: float, text: str) -> None:
    assert gojson.marshal({"n": [number]}) == f'{{"n":[{text}]}}'


def test_event_lines_have_upstreams_form() -> None:
    """Empty values are left out, maps are sorted, times have the decimals that they need."""
    metadata = {"taskID": "t", "step": 1, "out": "", "env": {"b": "<", "a": "\udcff"}, "exitCode": 0}

    assert event_line("TASK_STEP", "STARTED", metadata, TIME) == (
        '{"operation":"TASK_STEP","timestamp":"2023-04-20T10:00:00.12Z","status":"STARTED",'
        '"metadata":{"taskID":"t","step":1,"env":{"a":"\\ufffd","b":"\\u003c"}}}'
    )
    assert go_time(1_682_000_000) == "2023-04-20T14:13:20Z"


def test_a_results_line_is_read_back_as_it_was() -> None:
    result = AfterStepResult(
        version=2, stdout="a\nb", step_index=1, diff_or_nil=b"\xff\0", outputs={"z": 1.0, "a": {"y": [1.5], "b": None}}
    )

    (event,) = read_events(f"noise\nstdout: {result_line('k', result, TIME)}\nstderr: {{}}\n")

    assert event.metadata["key"] == "k"
    assert event.result == result


def test_lines_that_are_no_events_are_passed_over() -> None:
    """An operation that upstream does not know would make its reader drop the line, too."""
    lines = ['{"operation":"NONSENSE","status":"SUCCESS"}', "{broken", "stdout: [1]", '{"status":"SUCCESS"}']

    assert list(read_events("\n".join(lines))) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_jobs_files_stay_in_its_folder(path: str) -> None:
    with pytest.raises(JobRefused, match="outside"):
        read_job({"id": 1, "files": {path: {"content": ""}}})


def test_a_jobs_secrets_are_in_no_repr() -> None:
    job = read_job(
        {
            "version": 2,
            "id": 1,
            "token": "token-value",
            "cliSteps": [{"key": "k", "command": ["batch", "exec"], "env": ["K=secret-value"]}],
            "files": {"input.json": {"content": base64.b64encode(b"file-value").decode()}},
            "redactedValues": {"secret-value": "x"},
            "dockerAuthConfig": {"auths": {"r": {"auth": "auth-value"}}},
        }
    )

    assert job.files["input.json"].content == b"file-value"
    assert not [part for part in ("token-value", "secret-value", "file-value", "auth-value") if part in repr(job)]


@pytest.mark.parametrize("content", [3, "not base64!"])
def test_a_malformed_file_is_refused(content: object) -> None:
    with pytest.raises(JobRefused, match=r"input\.json"):
        read_job({"version": 2, "id": 1, "files": {"input.json": {"content": content}}})


NATIVE_1 = [
    {"key": "setup.git.init", "exitCode": 0, "out": ""},
    {
        "key": "step.docker.step.0.pre",
        "exitCode": 0,
        "out": 'stdout: {"operation":"TASK_STEP","status":"STARTED","metadata":{"version":2,"env":{"A":"1"}}}\n',
    },
    {"key": "step.docker.step.0.run", "exitCode": 0, "out": "stderr: Hello World\n"},
    {
        "key": "step.docker.step.0.post",
        "exitCode": 0,
        "out": 'stdout: {"operation":"TASK_STEP","status":"SUCCESS","metadata":{"version":2,"diff":"RA=="}}\n'
        'stdout: {"operation":"CACHE_AFTER_STEP_RESULT","status":"SUCCESS","metadata":{"key":"k-step-0","value":'
        '{"version":2,"stepIndex":0,"diff":"RA==","outputs":{"o":"x"}}}}\n',
    },
    {
        "key": "step.kubernetes.step.1.pre",
        "exitCode": 0,
        "out": 'stdout: {"operation":"TASK_STEP_SKIPPED","status":"PROGRESS","metadata":{"step":2}}\n',
    },
    {"key": "step.docker.step.2.run", "exitCode": 3, "out": "stderr: bad\n"},
]
CLI_1 = [
    {
        "key": "step.src.0",
        "exitCode": 1,
        "out": "".join(
            f"stdout: {json.dumps(event)}\n"
            for event in (
                {"operation": "TASK_STEP", "status": "STARTED", "metadata": {"step": 1, "env": {"A": "1"}}},
                {
                    "operation": "TASK_STEP",
                    "status": "PROGRESS",
                    "metadata": {"step": 1, "out": "stderr: Hello World\n"},
                },
                {"operation": "TASK_STEP", "status": "SUCCESS", "metadata": {"step": 1, "diff": "D"}},
                {"operation": "TASK_STEP_SKIPPED", "status": "PROGRESS", "metadata": {"step": 2}},
                {"operation": "TASK_STEP", "status": "PROGRESS", "metadata": {"step": 3, "out": "stderr: bad\n"}},
                {"operation": "TASK_STEP", "status": "FAILURE", "metadata": {"step": 3, "exitCode": 3, "error": "no"}},
                {
                    "operation": "CACHE_AFTER_STEP_RESULT",
                    "status": "SUCCESS",
                    "metadata": {"key": "k-step-0", "value": {"stepIndex": 0, "diff": "D", "outputs": {"o": "x"}}},
                },
            )
        ),
    }
]


@pytest.mark.parametrize("entries", [NATIVE_1, CLI_1], ids=["native, version 2", "src-cli, version 1"])
def test_old_and_new_records_tell_the_same_story(entries: list[dict[str, Any]]) -> None:
    first, second, third = read_stories(json.dumps(entries))

    assert (first.state, first.exit_code, first.environment, first.output, first.key) == (
        *("completed", 0, {"A": "1"}, "stderr: Hello World\n", "k-step-0"),
    )
    assert first.result is not None
    assert (first.result.diff, first.result.outputs) == (b"D", {"o": "x"})
    assert second.state == "skipped"
    assert (third.state, third.exit_code, third.output) == ("failed", 3, "stderr: bad\n")


@pytest.mark.parametrize("text", ["", "[1]", "[", "hello"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(RecordUnknown):
        read_stories(text)
