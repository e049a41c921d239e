"""One workspace in the report: its line, its steps, its diff."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ..batches.results import RenderedRecord, RunManifest, StepReference, StepResult, WorkspaceResult
from .text import cut, element, esc, table

TEXT_CHARACTERS = 20_000
"""Of a script, a message, an output's value."""

_WIDTH = 1000
_NARROWEST = 4


@dataclass(frozen=True)
class Step:
    """A step, as far as its record can be read: ``result`` or ``trouble``. ``output``: the end of its streams."""

    reference: StepReference
    result: StepResult | None
    trouble: str = ""
    output: str = ""


@dataclass(frozen=True)
class Content:
    """What the store has of a workspace. ``diff`` is its beginning; ``left_out`` says what is missing of it."""

    steps: tuple[Step, ...]
    diff: str = ""
    left_out: str = ""


def workspace(manifest: RunManifest, number: int, result: WorkspaceResult, content: Content) -> str:
    """Workspace ``number``, counted from 1."""
    return element(
        "details",
        element("summary", *_line(manifest, result, content)),
        element("div", *_inside(manifest, number, result, content), class_="inside"),
        class_="workspace",
        id=f"w{number}",
        data_state=result.state,
        data_changed="yes" if result.diff else "no",
        data_find=f"{result.title} {result.branch} {result.failure.message[-500:] if result.failure else ''}".lower(),
    )


def pill(state: str) -> str:
    """A state, coloured."""
    return element("span", esc(state), class_=f"state {state}")


def _line(manifest: RunManifest, result: WorkspaceResult, content: Content) -> Iterator[str]:
    counts, change = result.step_counts, result.diffstat
    yield pill(result.state)
    yield element("span", esc(result.title), class_="title")
    counted = f"{counts.executed} run, {counts.cached} cached, {counts.skipped} skipped"
    yield element("span", counted, class_="dim wide")
    yield element("span", f"{change.files} files {_stat(result)}", class_="wide")
    yield element("span", f"{result.seconds:.1f} s", class_="number")
    yield element("span", _timeline(manifest, content), class_="wide")


def _stat(result: WorkspaceResult) -> str:
    change = result.diffstat
    plus = element("span", f"+{change.added_lines}", class_="plus")
    return f"{plus} {element('span', f'-{change.deleted_lines}', class_='minus')}"


def _timeline(manifest: RunManifest, content: Content) -> str:
    """When the steps ran, from the run's beginning to its end. What was not run now has no bar."""
    ended = manifest.ended_at or max(
        (s.result.ended_at for s in content.steps if s.result), default=manifest.started_at
    )
    whole = max(0.001, (ended - manifest.started_at).total_seconds())
    bars = [
        _bar(step, _share(step.result.started_at, manifest, whole), _share(step.result.ended_at, manifest, whole))
        for step in content.steps
        if step.result and step.reference.how in ("executed", "failed")
    ]
    view = f"0 0 {_WIDTH} 12"
    return element("svg", *bars, class_="timeline", viewBox=view, preserveAspectRatio="none") if bars else ""


def _share(time: datetime, manifest: RunManifest, whole: float) -> float:
    return min(1.0, max(0.0, (time - manifest.started_at).total_seconds() / whole))


def _bar(step: Step, begin: float, end: float) -> str:
    width = max(_NARROWEST, (end - begin) * _WIDTH)
    left = min(begin * _WIDTH, _WIDTH - width)
    assert step.result is not None
    told = f"step {step.reference.index + 1}: {step.reference.how}, {step.result.seconds:.1f} s"
    return element(
        "rect", element("title", told), x=f"{left:.1f}", y=1, width=f"{width:.1f}", height=10, class_=step.reference.how
    )


def _inside(manifest: RunManifest, number: int, result: WorkspaceResult, content: Content) -> Iterator[str]:
    where = f"{result.branch} at {result.commit[:12]}" + (f", in {result.path}" if result.path else "")
    specs = ", ".join(map(str, result.changeset_specs))
    yield element("p", esc(where), f" · changeset specs {specs}" if specs else "", class_="dim")
    if result.failure:
        yield element("pre", esc(cut(result.failure.message, TEXT_CHARACTERS)), class_="failure")
    for step in content.steps:
        yield _step(manifest, number, result, step)
    if content.diff:
        yield element("h3", "Diff")
        yield element("pre", esc(content.diff), class_="diff")
    if content.left_out:
        yield element("p", esc(content.left_out), class_="dim")
    if result.diff:
        yield element("p", element("a", "the whole diff", href=f"diffs/{number}.patch", class_="served", hidden=""))


def _step(manifest: RunManifest, number: int, workspace: WorkspaceResult, step: Step) -> str:
    reference, result = step.reference, step.result
    image = f" · {result.rendered.image}" if result and result.rendered else ""
    took = f" · {result.seconds:.1f} s" if result and reference.how in ("executed", "failed") else ""
    reason = f" · {result.skip_reason}" if result and result.skip_reason else ""
    head = element("b", f"Step {reference.index + 1}") + f" {pill(reference.how)}{esc(f'{took}{image}{reason}')}"
    if result is None:
        return element("p", head, " ", esc(step.trouble), class_="step")
    if result.rendered is None:
        return element("p", head, class_="step")
    command = f"batchwright logs {manifest.run_id} {shlex.quote(workspace.title)} {reference.index + 1}"
    links = " ".join(
        element("a", name, href=f"logs/{number}-{reference.index + 1}.{name}", class_="served", hidden="")
        for name in ("stdout", "stderr")
    )
    return element(
        "details",
        element("summary", head),
        element("pre", esc(cut(result.rendered.script.rstrip("\n"), TEXT_CHARACTERS))),
        table(_facts(result, result.rendered)),
        element("pre", esc(step.output), class_="output") if step.output else "",
        element("p", "All of its output: ", element("code", esc(command)), " ", links, class_="dim"),
        class_="step",
        open="" if reference.how == "failed" else None,
    )


def _facts(result: StepResult, rendered: RenderedRecord) -> Iterator[tuple[str, str]]:
    """What it ran with. Values of secrets are masked in the record already."""
    yield "image", element("code", esc(f"{rendered.image} ({rendered.image_digest})"))
    yield "in", element("code", esc(rendered.working_directory))
    for name, value in rendered.environment.items():
        yield "env", element("code", esc(cut(f"{name}={value}", TEXT_CHARACTERS)))
    for target in (*rendered.files, *rendered.mounts):
        yield "file", element("code", esc(target))
    if result.exit:
        odd = [name for name in ("oom_killed", "timed_out", "cancelled") if getattr(result.exit, name)]
        yield "exit", esc(", ".join((str(result.exit.code), *odd)))
    yield "ran", esc(f"{result.started_at:%Y-%m-%d %H:%M:%S} UTC, {result.seconds:.1f} s, attempt {result.attempts}")
    for name, output in result.outputs.items():
        yield "output", element("code", esc(cut(f"{name} = {output}", TEXT_CHARACTERS)))
