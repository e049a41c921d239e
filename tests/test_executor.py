"""Jobs of both kinds against a fake instance: from the queue to the results that it keeps."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.executions import (
    TOKEN,
    Executions,
    Machine,
    Repository,
    accepted,
    diff_of,
    entry_of,
    events_in,
    keys,
    results_of,
)
from tests.fakes import FakeRuntime
from tests.instance.launcher import RunningInstance

NAME = "github.com/acme/app"
SECRET = 'pa"ss\nword-of-two-lines'
BOTH = pytest.mark.parametrize("native", [False, True], ids=["src-cli", "native"])


@pytest.fixture(scope="module")
def executions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executions]:
    with RunningInstance(tmp_path_factory.mktemp("instance")) as instance:
        instance.set("executors.accessToken", TOKEN)
        number, commit = instance.add_repository(NAME, {"README.md": "hello\n", "web/a.txt": "a\n", "old.txt": "o\n"})
        yield Executions(instance, Repository(NAME, number, commit))


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def machine(executions: Executions, runtime: FakeRuntime, tmp_path: Path) -> Iterator[Machine]:
    yield Machine(executions, tmp_path, runtime)
    executions.instance.sql("UPDATE executions SET state = 'canceled' WHERE state IN ('queued', 'processing')")


@BOTH
def test_a_job_completes(machine: Machine, executions: Executions, native: bool) -> None:
    number = executions.enqueue("write new.txt hi\nout Hello\nerr oh", "delete old.txt\ncat new.txt", native=native)

    ended = machine.work_off(number)

    assert ended["state"] == "completed", ended["failure"]
    assert accepted(ended) == ["markComplete"]
    first, second = results_of(ended)
    assert (first["stepIndex"], first["stdout"], first["stderr"]) == (0, "Hello\n", "oh\n")
    assert (second["stepIndex"], second["stdout"]) == (1, "hi\n")
    assert second["changedFiles"] == {"modified": None, "added": ["new.txt"], "deleted": ["old.txt"], "renamed": None}
    assert "+hi" in diff_of(second)
    assert "-o" in diff_of(second)
    assert all(entry["exitCode"] == 0 for entry in ended["logs"])
    assert machine.leftovers() == []


def test_a_native_job_has_the_log_entries_of_upstreams(machine: Machine, executions: Executions) -> None:
    number = executions.enqueue("out Hello\nerr oh", native=True)

    ended = machine.work_off(number)

    steps = [f"step.docker.step.0.{part}" for part in ("pre", "run", "post")]
    git = [f"setup.git.{part}" for part in ("init", "add-remote", "disable-gc", "fetch", "checkout", "set-remote")]
    assert keys(ended) == [*git, "setup.fs.extras", *steps, "teardown.fs"]
    assert sorted(entry_of(ended, steps[1])["out"].splitlines()) == ["stderr: oh", "stdout: Hello"]


def test_a_src_cli_job_writes_upstreams_events_in_upstreams_order(machine: Machine, executions: Executions) -> None:
    steps = [{"run": "out Hello", "env": {"A": "1"}}, {"run": "out no", "if": "false"}, {"run": "exit 3"}]
    number = executions.enqueue(*steps)

    ended = machine.work_off(number)

    events = events_in(entry_of(ended, "step.src.batch-exec"))
    assert [(event["operation"], event["status"]) for event in events] == [
        ("PREPARING_DOCKER_IMAGES", "STARTED"),
        ("PREPARING_DOCKER_IMAGES", "PROGRESS"),
        ("PREPARING_DOCKER_IMAGES", "PROGRESS"),
        ("PREPARING_DOCKER_IMAGES", "SUCCESS"),
        ("EXECUTING_TASK", "STARTED"),
        ("TASK_PREPARING_STEP", "STARTED"),
        ("TASK_PREPARING_STEP", "SUCCESS"),
        ("TASK_STEP", "STARTED"),
        ("TASK_STEP", "PROGRESS"),
        ("TASK_STEP", "SUCCESS"),
        ("TASK_STEP_SKIPPED", "PROGRESS"),
        ("TASK_PREPARING_STEP", "STARTED"),
        ("TASK_PREPARING_STEP", "SUCCESS"),
        ("TASK_STEP", "STARTED"),
        ("TASK_STEP", "FAILURE"),
        ("CACHE_AFTER_STEP_RESULT", "SUCCESS"),
        ("EXECUTING_TASK", "FAILURE"),
    ]
    task = events[4]["metadata"]["taskID"]
    assert events[1]["metadata"] == {"total": 1}
    assert events[7]["metadata"] == {"taskID": task, "step": 1, "env": {"A": "1"}}
    assert events[8]["metadata"] == {"taskID": task, "step": 1, "out": "stdout: Hello\n"}
    assert events[10]["metadata"] == {"taskID": task, "step": 2}
    assert events[14]["metadata"]["exitCode"] == 3
    assert events[14]["metadata"]["error"].endswith("Command failed with exit code 3.")


@pytest.mark.parametrize(("version", "diff_version"), [("4.2.0", None), ("4.3.0-1", 2)])
@BOTH
def test_both_forms_of_the_wire_are_read(
    machine: Machine, executions: Executions, native: bool, version: str, diff_version: int | None
) -> None:
    """An executor before 4.3 gets files as text, and src-cli is not asked for binary diffs."""
    number = executions.enqueue("write ü.txt hé", native=native)

    ended = machine.work_off(number, version=version)

    (result,) = results_of(ended)
    assert result.get("version") == (2 if native else diff_version)
    assert "+hé" in diff_of(result)


@BOTH
def test_a_failed_step_keeps_the_results_before_it(machine: Machine, executions: Executions, native: bool) -> None:
    number = executions.enqueue("out fine", "err bad\nexit 3", "out never", native=native)

    ended = machine.work_off(number)

    assert ended["state"] == "failed"
    assert accepted(ended) == ["markFailed"]
    key = "step.docker.step.1.run" if native else "step.src.batch-exec"
    assert f'running command "{key}": command failed with exit code {3 if native else 1}' in ended["failure"]
    assert "Command failed with exit code 3." in ended["failure"]
    assert entry_of(ended, key)["exitCode"] == (3 if native else 1)
    assert [result["stdout"] for result in results_of(ended)] == ["fine\n"]


@BOTH
def test_a_skipped_step_between_others_starts_nothing(
    machine: Machine, executions: Executions, runtime: FakeRuntime, native: bool
) -> None:
    never = {"run": "out never", "container": "other:1", "if": "${{ eq previous_step.stdout `x` }}"}
    number = executions.enqueue("out one", never, "out three", native=native)

    ended = machine.work_off(number)

    assert ended["state"] == "completed"
    assert [result["stepIndex"] for result in results_of(ended)] == [0, 2]
    assert runtime.scripts == ["out one", "out three"]
    if native:
        assert "other:1" not in runtime.images
        (skipped,) = events_in(entry_of(ended, "step.docker.step.1.pre"))
        assert (skipped["operation"], skipped["metadata"]) == ("TASK_STEP_SKIPPED", {"step": 2})
        assert "eq previous_step.stdout `x`" in entry_of(ended, "step.docker.step.1.pre")["out"]
        assert "step.docker.step.1.run" not in keys(ended)


@BOTH
def test_a_workspace_whose_steps_are_all_skipped_is_complete(
    machine: Machine, executions: Executions, native: bool
) -> None:
    """Upstream's own executor reports no result then, and the instance calls the job failed."""
    step = {"run": "out never", "if": "${{ eq previous_step.stdout `x` }}"}
    number = executions.enqueue(step, step, native=native)

    ended = machine.work_off(number)

    assert ended["state"] == "completed"
    (result,) = results_of(ended)
    assert (result["stepIndex"], result["diff"], result["skipped"]) == (1, "", True)


@BOTH
def test_a_job_goes_on_from_the_result_that_came_with_it(
    machine: Machine, executions: Executions, runtime: FakeRuntime, native: bool
) -> None:
    first = executions.enqueue("write new.txt hi\ndelete old.txt\nout Hello", native=native)
    cached = {**results_of(machine.work_off(first))[0], "outputs": {"n": 3}}
    runtime.scripts.clear()
    shown = "${{ outputs.n }} ${{ steps.deleted_files }} ${{ previous_step.stdout }}"
    steps = ["out never again", f"cat new.txt\nout {shown}"]

    number = executions.enqueue(*steps, native=native, cachedStepResultFound=True, cachedStepResult=cached)
    ended = machine.work_off(number)

    assert ended["state"] == "completed", ended["failure"]
    (result,) = results_of(ended)
    assert result["stepIndex"] == 1
    assert result["stdout"] == "hi\n3 [old.txt] Hello\n"
    assert diff_of(result) == diff_of(cached)
    assert result["outputs"] == {"n": 3}
    assert len(runtime.scripts) == 1
    assert ("step.docker.apply-diff" in keys(ended)) is native


@pytest.mark.parametrize(
    "more", [[], ["skipped"], ["static"]], ids=["cached whole", "skipped later", "skipped at once"]
)
@BOTH
def test_a_result_that_came_with_a_job_is_its_result_if_nothing_else_ran(
    machine: Machine, executions: Executions, runtime: FakeRuntime, native: bool, more: list[str]
) -> None:
    """Without a result the instance calls the job failed."""
    diff = "diff --git new.txt new.txt\nnew file mode 100644\n--- /dev/null\n+++ new.txt\n@@ -0,0 +1 @@\n+hi\n"
    cached = {"stepIndex": 0, "diff": diff, "stdout": "", "stderr": "", "outputs": {}}
    condition = "false" if more == ["static"] else "${{ eq previous_step.stdout `x` }}"
    steps = ["out never", *({"run": "out no", "if": condition} for _ in more)]
    skipped = {"1": {}} if more == ["static"] else {}

    given = {"cachedStepResultFound": True, "cachedStepResult": cached, "skippedSteps": skipped}
    ended = machine.work_off(executions.enqueue(*steps, native=native, **given))

    assert ended["state"] == "completed", ended["failure"]
    (result,) = results_of(ended)
    assert (result["stepIndex"], diff_of(result)) == (0, diff)
    assert runtime.scripts == []


def test_a_native_job_without_a_step_to_run_is_complete(machine: Machine, executions: Executions) -> None:
    """The instance sends none of the steps whose `if` it found to be false."""
    step = {"run": "out never", "if": "false"}
    number = executions.enqueue(step, native=True, skippedSteps={"0": {}})

    ended = machine.work_off(number)

    assert ended["state"] == "completed", ended["failure"]
    assert results_of(ended)[0]["skipped"] is True


def test_a_job_that_fetches_only_its_workspace_sees_nothing_else(machine: Machine, executions: Executions) -> None:
    number = executions.enqueue("cat web/a.txt\ncat README.md", native=True, path="web", onlyFetchWorkspace=True)

    ended = machine.work_off(number)

    (result,) = results_of(ended)
    assert (result["stdout"], result["stderr"]) == ("a\n", "no README.md\n")
    assert "setup.git.sparse-checkout-set" in keys(ended)


def test_a_cached_diff_that_does_not_apply_is_told(machine: Machine, executions: Executions) -> None:
    diff = "diff --git README.md README.md\n--- README.md\n+++ README.md\n@@ -1 +1 @@\n-bye\n+hi\n"
    cached = {"stepIndex": 0, "diff": diff, "stdout": "", "stderr": "", "outputs": {}}

    number = executions.enqueue("out 1", "out 2", cachedStepResultFound=True, cachedStepResult=cached)
    ended = machine.work_off(number)

    assert ended["state"] == "failed"
    assert "run the batch spec without its cache" in ended["failure"]


@BOTH
def test_mounts_come_from_the_file_store(
    machine: Machine, executions: Executions, runtime: FakeRuntime, native: bool
) -> None:
    """Every step that mounts a file finds it, bytes and all; its size and time are in upstream's key."""
    content = b"\0binary\xff"
    file = {"key": "spec/one", "modifiedAt": "2023-01-02T03:04:05.5Z", "hex": content.hex()}
    step = {"run": "out x", "mount": [{"path": "tools/a.bin", "mountpoint": "/tmp/a.bin"}]}

    number = executions.enqueue(step, step, native=native, files={"tools/a.bin": file})
    ended = machine.work_off(number)

    assert ended["state"] == "completed", ended["failure"]
    for ran in runtime.ran:
        (mounted,) = [file.source for file in ran.files if file.target == "/tmp/a.bin"]
        assert mounted.read_bytes() == content
    assert ended["cache"][0]["key"] == _key_of(executions, size=len(content))


@BOTH
def test_secrets_are_hidden_and_results_stay_whole(machine: Machine, executions: Executions, native: bool) -> None:
    """Every form of them, over several lines too; one that is short tears no hole into what programs read."""
    step = {"run": "env K\nenv SHORT\nout word-of-two-lines", "env": ["K", "SHORT"]}

    number = executions.enqueue(step, native=native, secrets={"K": SECRET, "SHORT": "2"})
    ended = machine.work_off(number)

    assert ended["state"] == "completed", ended["failure"]
    told = json.dumps(ended["logs"])
    assert "word-of-two-lines" not in told
    assert 'pa\\"ss' not in told
    (result,) = results_of(ended)
    assert result["stdout"] == "${{ secrets.K }}\n2\n${{ secrets.K }}\n"
    entry = entry_of(ended, "step.docker.step.0.pre" if native else "step.src.batch-exec")
    started = next(event for event in events_in(entry) if event["metadata"].get("env"))
    assert started["metadata"]["env"] == {"K": "${{ secrets.K }}", "SHORT": "${{ secrets.SHORT }}"}


def test_a_diff_with_a_secret_is_never_sent(machine: Machine, executions: Executions) -> None:
    step = {"run": "write leak.txt s3cret-value", "env": ["K"]}

    number = executions.enqueue(step, native=True, secrets={"K": "s3cret-value"})
    ended = machine.work_off(number)

    assert ended["state"] == "failed"
    assert "secret K" in ended["failure"]
    assert "s3cret-value" not in json.dumps(ended["logs"]) + ended["failure"]
    assert entry_of(ended, "step.docker.step.0.post")["exitCode"] == 1


def test_the_jobs_token_reaches_git_and_nothing_else(
    machine: Machine, executions: Executions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _record_arguments_of_git(tmp_path, monkeypatch)
    executions.instance.sql("DELETE FROM requests")

    ended = machine.work_off(executions.enqueue("out x"))

    token = machine.runs[0].job.token.get_secret_value()
    asked = executions.instance.sql("SELECT headers, status FROM requests WHERE path LIKE '/.executors/git/%'")
    assert asked
    assert all(request["status"] == 200 for request in asked)
    assert json.loads(asked[0]["headers"])["authorization"] == f"Bearer {token}"
    assert "fetch" in (tmp_path / "arguments").read_text()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert kept == []
    assert token not in json.dumps(ended)


def test_a_repository_that_the_instance_does_not_have_is_told(machine: Machine, executions: Executions) -> None:
    repository = {"id": "UmVwb3NpdG9yeTox", "name": "github.com/acme/gone"}

    ended = machine.work_off(executions.enqueue("out x", repository=repository))

    assert ended["state"] == "failed"
    assert entry_of(ended, "setup.git.fetch")["exitCode"] == 1
    assert "not found" in ended["failure"]


@pytest.mark.parametrize("step", [{"codingAgent": {"type": "codex", "prompt": "p"}}, {"run": "out ${{ nonsense }}"}])
def test_steps_that_cannot_be_run_are_refused_with_the_reason(
    machine: Machine, executions: Executions, step: dict[str, object]
) -> None:
    ended = machine.work_off(executions.enqueue(step))

    assert ended["state"] == "failed"
    assert "not supported" in ended["failure"] or "nonsense" in ended["failure"]


def test_the_log_is_seen_while_a_step_runs(machine: Machine, executions: Executions) -> None:
    number = executions.enqueue("out first\nsleep 50", native=True)

    with machine.working():
        while not any(entry["out"] == "stdout: first\n" for entry in executions.look(number)["logs"]):
            assert executions.look(number)["state"] in ("queued", "processing")
            time.sleep(0.2)


def _key_of(executions: Executions, size: int) -> str:
    """Upstream's key of the first step that mounts tools/a.bin, written out as upstream hashes it."""
    text = (
        f'{{"Repository":{{"ID":"UmVwb3NpdG9yeTox","Name":"{NAME}","BaseRef":"refs/heads/main",'
        f'"BaseRev":"{executions.repository.commit}","FileMatches":[]}},"Path":"","OnlyFetchWorkspace":false,'
        '"Steps":[{"run":"out x","container":"image:1","env":{},'
        '"mount":[{"mountpoint":"/tmp/a.bin","path":"tools/a.bin"}]}],'
        '"BatchChangeAttributes":{"Name":"change","Description":"A change"},"StepIndex":0,"Environments":[{}],'
        f'"MountsMetadata":[{{"Path":"tools/a.bin","Size":{size},"Modified":"2023-01-02T03:04:05.5Z"}}]}}'
    )
    digest = hashlib.sha256(text.encode()).digest()[:16]
    return f"{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-step-0"


def _record_arguments_of_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every git from now on leaves its arguments in ``folder``."""
    script = folder / "bin" / "git"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/arguments\nPATH="${{PATH#*:}}"\nexec git "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
