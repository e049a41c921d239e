"""What the queue's jobs are made of: an execution's record becomes a Job, and a job's log becomes results.

From upstream's transform.go and worker_workspace_execution.go.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_OPERATIONS = frozenset(
    {
        *("PARSING_BATCH_SPEC", "RESOLVING_NAMESPACE", "PREPARING_DOCKER_IMAGES", "DETERMINING_WORKSPACE_TYPE"),
        *("DETERMINING_WORKSPACES", "CHECKING_CACHE", "EXECUTING_TASKS", "LOG_FILE_KEPT", "UPLOADING_CHANGESET_SPECS"),
        *("CREATING_BATCH_SPEC", "APPLYING_BATCH_SPEC", "BATCH_SPEC_EXECUTION", "EXECUTING_TASK"),
        *("TASK_BUILD_CHANGESET_SPECS", "TASK_SKIPPING_STEPS", "TASK_STEP_SKIPPED", "TASK_PREPARING_STEP", "TASK_STEP"),
        *("CACHE_AFTER_STEP_RESULT", "DOCKER_WATCH_DOG"),
    }
)
_NEVER = "0001-01-01T00:00:00Z"


def wire_version(executor_version: str) -> int:
    """Which form of jobs an executor of that version gets."""
    if executor_version in ("dev", "0.0.0+dev"):
        return 2
    if built := re.fullmatch(r"\d+_(\d{4}-\d{2}-\d{2})_.*", executor_version):
        return 2 if built[1] >= "2022-11-24" else 1
    if number := re.match(r"(\d+)\.(\d+)\.(\d+)", executor_version):
        return 2 if tuple(map(int, number.groups())) >= (4, 3, 0) else 1
    return 1


def job_of(number: int, record: Mapping[str, Any], token: str, version: int) -> dict[str, Any]:
    """The Job of an execution's record, as it goes over the wire. Raises KeyError for a record that is broken."""
    given, secrets = record["input"], record.get("secrets", {})
    outer = [f"{name}={value}" for name, value in secrets.items()]
    files: dict[str, Any] = {"input.json": _inline(json.dumps(given), version)}
    for path, file in record.get("files", {}).items():
        files[f"workspace-files/{path}"] = {
            "bucket": "batch-changes",
            "key": file["key"],
            "modifiedAt": file["modifiedAt"],
        }
    job: dict[str, Any] = {
        **({"version": 2} if version == 2 else {}),
        "id": number,
        "token": token,
        "queue": "batches",
        "repositoryName": given["repository"]["name"],
        "repositoryDirectory": "repository",
        "commit": given["branch"]["target"]["oid"],
        "fetchTags": False,
        "shallowClone": True,
        "sparseCheckout": [f"{given['path']}/*"] if given.get("onlyFetchWorkspace") else None,
        "files": files,
        "dockerSteps": None,
        "cliSteps": None,
        "redactedValues": {value: f"${{{{ secrets.{name} }}}}" for name, value in secrets.items()},
    }
    if version == 2 and record.get("dockerAuthConfig"):
        job["dockerAuthConfig"] = record["dockerAuthConfig"]
    if record.get("native"):
        job["dockerSteps"] = list(_docker_steps(given, outer, files, version))
    else:
        command = ["batch", "exec", "-f", "input.json", "-repo", "repository", "-tmp", ".src-tmp"]
        command += ["-binaryDiffs"] if version == 2 else []
        command += ["-workspaceFiles", "workspace-files"] if record.get("files") else []
        job["cliSteps"] = [{"key": "batch-exec", "command": command, "dir": ".", "env": outer}]
    return job


def results_in(logs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The `{key, value}` of every step result in a job's log entries, as the instance finds them."""
    return [
        event["metadata"]
        for entry in logs
        if entry["key"].endswith(".post") or entry["key"] in ("step.src.0", "step.src.batch-exec")
        for event in _events(entry.get("out", ""))
        if event["operation"] == "CACHE_AFTER_STEP_RESULT"
    ]


def _docker_steps(
    given: Mapping[str, Any], outer: Sequence[str], files: dict[str, Any], version: int
) -> Iterator[dict[str, Any]]:
    first = 0
    if given.get("cachedStepResultFound"):
        cached = given["cachedStepResult"]
        first = cached.get("stepIndex", 0) + 1
        files[f"step{first - 1}.json"] = _inline(json.dumps(cached), version)
        if cached.get("diff"):
            is_base64 = cached.get("version") == 2
            diff = base64.b64decode(cached["diff"]) if is_base64 else cached["diff"].encode()
            files["state.diff"] = _inline(diff.decode("latin-1"), version)
            commands = ["set -e", "git apply -p0 ../state.diff", "git add --all"]
            yield _docker_step("apply-diff", "sourcegraph/batcheshelper:1", commands, "repository", ())
    for index in range(first, len(given["steps"])):
        if str(index) in given.get("skippedSteps", {}):
            continue
        helper = "sourcegraph/batcheshelper:1"
        image = given["steps"][index]["container"]
        where = "/".join(part for part in ("repository", given.get("path", "")) if part)
        up = "/".join(".." for _ in where.split("/"))
        script = (
            f'(exec "{up}/step{index}.sh" | tee {up}/stdout{index}.log) 3>&1 1>&2 2>&3 | tee {up}/stderr{index}.log'
        )
        preamble = ["{ set +x; } 2>/dev/null", "{ set -eo pipefail; } 2>/dev/null"]
        yield _docker_step(f"step.{index}.pre", helper, [f"batcheshelper pre {index}"], ".", outer)
        yield _docker_step(f"step.{index}.run", image, [*preamble, script], where, ())
        yield _docker_step(f"step.{index}.post", helper, [f"batcheshelper post {index}"], ".", outer)


def _docker_step(
    key: str, image: str, commands: Sequence[str], directory: str, environment: Sequence[str]
) -> dict[str, Any]:
    # Go writes a nil slice as null.
    env = list(environment) or None
    return {"key": key, "image": image, "commands": list(commands), "dir": directory, "env": env}


def _inline(text: str, version: int) -> dict[str, Any]:
    content = base64.b64encode(text.encode()).decode() if version == 2 else text
    return {"content": content, "modifiedAt": _NEVER}


def _events(out: str) -> Iterator[dict[str, Any]]:
    for line in out.split("\n"):
        if not line.startswith("stdout: "):
            continue
        try:
            event = json.loads(line.removeprefix("stdout: "))
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("operation") in _OPERATIONS:
            yield event
