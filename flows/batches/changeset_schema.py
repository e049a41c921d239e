"""What an instance takes as a changeset spec, as a schema. Upstream: schema/changeset_spec.schema.json."""

from __future__ import annotations

from .addresses import is_address
from .documents import Json
from .errors import Fault
from .schema import Format, Schema, findings

_TEXT = Schema(types=("string",))
_NUMBER = Schema(types=("integer",))
_REF = Schema(types=("string",), pattern=r"^refs\/heads\/\S+$")

_EXISTING = Schema(
    types=("object",),
    properties={"version": _NUMBER, "baseRepository": _TEXT, "externalID": _TEXT},
    required=("baseRepository", "externalID"),
    extra=False,
)

_COMMIT = Schema(
    types=("object",),
    properties={
        "version": _NUMBER,
        "message": _TEXT,
        "diff": _TEXT,
        "authorName": _TEXT,
        "authorEmail": Schema(types=("string",), format=Format("email", is_address)),
    },
    required=("message", "diff", "authorName", "authorEmail"),
    extra=False,
)

_PUBLISHED = Schema(
    one_of=(Schema(types=("boolean",)), Schema(types=("string",), pattern="^draft$"), Schema(types=("null",)))
)

_BRANCH = Schema(
    types=("object",),
    properties={
        "version": _NUMBER,
        "baseRepository": _TEXT,
        "baseRef": _REF,
        "baseRev": _TEXT,
        "headRepository": _TEXT,
        "headRef": _REF,
        "title": _TEXT,
        "body": _TEXT,
        "commits": Schema(types=("array",), items=_COMMIT, least_items=1, most_items=1),
        "published": _PUBLISHED,
        "fork": Schema(types=("boolean",)),
    },
    required=("baseRepository", "baseRef", "baseRev", "headRepository", "headRef", "title", "body", "commits"),
    extra=False,
)

_CHANGESET_SPEC = Schema(types=("object",), one_of=(_EXISTING, _BRANCH))


def faults(changeset_spec: Json) -> tuple[Fault, ...]:
    """Everything for which an instance would refuse a changeset spec (its JSON); none if it takes it."""
    found = tuple(Fault(".".join(each.path), each.message) for each in findings(_CHANGESET_SPEC, changeset_spec))
    if found or not isinstance(changeset_spec, dict):
        return found
    base, head = changeset_spec.get("baseRepository"), changeset_spec.get("headRepository")
    if base and head and base != head:
        return (Fault("headRepository", "headRepository does not match baseRepository"),)
    return ()
