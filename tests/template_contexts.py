"""The contexts that template vectors name (template_context.json), as our own."""

import json
from pathlib import Path
from typing import Any

from flows.batches.template import ChangesetContext, StepContext, StepState


def step_context(vectors: Path, name: str) -> StepContext:
    """A named context for the templates of a step."""
    raw = _named(vectors, name)
    return StepContext(**_common(raw), previous_step=_state(raw, "previous_step"), step=_state(raw, "step"))


def changeset_context(vectors: Path, name: str) -> ChangesetContext:
    """A named context for the templates of a changeset template."""
    return ChangesetContext(**_common(_named(vectors, name)))


def as_json_output(value: Any) -> Any:
    """A value as an output of format json holds it: every number is a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list):
        return [as_json_output(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json_output(item) for key, item in value.items()}
    return value


def _named(vectors: Path, name: str) -> dict[str, Any]:
    contexts: dict[str, dict[str, Any]] = json.loads((vectors / "template_context.json").read_text())
    return contexts[name]


def _common(raw: dict[str, Any]) -> dict[str, Any]:
    repository, batch_change = raw.get("repository", {}), raw.get("batch_change", {})
    return {
        "batch_change_name": batch_change.get("name", ""),
        "batch_change_description": batch_change.get("description", ""),
        "repository_name": repository.get("name", ""),
        "repository_branch": repository.get("branch", ""),
        "search_result_paths": tuple(repository.get("file_matches", ())),
        "path": raw.get("path", ""),
        "outputs": as_json_output(raw.get("outputs", {})),
        "steps": _state(raw, "steps"),
    }


def _state(raw: dict[str, Any], key: str) -> StepState:
    state = raw.get(key, {})
    lists = {name: tuple(state.get(f"{name}_files", ())) for name in ("modified", "added", "deleted", "renamed")}
    return StepState(**lists, stdout=state.get("stdout", ""), stderr=state.get("stderr", ""))
