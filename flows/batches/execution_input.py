"""What an instance asks an executor to run: upstream's WorkspacesExecutionInput (`input.json`), read and checked.

Upstream: lib/batches/workspaces_execution_input.go. One workspace, with the steps as the spec has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import gojson
from .after_step_result import AfterStepResult
from .errors import PermanentError
from .loading import load_data
from .records import explain
from .spec import BatchSpec
from .upstream_key import MountMetadata, UpstreamRepository, UpstreamTask, upstream_key
from .workspaces import Workspace

_ANY_TEMPLATE = {"title": "-", "branch": "-", "commit": {"message": "-"}}
"""An input has no changesetTemplate, and a spec with steps needs one."""


class InputError(PermanentError):
    """The input cannot be understood. The message names what is wrong, and shows no values."""


class _Part(BaseModel):
    # As Go reads: unknown keys are dropped, null is a missing value.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Attributes(_Part):
    Name: str
    Description: str = ""


class _Repository(_Part):
    id: str = ""
    name: str


class _Target(_Part):
    oid: str = ""


class _Branch(_Part):
    name: str = ""
    target: _Target = _Target()


class _Input(_Part):
    BatchChangeAttributes: _Attributes
    repository: _Repository
    branch: _Branch = _Branch()
    path: str = ""
    onlyFetchWorkspace: bool = False
    steps: list[dict[str, Any]] = Field(default_factory=list)
    searchResultPaths: list[str] = Field(default_factory=list)
    cachedStepResultFound: bool = False
    cachedStepResult: dict[str, Any] = Field(default_factory=dict)
    skippedSteps: dict[int, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class ExecutionInput:
    """One workspace to run. ``steps`` are the spec's steps as they came: the keys of their results depend on that."""

    spec: BatchSpec
    steps: Sequence[Mapping[str, Any]]
    repository_id: str
    base_ref: str
    """As the instance spells it, with or without refs/heads/."""
    base_rev: str
    """The commit, as the keys have it."""
    workspace: Workspace
    """With the steps that the instance knows to be skipped."""
    cached: AfterStepResult | None = None
    """The result to go on from."""

    @property
    def first_step(self) -> int:
        """The index of the first step without a result; the number of steps if there is none."""
        return 0 if self.cached is None else self.cached.step_index + 1

    def key(self, index: int, outer: Sequence[str], mounts: Sequence[MountMetadata] = ()) -> str:
        """Upstream's cache key of the result after step ``index``, from 0. ``outer`` holds `NAME=VALUE`.

        ``mounts``: of the steps up to this one. Raises UpstreamKeyError.
        """
        task = UpstreamTask(
            repository=UpstreamRepository(
                id=self.repository_id,
                name=self.workspace.repository,
                base_ref=self.base_ref,
                base_rev=self.base_rev,
                file_matches=self.workspace.search_result_paths,
            ),
            path=self.workspace.path,
            only_fetch_workspace=self.workspace.only_fetch_workspace,
            steps=self.steps,
            batch_change_name=self.spec.name,
            batch_change_description=self.spec.description,
            outer=outer,
            mounts=mounts,
        )
        return upstream_key(task, index)


def read_execution_input(raw: bytes) -> ExecutionInput:
    """The input of this JSON text. Raises InputError, SpecError (steps that this project does not run), RecordError."""
    given = _decoded(raw)
    if not given.steps:
        raise InputError("the input has no steps: there is nothing to run")
    attributes, branch = given.BatchChangeAttributes, given.branch
    spec = load_data(
        {
            "name": attributes.Name,
            "description": attributes.Description,
            "steps": given.steps,
            "changesetTemplate": _ANY_TEMPLATE,
        }
    )
    return ExecutionInput(
        spec=spec,
        steps=tuple(given.steps),
        repository_id=given.repository.id,
        base_ref=branch.name,
        base_rev=branch.target.oid,
        workspace=Workspace(
            repository=given.repository.name,
            branch=branch.name.removeprefix("refs/heads/"),
            commit=branch.target.oid,
            path=given.path.strip("/"),
            only_fetch_workspace=given.onlyFetchWorkspace,
            search_result_paths=tuple(given.searchResultPaths),
            skipped_steps=tuple(sorted(given.skippedSteps)),
        ),
        cached=_cached(given),
    )


def _decoded(raw: bytes) -> _Input:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the input is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError("the input is no JSON object")
    try:
        return _Input.model_validate({key: value for key, value in content.items() if value is not None})
    except ValidationError as error:
        raise InputError(f"the input is malformed: {explain(error)}") from error


def _cached(given: _Input) -> AfterStepResult | None:
    if not given.cachedStepResultFound:
        return None
    found = AfterStepResult.decode(given.cachedStepResult)
    if not 0 <= found.step_index < len(given.steps):
        raise InputError(f"the input's cached result is of step {found.step_index + 1} of {len(given.steps)} steps")
    return found.model_copy(update={"outputs": gojson.as_read(found.outputs or {})})
