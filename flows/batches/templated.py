"""Which texts of a batch spec are templates, and whether each of them parses.

Every field is looked at by itself, before anything runs: upstream's dry run over the whole text invents faults.
"""

from __future__ import annotations

from collections.abc import Iterator

from .documents import Document, Path
from .errors import Fault, TemplateError
from .spec import BatchSpec, ChangesetTemplate, Step
from .template import ContextKind, check


def template_faults(spec: BatchSpec, document: Document | None = None) -> tuple[Fault, ...]:
    """One fault for every template that does not parse; with its line, if ``document``, the spec's source, is given."""
    faults: list[Fault] = []
    for index, step in enumerate(spec.steps):
        for path, text in _step_fields(step, index):
            faults += _faults(path, text, ContextKind.STEP, document)
    if spec.changeset_template is not None:
        for path, text in _changeset_fields(spec.changeset_template):
            faults += _faults(path, text, ContextKind.CHANGESET, document)
    return tuple(faults)


def _step_fields(step: Step, index: int) -> Iterator[tuple[Path, str]]:
    here: Path = ("steps", str(index))
    yield (*here, "run"), step.run
    yield (*here, "container"), step.container
    yield (*here, "if"), step.condition
    for entry in step.env:
        if entry.value is not None:
            yield (*here, "env", entry.name), entry.value
    for target, content in step.files.items():
        yield (*here, "files", target), content
    for name, output in step.outputs.items():
        yield (*here, "outputs", name, "value"), output.value


def _changeset_fields(template: ChangesetTemplate) -> Iterator[tuple[Path, str]]:
    here: Path = ("changesetTemplate",)
    yield (*here, "title"), template.title
    yield (*here, "body"), template.body
    yield (*here, "branch"), template.branch
    yield (*here, "commit", "message"), template.message
    if template.author is not None:
        yield (*here, "commit", "author", "name"), template.author.name
        yield (*here, "commit", "author", "email"), template.author.email


def _faults(path: Path, text: str, kind: ContextKind, document: Document | None) -> list[Fault]:
    field = ".".join(path)
    try:
        check(text, kind, field)
    except TemplateError as error:
        line = None if document is None else document.line_of(path, within=error.line)
        return [Fault(field, error.message, line)]
    return []
