"""The images that a workspace's steps name, made ready before the first one runs, as src-cli does."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from blocks.runtime import Runtime

from ..batches.conditions import skipped_steps
from ..batches.execution_input import ExecutionInput


def static_images(given: ExecutionInput) -> list[str]:
    """Every image that some step names without a template, each once, in the order of the steps."""
    return list(dict.fromkeys(step.container for step in given.spec.steps if "${{" not in step.container))


def make_ready(given: ExecutionInput, runtime: Runtime, cancel: Event) -> Iterator[int]:
    """Find or pull the images; yields how many are done. Raises the runtime's errors.

    One that only steps use which surely do not run is counted, and left alone.
    """
    never = skipped_steps(
        [step.condition for step in given.spec.steps],
        repository_name=given.workspace.repository,
        batch_change_name=given.spec.name,
        batch_change_description=given.spec.description,
    )
    needed = {
        step.container
        for index, step in enumerate(given.spec.steps)
        if index >= given.first_step and index not in never
    }
    for done, image in enumerate(static_images(given), 1):
        if image in needed:
            runtime.resolve_image(image, cancel)
        yield done
