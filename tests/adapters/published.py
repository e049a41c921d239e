"""published: what `changesetTemplate.published` (YAML) says for a repository and a branch."""

import json
from pathlib import Path
from typing import Any

from flows.batches import documents
from flows.batches.changesets import evaluate_published
from flows.batches.errors import SpecError
from flows.batches.loading import parse_spec
from flows.batches.spec import Published, PublishedRule


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    assert set(input) <= {"published", "repository", "branch"}, f"unknown input {sorted(input)}"
    (asked,) = expect
    if asked == "error":
        assert expect["error"] in _refusal(input["published"])
    elif asked == "value":
        value = evaluate_published(_published(input["published"]), input["repository"], input["branch"])
        assert json.dumps(value) == json.dumps(expect["value"])
    else:
        raise AssertionError(f"unknown expectation {asked}")


def _published(text: str) -> Published | tuple[PublishedRule, ...] | None:
    """Read as a part of a batch spec."""
    published = documents.parse(text).data
    template = {"title": "t", "branch": "b", "commit": {"message": "m"}, "published": published}
    loaded = parse_spec(json.dumps({"name": "n", "changesetTemplate": template})).changeset_template
    assert loaded is not None
    return loaded.published


def _refusal(text: str) -> str:
    try:
        return f"no error, but {_published(text)}"
    except SpecError as error:
        return "\n".join(fault.message for fault in error.faults)
