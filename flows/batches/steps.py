"""A step and its context become what runs: image, script, environment, files; or the reason why nothing runs.

Upstream: src-cli internal/batches/executor/run_steps.go, in the order: `if`, container, run, files, env.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .conditions import is_true
from .errors import PermanentError
from .spec import Mount, Step
from .template import StepContext, render_step


class ImageNameError(PermanentError):
    """`container` renders to nothing that can be an image. ``step`` counts from 1."""

    def __init__(self, step: int, problem: str) -> None:
        super().__init__(step, problem)
        self.step, self.problem = step, problem

    def __str__(self) -> str:
        return f"failed to resolve image for step {self.step}: {self.problem}"


@dataclass(frozen=True)
class Outside:
    """Values that steps may ask for by name. The names in ``secrets`` are masked wherever people can read."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: frozenset[str] = frozenset()

    @classmethod
    def of(cls, *, secrets: Mapping[str, str], variables: Mapping[str, str]) -> Outside:
        """Secrets and plain variables put together; a name that is both is a secret."""
        return cls({**variables, **secrets}, frozenset(secrets))


@dataclass(frozen=True)
class Skipped:
    """A step that does not run, and why: ``reason`` holds the condition as written and as rendered."""

    index: int
    reason: str


@dataclass(frozen=True)
class RenderedStep:
    """One step as it will run. ``secret_names`` are the variables of ``environment`` that nobody may read."""

    index: int
    image: str
    script: str
    environment: Mapping[str, str] = field(repr=False)
    secret_names: frozenset[str]
    files: Mapping[str, str]
    mounts: tuple[Mount, ...]

    @property
    def secrets(self) -> dict[str, str]:
        """What has to be masked in everything that this step leaves."""
        return {name: self.environment[name] for name in self.secret_names}


def skip_reason(step: Step, index: int, context: StepContext) -> Skipped | None:
    """Whether the step's `if` is not true in this context. Raises TemplateError."""
    if not step.condition:
        return None
    rendered = render_step(step.condition, context, f"steps.{index}.if")
    if is_true(rendered):
        return None
    return Skipped(index, _reason(step.condition, rendered))


def image_reference(step: Step, index: int, context: StepContext) -> str:
    """The image that the step runs in. Raises TemplateError, ImageNameError."""
    image = render_step(step.container, context, f"steps.{index}.container").strip()
    if not image:
        raise ImageNameError(index + 1, "empty image")
    if "${{" in image:
        raise ImageNameError(index + 1, f"{image!r} still holds a template")
    return image


def render(step: Step, index: int, context: StepContext, outside: Outside) -> RenderedStep:
    """Everything that the step reads. No value from outside is taken for a template. Raises TemplateError."""
    image = image_reference(step, index, context)
    script = render_step(step.run, context, f"steps.{index}.run")
    files = {
        target: render_step(content, context, f"steps.{index}.files.{target}") for target, content in step.files.items()
    }
    environment: dict[str, str] = {}
    secret_names: set[str] = set()
    for entry in step.env:
        secret_names.discard(entry.name)
        if entry.value is not None:
            environment[entry.name] = render_step(entry.value, context, f"steps.{index}.env.{entry.name}")
            continue
        environment[entry.name] = outside.values.get(entry.name, "")
        if entry.name in outside.secrets:
            secret_names.add(entry.name)
    return RenderedStep(index, image, script, environment, frozenset(secret_names), files, step.mounts)


def _reason(condition: str, rendered: str) -> str:
    written, shown = " ".join(condition.split()), " ".join(rendered.split())
    if written == shown:
        return f"if: {written}"
    return f"if: {written} → {shown or '(empty)'}"
