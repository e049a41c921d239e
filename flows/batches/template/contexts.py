"""What a template can read: the state of a step, and the contexts of steps and of changeset templates.

Upstream: lib/batches/template/templating.go, ToFuncMap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .functions import ALWAYS, BUILT_IN, OWN, Function, constant
from .text import to_bytes
from .values import SearchResultPaths, StringList, Struct

Text = str | Callable[[], str]
"""A text, or where to read it when a template asks for it. Bytes that are no UTF-8 are surrogate escapes."""

_CHANGES = frozenset({"modified_files", "added_files", "deleted_files", "renamed_files"})
_COMMON: Mapping[str, frozenset[str]] = {
    "repository": frozenset({"name", "branch", "search_result_paths"}),
    "batch_change": frozenset({"name", "description"}),
    "outputs": frozenset(),
}
STEP_VARIABLES: Mapping[str, frozenset[str]] = {
    **_COMMON,
    "previous_step": _CHANGES | {"stdout", "stderr"},
    "step": _CHANGES | {"stdout", "stderr"},
    "steps": _CHANGES | {"stdout", "stderr", "path"},
}
"""The names that step templates can read, and the fields of each (none: the author's own)."""
CHANGESET_VARIABLES: Mapping[str, frozenset[str]] = {
    **_COMMON,
    "steps": _CHANGES | {"path"},
    "batch_change_link": frozenset(),
}
"""The same for the fields of the changeset template."""


class ContextKind(Enum):
    """Where a template stands: that decides which names exist."""

    STEP = "step"
    CHANGESET = "changeset"

    @property
    def variables(self) -> Mapping[str, frozenset[str]]:
        """The names of this context and their fields."""
        return STEP_VARIABLES if self is ContextKind.STEP else CHANGESET_VARIABLES

    @property
    def functions(self) -> frozenset[str]:
        """Every name that may be called."""
        return ALWAYS | self.variables.keys()


@dataclass(frozen=True)
class StepState:
    """What a step left behind. The file lists are cumulative: they compare with the base commit."""

    modified: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    stdout: Text = ""
    stderr: Text = ""


@dataclass(frozen=True)
class _Context:
    batch_change_name: str = ""
    batch_change_description: str = ""
    repository_name: str = ""
    repository_branch: str = ""
    """Shown short, without refs/heads/."""
    search_result_paths: tuple[str, ...] = ()
    """Shown sorted."""
    path: str = ""
    """The workspace's folder, "" for the root, without a slash in front."""
    outputs: Mapping[str, object] = field(default_factory=dict)
    """By name; values are str, bool, int, float, None, lists and mappings of them. Never copied."""
    steps: StepState = StepState()
    """The changes by all steps so far."""


@dataclass(frozen=True)
class StepContext(_Context):
    """What the templates of a step can read. ``step`` is filled only while its outputs render."""

    previous_step: StepState = StepState()
    step: StepState = StepState()


@dataclass(frozen=True)
class ChangesetContext(_Context):
    """What the templates of a changeset template can read."""


@dataclass(frozen=True)
class Bindings:
    """A context as the evaluation takes it: every function, and the struct that dot is."""

    functions: Mapping[str, Function]
    dot: Struct


def bind_step(context: StepContext) -> Bindings:
    """The bindings of a step's templates."""
    previous, current = _state(context.previous_step), _state(context.step)
    variables = {
        **_common_variables(context),
        "previous_step": previous,
        "step": current,
        "steps": _Lazy({**_changes(context.steps), "stdout": "", "stderr": "", "path": context.path}),
    }
    dot = Struct(
        "template.StepContext",
        {
            "BatchChange": _batch_change(context),
            "Outputs": context.outputs,
            "Step": _step_result(context.step, current),
            "Steps": _steps(context),
            "PreviousStep": _step_result(context.previous_step, previous),
            "Repository": _repository(context),
        },
        pointer=True,
    )
    return Bindings(_functions(variables), dot)


def bind_changeset(context: ChangesetContext) -> Bindings:
    """The bindings of a changeset template's fields. `batch_change_link` stays for whoever publishes."""
    variables = {
        **_common_variables(context),
        "steps": _Lazy({**_changes(context.steps), "path": context.path}),
        "batch_change_link": "${{ batch_change_link }}",
    }
    dot = Struct(
        "template.ChangesetTemplateContext",
        {
            "BatchChangeAttributes": _batch_change(context),
            "Steps": _steps(context),
            "Outputs": context.outputs,
            "Repository": _repository(context),
        },
        pointer=True,
    )
    return Bindings(_functions(variables), dot)


class _Lazy(Mapping[str, object]):
    """A mapping whose callable values are called when they are first asked for."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> object:
        value = self._values[key]
        if callable(value):
            value = self._values[key] = value()
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _functions(variables: Mapping[str, object]) -> dict[str, Function]:
    return {**BUILT_IN, **OWN, **{name: constant(value) for name, value in variables.items()}}


def _common_variables(context: _Context) -> dict[str, object]:
    return {
        "repository": _Lazy(
            {
                "name": context.repository_name,
                "branch": _branch(context),
                "search_result_paths": lambda: _search_result_paths(context),
            }
        ),
        "batch_change": {"name": context.batch_change_name, "description": context.batch_change_description},
        "outputs": context.outputs,
    }


def _state(state: StepState) -> _Lazy:
    return _Lazy({**_changes(state), "stdout": state.stdout, "stderr": state.stderr})


def _changes(state: StepState) -> dict[str, object]:
    return {
        "modified_files": lambda: StringList(state.modified),
        "added_files": lambda: StringList(state.added),
        "deleted_files": lambda: StringList(state.deleted),
        "renamed_files": lambda: StringList(state.renamed),
    }


def _branch(context: _Context) -> str:
    return context.repository_branch.removeprefix("refs/heads/")


def _search_result_paths(context: _Context) -> SearchResultPaths:
    return SearchResultPaths(sorted(context.search_result_paths, key=to_bytes))


def _batch_change(context: _Context) -> Struct:
    return Struct(
        "template.BatchChangeAttributes",
        {"Name": context.batch_change_name, "Description": context.batch_change_description},
    )


def _repository(context: _Context) -> Struct:
    fields = {
        "Name": context.repository_name,
        "Branch": _branch(context),
        "FileMatches": lambda: StringList(context.search_result_paths),
    }
    return Struct("template.Repository", _Lazy(fields), {"SearchResultPaths": lambda: _search_result_paths(context)})


def _steps(context: _Context) -> Struct:
    return Struct("template.StepsContext", {"Changes": _git_changes(context.steps), "Path": context.path})


def _step_result(state: StepState, texts: _Lazy) -> Struct:
    fields = {
        "ChangedFiles": _git_changes(state),
        "Stdout": lambda: texts["stdout"],
        "Stderr": lambda: texts["stderr"],
    }
    return Struct("execution.AfterStepResult", _Lazy(fields))


def _git_changes(state: StepState) -> Struct:
    return Struct(
        "git.Changes",
        _Lazy(
            {
                "Modified": lambda: StringList(state.modified),
                "Added": lambda: StringList(state.added),
                "Deleted": lambda: StringList(state.deleted),
                "Renamed": lambda: StringList(state.renamed),
            }
        ),
    )
