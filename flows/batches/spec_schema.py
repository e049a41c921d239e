"""The batch spec as a schema, versions 1 and 2. Upstream: lib/batches/schema, without what only version 3 knows.

The keys of version 3 pass here: ``version_3`` says what they are instead of calling them unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import version_3
from .addresses import is_address
from .schema import Format, Schema


def _is_address_or_template(text: str) -> bool:
    # What a template makes of it is checked when it is rendered.
    return "${{" in text or is_address(text)


def _closed(properties: Mapping[str, Schema], required: tuple[str, ...] = (), *, or_null: bool = False) -> Schema:
    types = ("object", "null") if or_null else ("object",)
    return Schema(types=types, properties=properties, required=required, extra=False)


def _map_of(inner: Schema) -> Schema:
    return Schema(types=("object", "null"), extra=inner)


def _list_of(inner: Schema, *, unique_items: bool = False) -> Schema:
    return Schema(types=("array", "null"), items=inner, unique_items=unique_items)


_TEXT = Schema(types=("string",))
_SOME_TEXT = Schema(types=("string",), least_length=1)
_FLAG = Schema(types=("boolean",))
_NULL = Schema(types=("null",))
_ANYTHING = Schema()

_ON_QUERY = _closed({"repositoriesMatchingQuery": _TEXT}, ("repositoriesMatchingQuery",))
_ON_REPOSITORY = Schema(
    types=("object",),
    properties={"repository": _TEXT, "branch": _TEXT, "branches": Schema(types=("array",), items=_TEXT)},
    required=("repository",),
    extra=False,
    # Either `branch` or `branches`, or none: upstream's way to say it, kept for its findings.
    any_of=(
        Schema(one_of=(Schema(required=("branch",)), Schema(required=("branches",)))),
        Schema(unless=Schema(required=("branch", "branches"))),
    ),
)

_WORKSPACE = _closed({"rootAtLocationOf": _TEXT, "in": _TEXT, "onlyFetchWorkspace": _FLAG}, ("rootAtLocationOf",))

_VARIABLE = Schema(types=("object",), extra=_TEXT, least_properties=1, most_properties=1)
_ENVIRONMENT = Schema(
    one_of=(
        _NULL,
        Schema(types=("object",), extra=_TEXT),
        Schema(types=("array",), items=Schema(one_of=(_TEXT, _VARIABLE))),
    )
)
_OUTPUT = Schema(
    types=("object",),
    properties={"value": _TEXT, "format": Schema(types=("string",), enum=("json", "yaml", "text"))},
    required=("value",),
)
_MOUNT = _closed({"path": _TEXT, "mountpoint": _TEXT}, ("path", "mountpoint"))
_STEP = _closed(
    {
        "run": _TEXT,
        "container": _TEXT,
        "image": _TEXT,
        "outputs": _map_of(_OUTPUT),
        "env": _ENVIRONMENT,
        "files": _map_of(_TEXT),
        "if": Schema(one_of=(_FLAG, _TEXT, _NULL)),
        "mount": _list_of(_MOUNT),
        **dict.fromkeys(version_3.STEP_KEYS, _ANYTHING),
    },
    ("run", "container"),
)

_GROUP = _closed({"directory": _SOME_TEXT, "branch": _SOME_TEXT, "repository": _TEXT}, ("directory", "branch"))
_EXTERNAL_ID = Schema(one_of=(_TEXT, Schema(types=("integer",))))
_IMPORT = _closed(
    {"repository": _TEXT, "externalIDs": _list_of(_EXTERNAL_ID, unique_items=True)}, ("repository", "externalIDs")
)

_EMAIL = Format("email", _is_address_or_template)
_AUTHOR = _closed({"name": _TEXT, "email": Schema(types=("string",), format=_EMAIL)}, ("name", "email"))
_COMMIT = _closed({"message": _TEXT, "author": _AUTHOR}, ("message",))
_PUBLISHED_VALUE = Schema(one_of=(_FLAG, Schema(types=("string",), pattern="^draft$")))
_PUBLISHED_RULE = Schema(types=("object",), extra=_PUBLISHED_VALUE, least_properties=1, most_properties=1)
_PUBLISHED = Schema(one_of=(_NULL, _PUBLISHED_VALUE, Schema(types=("array",), items=_PUBLISHED_RULE)))
_CHANGESET_TEMPLATE = _closed(
    {"title": _TEXT, "body": _TEXT, "branch": _TEXT, "fork": _FLAG, "commit": _COMMIT, "published": _PUBLISHED},
    ("title", "branch", "commit"),
)

BATCH_SPEC = _closed(
    {
        "version": Schema(types=("number",), enum=(1, 2, 3)),
        "name": Schema(types=("string",), pattern=r"^[\w.-]+$"),
        "description": _TEXT,
        "on": _list_of(Schema(one_of=(_ON_QUERY, _ON_REPOSITORY))),
        "workspaces": _list_of(_WORKSPACE),
        "steps": _list_of(_STEP),
        "transformChanges": _closed({"group": _list_of(_GROUP)}, or_null=True),
        "importChangesets": _list_of(_IMPORT),
        "changesetTemplate": _CHANGESET_TEMPLATE,
        **dict.fromkeys(version_3.KEYS, _ANYTHING),
    },
    ("name",),
)
