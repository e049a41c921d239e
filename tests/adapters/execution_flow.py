"""Vectors about the order of things: they are played with real git, a real store and a runtime without an engine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from blocks.folder import FolderStore
from blocks.sources import location
from flows.batches.changesets import Author, ChangesetSpec, Commit, check_duplicates
from flows.batches.errors import BatchError, ChangesetError
from flows.batches.loading import load_spec
from flows.batches.steps import image_reference
from flows.batches.template import StepContext
from flows.execution import Limits, WorkspaceRun
from flows.runs import BatchRun
from flows.shares import Options, Surroundings
from tests.fakes import FakeRuntime
from tests.gitrepos import make_repository
from tests.workbench import Workbench, finish

FILES = {name: f"{name}\n" for name in ("a", "b.base", "f.base", "m")}
"""The names that vectors `modifies`; what they add or write is new."""


def check(given: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    """Play the vector and compare everything that it expects."""
    found = _play(given)
    for key, wanted in expect.items():
        assert key in found, f"the adapter knows no {key!r} here"
        if key == "error_contains":
            assert wanted in (found["error"] or ""), (wanted, found["error"])
        elif key == "error" and wanted is not None:
            assert (found["error"] or "").endswith(wanted), (wanted, found["error"])
        else:
            assert found[key] == wanted, (key, found[key], wanted)


def _play(given: dict[str, Any]) -> dict[str, Any]:
    known = set(given)
    if "steps" in known:
        assert known <= {"steps", "timeout_s", "cached_step"}, known
        return _steps(given)
    if "cached_keys" in known:
        assert known == {"cached_keys", "n_steps"}, known
        return _lookup(given["cached_keys"], given["n_steps"])
    if "workspaces" in known:
        assert known <= {"workspaces", "skip_errors", "fail_fast"}, known
        return _workspaces(given)
    if "specs" in known:
        assert known == {"specs"}, known
        return _duplicates(given["specs"])
    assert known in ({"container"}, {"container", "outputs"}), known
    return _image(given["container"], given.get("outputs"))


def _steps(given: dict[str, Any]) -> dict[str, Any]:
    spec = _spec(given["steps"])
    timeout = given.get("timeout_s")
    with tempfile.TemporaryDirectory() as folder:
        modified = {name for step in given["steps"] for name in [step.get("modifies")] if name}
        runtime = FakeRuntime()
        with Workbench(Path(folder), {**FILES, **dict.fromkeys(modified, "base\n")}, runtime=runtime) as bench:
            if "cached_step" in given:
                finish_up_to(bench, spec, given["cached_step"])
                runtime.ran.clear()
            run = bench.open(spec, limits=Limits(workspace_seconds=timeout) if timeout else None)
            try:
                finish(run, spec)
                failure = run.failure
            except BatchError as error:
                failure = run.fail(error)
            finally:
                run.close()
            ran = [int(container.labels["step"]) - 1 for container in runtime.ran]
            return _found(bench, run, ran, failure.message if failure else None, given)


def finish_up_to(bench: Workbench, spec: str, last: int) -> None:
    """Have the results of the steps up to ``last`` in the store."""
    run = bench.open(spec)
    run.set_up()
    for index in range(last + 1):
        run.run_step(index)
    run.close()


def _found(
    bench: Workbench, run: WorkspaceRun, ran: list[int], error: str | None, given: dict[str, Any]
) -> dict[str, Any]:
    completed = [result for result in run.results if result.state == "completed"]
    last = run.executed
    new = [result.index for result in completed if result.index not in run.cached]
    found: dict[str, Any] = {
        "ran": ran,
        "results": new or [result.index for result in completed],
        "status": "failed" if run.failure else "ok",
        "error": error,
        "error_contains": error,
        "skipped": [result.index for result in run.results if result.state == "skipped"],
        "cached": [result.index for result in completed],
        "changeset_from": last.index if last and last.diff and last.diff.size_bytes and not run.failure else None,
    }
    for result in completed:
        earlier = [one for one in completed if one.index < result.index]
        if earlier:
            found[f"previous_step_of_{result.index}"] = earlier[-1].index
            for name, paths in earlier[-1].changes.model_dump().items():
                found[f"previous_step_of_{result.index}.{name}_files"] = list(paths)
    if last:
        for name, paths in last.changes.model_dump().items():
            found[f"final.{name}_files"] = list(paths)
    if "cached_step" in given:
        # Upstream rebuilds the files from the cached diff; here the stored layer is unpacked, which keeps more.
        found["setup"] = ["git apply -p0 <cached diff>", "git add --all"] if run.cached else []
    return found


def _spec(steps: list[dict[str, Any]]) -> str:
    items = []
    for number, step in enumerate(steps):
        assert set(step) <= {"exit", "if", "changes", "writes", "reverts", "modifies", "adds", "sleep"}, step
        lines = [f"out {number}"]
        for word in ("writes", "modifies", "adds"):
            if word in step:
                lines.append(f"write {step[word]} changed by {number}")
        if "reverts" in step:
            lines.append(f"delete {step['reverts']}")
        if not {"writes", "reverts", "modifies", "adds"} & set(step) and step.get("changes", True):
            lines.append(f"write step-{number} done")
        if "sleep" in step:
            lines.append(f"sleep {step['sleep']}")
        if step.get("exit"):
            lines.append(f"exit {step['exit']}")
        script = "".join(f"      {line}\n" for line in lines)
        item = f"  - container: image:1\n    run: |\n{script}"
        if "if" in step:
            assert step["if"] in ("false-at-runtime", "true-at-runtime"), step
            word = "=" if step["if"] == "true-at-runtime" else "x"
            item += f'    if: ${{{{ eq steps.path "{"" if word == "=" else word}" }}}}\n'
        items.append(item)
    template = "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}\n"
    return f"version: 2\nname: test\nsteps:\n{''.join(items)}{template}"


def _lookup(cached: list[int], count: int) -> dict[str, Any]:
    """Ours is the server's way: from the first step on, as far as results go."""
    spec = _spec([{} for _ in range(count)])
    with tempfile.TemporaryDirectory() as folder, Workbench(Path(folder), dict(FILES)) as bench:
        finish_up_to(bench, spec, count - 1)
        whole = bench.run(spec)
        for result in whole.results:
            if result.index not in cached:
                key = result.cache_key
                (bench.folder / "store" / "steps" / key[:2] / f"{key}.json").unlink()
        run = bench.open(spec)
        run.set_up()
        run.close()
        return {
            "src_cli_resume_after": max(cached, default=None),  # upstream's own way, which ours is not
            "server_resume_after": max(run.cached, default=None),
        }


def _workspaces(given: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scripts = []
        for number, workspace in enumerate(given["workspaces"]):
            assert set(workspace) <= {"fails", "slow"}, workspace
            make_repository(folder / "repositories" / f"r{number}", {"a": "a\n"})
            words = ["write new x"] + (["exit 1"] if workspace.get("fails") else [])
            scripts.append((["sleep 30"] if workspace.get("slow") else []) + words)
        steps = "".join(
            f'  - container: i\n    if: ${{{{ eq repository.name "r{number}" }}}}\n    run: |\n'
            + "".join(f"      {word}\n" for word in words)
            for number, words in enumerate(scripts)
        )
        on = "".join(f"  - repository: r{number}\n" for number in range(len(scripts)))
        template = "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}\n"
        text = f"name: test\non:\n{on}steps:\n{steps}{template}"
        options = Options(skip_errors=given.get("skip_errors", False), fail_fast=given.get("fail_fast", False))
        around = Surroundings(_Folder(folder / "repositories"), FakeRuntime(), FolderStore(folder / "store"), folder)
        with BatchRun("test", text, load_spec(text), options, around) as run:
            run.find_workspaces()
            run.begin()
            run.run_workspaces(run.run_workspace)
            manifest = run.finish()
        states = [result.state for result in manifest.workspaces]
        return {
            "exit": 0 if manifest.state == "completed" else 1,
            "changesets": manifest.changeset_specs,
            "cancelled": states.count("cancelled"),
            "failed": states.count("failed"),
        }


class _Folder:
    """A source of the repositories in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def locations(self) -> dict[str, Any]:
        return {path.name: location(path.name, str(path)) for path in self._folder.iterdir()}


def _duplicates(specs: list[dict[str, str]]) -> dict[str, Any]:
    commit = Commit("M", b"x", Author(name="n", email="e@example.com"))
    made = [
        ChangesetSpec(repository=spec["repo"], repository_id=spec["repo"], head_ref=spec["head"], commit=commit)
        for spec in specs
    ]
    try:
        check_duplicates(made)
    except ChangesetError as error:
        return {"error": str(error), "error_contains": str(error)}
    return {"error": None, "error_contains": None}


def _image(container: str, outputs: dict[str, Any] | None) -> dict[str, Any]:
    """Only what a step runs is asked for, once its name is known: no image is pulled before."""
    spec = load_spec(
        "name: test\nsteps:\n  - run: x\n    container: " + repr(container) + "\n"
        "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}\n"
    )
    found: dict[str, Any] = {"prepull": [], "resolved_at": "step", "error": None}
    if outputs is not None:
        try:
            found["image"] = image_reference(spec.steps[0], 0, StepContext(outputs=outputs))
        except BatchError as error:
            found["error"] = found["error_contains"] = str(error)
    return found
