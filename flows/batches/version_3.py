"""What only batch spec version 3 knows. This project runs versions 1 and 2: one clear sentence refuses the rest."""

from __future__ import annotations

from collections.abc import Iterator

from .documents import Document, Json, Path
from .errors import Fault

KEYS = ("changesetHooks",)
STEP_KEYS = ("codingAgent", "buildImage")

_REFUSAL = "batch spec version 3, which is not supported: use version 1 or 2, whose steps have `run` and `container`"
_STANDS_FOR = {"codingAgent": "run", "image": "container", "buildImage": "container"}


def refusals(document: Document) -> Iterator[Fault]:
    """The one fault of a spec of version 3: it is not judged by the rules of the others."""
    if isinstance(document.data, dict) and document.data.get("version") == 3:
        yield Fault("version", f"this is {_REFUSAL}", document.line_of(("version",)))


def faults(document: Document) -> Iterator[Fault]:
    """Every use of what version 3 brought in a spec of version 1 or 2."""
    if isinstance(document.data, dict):
        yield from _hooks(document.data, document)
        yield from _steps(document.data.get("steps"), document)


def hint(step: dict[str, Json], missing: str) -> str:
    """Why ``missing`` may be missing in a step: what version 3 has in its place is there."""
    for key, replaced in _STANDS_FOR.items():
        if replaced == missing and key in step:
            return f"`{key}` belongs to {_REFUSAL}"
    return ""


def _hooks(data: dict[str, Json], document: Document) -> Iterator[Fault]:
    for key in KEYS:
        if key in data:
            told = f"version does not match: 3; `{key}` belongs to {_REFUSAL}"
            yield Fault("version", told, document.line_of((key,)))


def _steps(steps: Json, document: Document) -> Iterator[Fault]:
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        for key in STEP_KEYS:
            # Without its counterpart the step also misses something: that fault has the sentence as its hint.
            if isinstance(step, dict) and key in step and _STANDS_FOR[key] in step:
                path: Path = ("steps", str(index))
                yield Fault(".".join(path), f"`{key}` belongs to {_REFUSAL}", document.line_of((*path, key)))
