"""`batchwright exec` in containers: upstream's flags, event lines and cache keys."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.executions import step_of
from tests.gitrepos import make_repository
from tests.harness import Done, Installation
from tests.images import ensure_busybox

pytestmark = pytest.mark.docker

IMAGE = "batchwright/busybox:1"


class Exec:
    """`batchwright exec` on a small repository."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation, self.folder = installation, folder
        make_repository(folder / "repo", {"README.md": "hello\n"})

    def run(
        self, *steps: dict[str, Any], options: tuple[str, ...] = (), **more: Any
    ) -> tuple[Done, list[dict[str, Any]]]:
        given = {
            "BatchChangeAttributes": {"Name": "change", "Description": ""},
            "repository": {"id": "UmVwb3NpdG9yeTox", "name": "github.com/acme/app"},
            "branch": {"name": "refs/heads/main", "target": {"oid": "1c94aaf85d51e9d016b8ce4639b9f022d94c52e6"}},
            "steps": [step_of({"container": IMAGE, **step}) for step in steps],
        }
        (self.folder / "input.json").write_text(json.dumps({**given, **more}))
        arguments = ["-f", self.folder / "input.json", "-repo", self.folder / "repo", "-tmp", self.folder / "tmp"]
        done = self.installation.command("exec", *arguments, *options, environment={"FROM_OUTSIDE": "o"})
        return done, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def exec_command(installation: Installation, tmp_path: Path) -> Exec:
    with closing(docker.APIClient()) as client:
        ensure_busybox(client)
    return Exec(installation, tmp_path)


def test_steps_run_as_root_and_their_results_are_event_lines(exec_command: Exec) -> None:
    steps = (
        {
            "run": "id -u; echo more >> README.md; printf '\\377' > b.bin",
            "env": ["FROM_OUTSIDE", {"REPO": "${{ repository.name }}"}],
            "outputs": {"n": {"value": '{"k": 3}', "format": "json"}},
        },
        {"run": "exit 1", "if": "${{ eq outputs.n.k 4.0 }}"},
        {"run": "cat README.md ${{ join steps.modified_files ` ` }}; exit 5"},
    )

    done, events = exec_command.run(*steps, options=("-binaryDiffs",))

    assert done.code == 1
    told = [(event["operation"], event["status"]) for event in events if event["status"] != "PROGRESS"]
    prepared = [("TASK_PREPARING_STEP", "STARTED"), ("TASK_PREPARING_STEP", "SUCCESS"), ("TASK_STEP", "STARTED")]
    assert told == [
        ("PREPARING_DOCKER_IMAGES", "STARTED"),
        ("PREPARING_DOCKER_IMAGES", "SUCCESS"),
        ("EXECUTING_TASK", "STARTED"),
        *prepared,
        ("TASK_STEP", "SUCCESS"),
        *prepared,
        ("TASK_STEP", "FAILURE"),
        ("CACHE_AFTER_STEP_RESULT", "SUCCESS"),
        ("EXECUTING_TASK", "FAILURE"),
    ]
    started = next(event for event in events if event["metadata"].get("env"))
    assert started["metadata"]["env"] == {"FROM_OUTSIDE": "o", "REPO": "github.com/acme/app"}
    failed = next(event for event in events if event["metadata"].get("exitCode"))
    assert failed["metadata"]["exitCode"] == 5
    output = "\n\nstandard out:\n\thello\n\tmore\n\thello\n"
    assert f"container: {IMAGE}{output}" in failed["metadata"]["error"]
    (result,) = [event["metadata"]["value"] for event in events if event["operation"] == "CACHE_AFTER_STEP_RESULT"]
    assert result["stdout"] == "0\n"
    assert result["outputs"] == {"n": {"k": 3}}
    assert result["changedFiles"]["added"] == ["b.bin"]
    assert b"+\xff\n" in base64.b64decode(result["diff"])


def test_a_run_goes_on_from_the_cached_result_in_its_input(exec_command: Exec) -> None:
    first = {"run": "echo more >> README.md; mkdir d; echo new > d/new.txt"}
    _, events = exec_command.run(first)
    (cached,) = [event["metadata"]["value"] for event in events if event["operation"] == "CACHE_AFTER_STEP_RESULT"]
    assert "version" not in cached  # without -binaryDiffs

    second = {"run": "cat d/new.txt; rm README.md; echo ${{ previous_step.added_files }}"}
    done, events = exec_command.run(first, second, cachedStepResultFound=True, cachedStepResult=cached)

    assert done.code == 0, done.stderr
    assert [event["metadata"].get("startStep") for event in events if event["operation"] == "TASK_SKIPPING_STEPS"] == [
        2
    ]
    (result,) = [event["metadata"]["value"] for event in events if event["operation"] == "CACHE_AFTER_STEP_RESULT"]
    assert (result["stepIndex"], result["stdout"]) == (1, "new\n[d/new.txt]\n")
    assert result["changedFiles"]["deleted"] == ["README.md"]


def test_an_image_that_is_not_there_is_told_before_any_step(exec_command: Exec) -> None:
    done, events = exec_command.run({"run": "true", "container": "batchwright/no-such-image:1"})

    assert done.code == 1
    assert {event["operation"] for event in events} == {"PREPARING_DOCKER_IMAGES"}
    assert "no-such-image" in done.error


def test_records_of_both_modes_are_shown_alike(exec_command: Exec, tmp_path: Path) -> None:
    done, _ = exec_command.run({"run": "echo Hello", "env": {"A": "1"}}, {"run": "echo bad >&2; exit 3"})
    file = tmp_path / "events"
    file.write_bytes(done.stdout)

    shown = exec_command.installation.command("events", file, "--json").json

    assert [(step["state"], step["exitCode"], step["output"]) for step in shown] == [
        ("completed", 0, "stdout: Hello\n"),
        ("failed", 3, "stderr: bad\n"),
    ]
    assert exec_command.installation.command("events", file).code == 0
