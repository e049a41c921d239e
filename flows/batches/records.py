"""Documents that we store as JSON: frozen, versioned, and readable for as long as anybody keeps them.

A record's ``schema_version`` says how to read it. A field more, or another meaning, is a new version with a reader
of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from .errors import PermanentError

Time = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]
"""A point in time, kept in UTC."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 in hex."""

R = TypeVar("R", bound="Record")
Reader = Callable[[dict[str, Any]], R]
"""Turns the JSON object of one version into today's record."""


class RecordError(PermanentError):
    """A stored record cannot be read: it is damaged, or newer than this program."""


class Part(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(Part):
    """A document of its own. Subclasses add ``schema_version``."""

    def encode(self) -> bytes:
        """The record as JSON, in ASCII: so that file names that are not UTF-8 (surrogateescape) survive too."""
        # In one line: with indent, Python's encoder takes ten times as long.
        return json.dumps(self.model_dump(mode="json"), allow_nan=False).encode("ascii")


class Blob(Part):
    """Names bytes in the store."""

    digest: Digest
    size_bytes: int


def now() -> datetime:
    """The time for a record."""
    return datetime.now(UTC)


def explain(error: ValidationError) -> str:
    """What pydantic found, in one line and without the values: they may be long, or not for everybody."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)


def read(raw: bytes, noun: str, readers: Mapping[int, Reader[R]]) -> R:
    """Read a stored record with the reader of its ``schema_version``. Raises RecordError, which says ``noun``."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the {noun} is not JSON ({error}); delete it to have it made again") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int:  # True is an int, too
        raise RecordError(f"the {noun} has no schema_version; delete it to have it made again")
    if version not in readers:
        known = ", ".join(map(str, sorted(readers)))
        raise RecordError(f"the {noun} has schema_version {version}, this program reads {known}; upgrade it")
    try:
        return readers[version](content)
    except ValidationError as error:
        raise RecordError(f"the {noun} is damaged ({explain(error)}); delete it to have it made again") from error
