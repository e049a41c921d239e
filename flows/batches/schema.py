"""The part of JSON Schema (draft 7) that batch specs need, with the findings, words and order of Go's gojsonschema.

Of the alternatives of a oneOf or anyOf that all fail, the findings of the closest one are told, as gojsonschema does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .documents import Json, Path


@dataclass(frozen=True)
class Format:
    """A named kind of text."""

    name: str
    fits: Callable[[str], bool]


@dataclass(frozen=True)
class Schema:
    """What a value may be. Everything that is left out allows everything.

    ``types`` are JSON Schema's names; ``extra`` is what keys outside of ``properties`` may hold (True: anything,
    False: there may be none); ``unless`` is JSON Schema's `not`; ``pattern`` has to match the whole text.
    """

    types: tuple[str, ...] = ()
    properties: Mapping[str, Schema] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    extra: Schema | bool = True
    least_properties: int = 0
    most_properties: int | None = None
    items: Schema | None = None
    least_items: int = 0
    most_items: int | None = None
    unique_items: bool = False
    least_length: int = 0
    pattern: str = ""
    format: Format | None = None
    enum: tuple[str | int, ...] = ()
    one_of: tuple[Schema, ...] = ()
    any_of: tuple[Schema, ...] = ()
    unless: Schema | None = None

    @property
    def expected_type(self) -> str:
        return self.types[0] if len(self.types) == 1 else f"[{','.join(self.types)}]"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the value at ``path``, in gojsonschema's words; the rest is what they are about."""

    path: Path
    message: str
    value: Json
    expected: tuple[str, ...] = ()
    """The types that it may be of."""
    missing: str = ""
    """A key that has to be there."""
    unknown: str = ""
    """A key that may not be there."""
    known: tuple[str, ...] = ()
    """The keys that may."""


def findings(schema: Schema, value: Json) -> tuple[Finding, ...]:
    """Everything about ``value`` that the schema does not allow."""
    return tuple(_judged(schema, value, ()).findings)


@dataclass
class _Verdict:
    """What was found, and how close the value came: gojsonschema's score, which picks the alternative to tell."""

    findings: list[Finding] = field(default_factory=list)
    score: int = 0

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.score -= 2

    def merge(self, other: _Verdict) -> None:
        self.findings += other.findings
        self.score += other.score

    def pass_stage(self) -> None:
        self.score += 1


def _judged(schema: Schema, value: Json, path: Path) -> _Verdict:
    verdict = _Verdict()
    given = _type_of(value)
    if schema.types and given not in schema.types and not (given == "integer" and "number" in schema.types):
        message = f"Invalid type. Expected: {schema.expected_type}, given: {given}"
        verdict.add(Finding(path, message, value, expected=schema.types))
        return verdict
    _judge_alternatives(schema, value, path, verdict)
    if isinstance(value, dict):
        _judge_object(schema, value, path, verdict)
    elif isinstance(value, list):
        _judge_array(schema, value, path, verdict)
    elif isinstance(value, str):
        _judge_text(schema, value, path, verdict)
    elif value is not None and not isinstance(value, bool):
        verdict.pass_stage()
    _judge_enum(schema, value, path, verdict)
    verdict.pass_stage()
    return verdict


def _type_of(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _judge_alternatives(schema: Schema, value: Json, path: Path, verdict: _Verdict) -> None:
    if schema.any_of:
        alternatives = [_judged(each, value, path) for each in schema.any_of]
        if all(each.findings for each in alternatives):
            verdict.add(Finding(path, "Must validate at least one schema (anyOf)", value))
            verdict.merge(_closest(alternatives))
    if schema.one_of:
        alternatives = [_judged(each, value, path) for each in schema.one_of]
        fitting = sum(not each.findings for each in alternatives)
        if fitting != 1:
            verdict.add(Finding(path, "Must validate one and only one schema (oneOf)", value))
        if fitting == 0:
            verdict.merge(_closest(alternatives))
    if schema.unless is not None and not _judged(schema.unless, value, path).findings:
        verdict.add(Finding(path, "Must not validate the schema (not)", value))
    verdict.pass_stage()


def _closest(alternatives: list[_Verdict]) -> _Verdict:
    return max(alternatives, key=lambda verdict: verdict.score)  # the first of equals


def _judge_object(schema: Schema, value: dict[str, Json], path: Path, verdict: _Verdict) -> None:
    if len(value) < schema.least_properties:
        verdict.add(Finding(path, f"Must have at least {schema.least_properties} properties", value))
    if schema.most_properties is not None and len(value) > schema.most_properties:
        verdict.add(Finding(path, f"Must have at most {schema.most_properties} properties", value))
    for name in schema.required:
        if name in value:
            verdict.pass_stage()
        else:
            verdict.add(Finding(path, f"{name} is required", value, missing=name))
    for name, inner in value.items():
        if name in schema.properties:
            verdict.merge(_judged(schema.properties[name], inner, (*path, name)))
        elif isinstance(schema.extra, Schema):
            verdict.merge(_judged(schema.extra, inner, (*path, name)))
        elif not schema.extra:
            message = f"Additional property {name} is not allowed"
            verdict.add(Finding(path, message, value, unknown=name, known=tuple(schema.properties)))
    verdict.pass_stage()


def _judge_array(schema: Schema, value: list[Json], path: Path, verdict: _Verdict) -> None:
    if schema.items is not None:
        for index, inner in enumerate(value):
            verdict.merge(_judged(schema.items, inner, (*path, str(index))))
    if len(value) < schema.least_items:
        verdict.add(Finding(path, f"Array must have at least {schema.least_items} items", value))
    if schema.most_items is not None and len(value) > schema.most_items:
        verdict.add(Finding(path, f"Array must have at most {schema.most_items} items", value))
    if schema.unique_items:
        last: dict[str, int] = {}
        for index, inner in enumerate(value):
            if (earlier := last.get(_identity(inner))) is not None:
                verdict.add(Finding(path, f"array items[{earlier},{index}] must be unique", value))
            last[_identity(inner)] = index
    verdict.pass_stage()


def _judge_text(schema: Schema, value: str, path: Path, verdict: _Verdict) -> None:
    if len(value) < schema.least_length:
        verdict.add(Finding(path, f"String length must be greater than or equal to {schema.least_length}", value))
    # Go's $ matches only at the very end, Python's also before a last newline.
    if schema.pattern and not re.fullmatch(schema.pattern.removeprefix("^").removesuffix("$"), value, re.ASCII):
        verdict.add(Finding(path, f"Does not match pattern '{schema.pattern}'", value))
    if schema.format is not None and not schema.format.fits(value):
        verdict.add(Finding(path, f"Does not match format '{schema.format.name}'", value))
    verdict.pass_stage()


def _judge_enum(schema: Schema, value: Json, path: Path, verdict: _Verdict) -> None:
    if schema.enum and _identity(value) not in {_identity(each) for each in schema.enum}:
        allowed = ", ".join(_identity(each) for each in schema.enum)
        verdict.add(Finding(path, f"{'.'.join(path) or '(root)'} must be one of the following: {allowed}", value))
    verdict.pass_stage()


def _identity(value: Json) -> str:
    """The value as compact JSON: 1 and 1.0 are the same, 1 and "1" are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
