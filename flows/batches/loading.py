"""The text of a batch spec becomes a BatchSpec, or all of its faults at once. Raises nothing but SpecError.

Upstream: lib/batches/batch_spec.go, ParseBatchSpec. The text stays the source: it is never written back.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from . import decoding, version_3
from .documents import Document, parse
from .errors import Fault, SpecError
from .rules import published_faults, spec_faults
from .schema import Finding, findings
from .spec import BatchSpec
from .spec_schema import BATCH_SPEC
from .templated import template_faults

_NAME_RULE = (
    "The batch change name can only contain word characters, dots and dashes. No whitespace or newlines allowed."
)
_KEY_HINTS = {
    ("transformChanges.group", "title"): "every group has the title of the changesetTemplate",
    ("steps", "timeout"): "time limits are set where the batch change is run",
}


def load_spec(text: str) -> BatchSpec:
    """The batch spec in ``text``, every template parsed by itself. Raises SpecError."""
    document = parse(text)
    spec = _checked(document)
    _raise_any(template_faults(spec, document))
    return spec


def load_data(data: Any) -> BatchSpec:
    """As ``load_spec``, for a spec that came as data (an instance sends JSON): its faults have no lines."""
    document = Document(data, {(): 0}, {})
    spec = _checked(document)
    _raise_any(template_faults(spec, document))
    return spec


def parse_spec(text: str) -> BatchSpec:
    """As ``load_spec``, without a look into the templates: what upstream calls valid. Raises SpecError."""
    return _checked(parse(text))


def validate(text: str) -> tuple[Fault, ...]:
    """All faults that ``load_spec`` finds; none if the batch spec is valid."""
    try:
        load_spec(text)
    except SpecError as error:
        return error.faults
    return ()


def _checked(document: Document) -> BatchSpec:
    """Upstream's order: the schema with the rules of `published`; the other rules once all of that holds."""
    _raise_any(version_3.refusals(document))
    _raise_any((*_schema_faults(document), *version_3.faults(document), *published_faults(document)))
    data: Any = document.data
    spec = decoding.batch_spec(data)
    _raise_any(spec_faults(spec, document))
    return spec


def _raise_any(faults: Iterable[Fault]) -> None:
    if in_order := tuple(sorted(faults, key=lambda fault: fault.line or 0)):
        raise SpecError(in_order)


def _schema_faults(document: Document) -> Iterable[Fault]:
    """The findings of the schema for people. Alternatives inside of alternatives find the same twice: said once."""
    return dict.fromkeys(_schema_fault(document, finding) for finding in findings(BATCH_SPEC, document.data))


def _schema_fault(document: Document, finding: Finding) -> Fault:
    message = finding.message
    if finding.path == ("name",) and message.startswith("Does not match pattern"):
        message = _NAME_RULE
    if hint := _hint(finding):
        message = f"{message}; {hint}"
    place = (*finding.path, finding.unknown) if finding.unknown else finding.path
    return Fault(".".join(finding.path), message, document.line_of(place))


def _hint(finding: Finding) -> str:
    """What the author can do, as far as the finding tells."""
    if finding.unknown:
        return _hint_for_key(finding)
    if finding.missing and isinstance(finding.value, dict):
        return version_3.hint(finding.value, finding.missing)
    if "string" in finding.expected and isinstance(finding.value, bool | int | float):
        return "write it in quotes"
    return ""


def _hint_for_key(finding: Finding) -> str:
    place = ".".join(key for key in finding.path if not key.isdigit())
    if hint := _KEY_HINTS.get((place, finding.unknown)):
        return hint
    candidates = [key for key in finding.known if key not in version_3.KEYS + version_3.STEP_KEYS]
    similar = get_close_matches(finding.unknown, candidates, 1)
    return f"did you mean '{similar[0]}'?" if similar else ""
