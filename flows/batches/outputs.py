"""A step's outputs: rendered, read in their format, added to those of the steps before.

Upstream: lib/batches/outputs.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import documents, gojson
from .errors import PermanentError, SpecError
from .spec import Output
from .template import StepContext, render_step


class OutputError(PermanentError):
    """An output's text is not of its format. ``problem`` is what Go says."""

    def __init__(self, name: str, format: str, problem: str) -> None:
        super().__init__(name, format, problem)
        self.name, self.format, self.problem = name, format, problem

    def __str__(self) -> str:
        return f"output {self.name!r} is no {self.format.upper()}: {self.problem}"


class OutputTooLarge(OutputError):
    """An output that would take too much time or memory to hold or to read. ``problem`` says how large it is."""

    def __str__(self) -> str:
        return f"output {self.name!r} {self.problem}; let the step print less, or write it to a file"


LARGEST = {"": 8 << 20, "text": 8 << 20, "json": 8 << 20, "yaml": 512 << 10}
"""Characters of an output, by its format. A reader needs a multiple of them in memory, and no limit of time ends it."""
LARGEST_TOGETHER = 32 << 20
"""Of one step's outputs."""


def render_outputs(outputs: Mapping[str, Output], context: StepContext, index: int) -> dict[str, object]:
    """The outputs of all steps so far: those of the ``context``, and on top of them a step's own ``outputs``.

    ``index`` is the step's, from 0, for messages. Raises TemplateError, OutputError.

    They render in the order written, and each sees those before it: upstream lets it see some of them, at random.
    """
    accumulated = dict(context.outputs)
    left = LARGEST_TOGETHER
    for name, output in outputs.items():
        text = render_step(output.value, replace(context, outputs=accumulated), f"steps.{index}.outputs.{name}.value")
        left -= len(text)
        if left < 0:
            raise OutputTooLarge(
                name, output.format, f"and those before it have more than {LARGEST_TOGETHER:,} characters"
            )
        accumulated[name] = _read(name, output.format, text)
    return accumulated


def _read(name: str, format: str, text: str) -> object:
    most = LARGEST[format]
    if len(text) > most:
        raise OutputTooLarge(name, format, f"has {len(text):,} characters, and {most:,} are the most ({format})")
    try:
        if format == "json":
            return gojson.first_value(text)
        if format == "yaml":
            return _first_document(text)
    except gojson.JSONError as error:
        raise OutputError(name, format, str(error)) from error
    except SpecError as error:
        raise OutputError(name, format, "; ".join(fault.message for fault in error.faults)) from error
    return text


def _first_document(text: str) -> object:
    lines = (line.strip() for line in text.splitlines())
    if all(not line or line.startswith("#") for line in lines):
        # To yaml.v3 a text without any document is an end too early, not null.
        raise gojson.JSONError("EOF")
    return documents.parse(text).data
