"""What a step's `env` comes to: static values, and values taken from outside by name.

Nothing is rendered here: only text of the spec is a template, never a value from outside. Upstream: lib/batches/env.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .errors import PermanentError
from .spec import EnvEntry


class OuterEntryError(PermanentError):
    """An entry of the outer environment is no ``NAME=VALUE``."""

    def __init__(self, entry: str) -> None:
        super().__init__(entry)
        self.entry = entry

    def __str__(self) -> str:
        return f'unable to parse environment variable "{self.entry}"; write it as NAME=VALUE'


def parse_outer(entries: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping: split at the first `=`, later ones win. Raises OuterEntryError."""
    outer: dict[str, str] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if not separator:
            raise OuterEntryError(entry)
        outer[name] = value
    return outer


def resolve(entries: Iterable[EnvEntry], outer: Mapping[str, str]) -> dict[str, str]:
    """Every variable with its value; later duplicates win. A name that ``outer`` does not know is empty, yet there."""
    return {entry.name: outer.get(entry.name, "") if entry.value is None else entry.value for entry in entries}


def outer_names(entries: Iterable[EnvEntry]) -> tuple[str, ...]:
    """The names whose values come from outside: each once, in order."""
    return tuple(dict.fromkeys(entry.name for entry in entries if entry.value is None))


def is_static(entries: Iterable[EnvEntry]) -> bool:
    """Whether no value comes from outside."""
    return all(entry.value is not None for entry in entries)


def canonical(entries: Iterable[EnvEntry]) -> dict[str, str] | list[str | dict[str, str]]:
    """The form that upstream writes into JSON: an object if all values are static, else the list as it was."""
    entries = tuple(entries)
    if is_static(entries):
        return {entry.name: entry.value for entry in entries if entry.value is not None}
    return [entry.name if entry.value is None else {entry.name: entry.value} for entry in entries]
