"""One run of a batch change, without Prefect: what it runs on, and the records that it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from blocks.store import StoreTrouble

from .batches.changesets import ChangesetSpec, check_duplicates, import_specs
from .batches.errors import ChangesetError, ResolutionError
from .batches.plans import PlannedWorkspace, RunPlan, shards_of
from .batches.records import now
from .batches.results import Failure, RunManifest, StepCounts, WorkspaceResult
from .batches.spec import BatchSpec
from .batches.workspaces import Workspace, titles
from .failures import failure_of_error
from .resolution import Resolution, resolve
from .shares import Options, Share, Surroundings, state_of

NAME_CHARACTERS = 60
"""Of a batch change's name, in the ids of its runs."""

NO_REPOSITORY = "/"
"""A glob that no name of a repository matches."""

_PART = 64
"""Workspaces whose changeset specs are in memory at a time, while they are written."""

_READERS = 8


class BatchRun(Share):
    """One run. Its workspaces are found once: every attempt at it goes on with them, from what the ledger has.

    They run here, or as shards elsewhere (``shards`` of ``begin``); then ``gather`` takes in what became of them.
    """

    def __init__(self, run_id: str, text: str, spec: BatchSpec, options: Options, surroundings: Surroundings) -> None:
        super().__init__(run_id, spec, options, surroundings)
        self.resolution = Resolution()
        self._text = text
        self._plan: RunPlan | None = None
        self._begun = False
        self._manifest = RunManifest(
            run_id=run_id,
            name=spec.name,
            spec_digest=hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
            started_at=now(),
            state="running",
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is not None and self._begun:
                self._note_the_end(error)
        finally:
            super().__exit__(kind, error, at)

    def find_workspaces(self) -> Resolution:
        """Resolve `on` and `workspaces`, unless an earlier attempt has.

        Raises ResolutionError, also when there is nothing to do, git's errors and the store's.
        """
        plan = self.ledger.plan()
        if plan is not None and plan.spec_digest == self._manifest.spec_digest:
            self._take_up(plan)
            if plan.shards == 1:
                self._fetch_what_is_left()
        else:
            self._find()
        return self.resolution

    @property
    def shards(self) -> int:
        """In how many shards the workspaces run; 1: all of them here."""
        assert self._plan is not None, "begin() comes first"
        return self._plan.shards

    def begin(self, *, shards: int = 1) -> None:
        """Note that the run begins, and prepare what the workspaces share; if that is not possible, keep nothing.

        ``shards``: unless an earlier attempt has made its own. Raises MountError, RuntimeTrouble, the store's errors.
        """
        known, self._plan = self._plan, self._plan or self._new_plan(shards)
        if self._plan.shards == 1:
            self._setting = self._prepare(self.run_id)
        # Some workspaces alone speak for no repository: publishing must not miss the changesets of the others.
        only = NO_REPOSITORY if self.options.only_workspaces else self.options.only
        self.ledger.begin(self._manifest, self._text, only=only, needs_approval=self.options.approval)
        if known is None:
            self.ledger.keep_plan(self._plan, shards_of(tuple(self._planned.values()), self._plan.shards))
        self._begun = True

    def shard_of(self, shard: int) -> list[int]:
        """The numbers of a shard's workspaces."""
        (found,) = (each for each in shards_of(tuple(self._planned.values()), self.shards) if each.number == shard)
        return [each.number for each in found.workspaces]

    def gather(self, numbers: Iterable[int]) -> dict[int, WorkspaceResult]:
        """Take in what became of workspaces that ran elsewhere. Raises the store's errors."""
        found = self.ledger.results(numbers)
        self.results.update(found)
        return found

    def finish(self) -> RunManifest:
        """Number the changeset specs, keep them and the manifest. Raises the store's errors.

        Only some of the specs are in memory at a time. If they cannot stand together, none counts.
        """
        results: list[WorkspaceResult] = []
        heads: list[ChangesetSpec] = []
        for some in _in_parts(sorted(self.results)):
            built = self._changesets_of(some)
            self.ledger.keep_changesets([spec for own in built for spec in own], first=len(heads) + 1)
            for number, own in zip(some, built, strict=True):
                numbers = tuple(range(len(heads) + 1, len(heads) + 1 + len(own)))
                results.append(self.results[number].model_copy(update={"changeset_specs": numbers}))
                heads.extend(_without_diffs(own))
        count, problem = len(heads), None
        try:
            check_duplicates(heads)
            imported = import_specs(self.spec.import_changesets, self.resolution.imports)
            self.ledger.keep_changesets(imported, first=count + 1)
            count += len(imported)
        except ChangesetError as error:
            results = [result.model_copy(update={"changeset_specs": ()}) for result in results]
            count, problem = 0, Failure(reason="changesets", message=str(error))
        manifest = self._ended(results).model_copy(
            update={
                "state": "failed" if problem else state_of(results, skip_errors=self.options.skip_errors),
                "failure": problem,
                "changeset_specs": count,
            }
        )
        self.ledger.keep_manifest(manifest)
        return manifest

    def _find(self) -> None:
        self.resolution = resolve(
            self.spec,
            self._surroundings.repositories,
            self._surroundings.home / "mirrors",
            text=self._text,
            allow_ignored=self.options.allow_ignored,
            allow_unsupported=self.options.allow_unsupported,
            only=self.options.only,
            jobs=self.options.workspaces_at_once,
            cancel=self.cancel,
        )
        if not (self.resolution.workspaces or self.spec.import_changesets):
            raise ResolutionError((self._why_nothing_is_found(),))
        self._mirrors = self.resolution.mirrors
        named = self._wanted(dict(zip(titles(self.resolution.workspaces), self.resolution.workspaces, strict=True)))
        self.resolution = replace(self.resolution, workspaces=tuple(named.values()))
        self._planned = {
            number: PlannedWorkspace(number=number, title=title, workspace=workspace)
            for number, (title, workspace) in enumerate(named.items(), 1)
        }

    def _wanted(self, named: dict[str, Workspace]) -> dict[str, Workspace]:
        """The workspaces that ``only_workspaces`` asks for, of all by their titles."""
        asked = self.options.only_workspaces
        if unknown := [title for title in asked if title not in named]:
            raise ResolutionError(
                tuple(f"there is no workspace {title!r}; `batchwright resolve` lists them" for title in unknown)
            )
        return {title: workspace for title, workspace in named.items() if not asked or title in asked}

    def _new_plan(self, shards: int) -> RunPlan:
        return RunPlan(
            spec_digest=self._manifest.spec_digest,
            found_at=self._manifest.started_at,
            workspaces=len(self._planned),
            shards=shards,
            imports=dict(self.resolution.imports),
        )

    def _take_up(self, plan: RunPlan) -> None:
        """Go on with what an earlier attempt has found."""
        self._take(each for number in range(plan.shards) for each in self.ledger.shard(number + 1).workspaces)
        self._plan = plan
        self._manifest = self._manifest.model_copy(update={"started_at": plan.found_at})
        self.resolution = Resolution(
            workspaces=tuple(each.workspace for each in self._planned.values()), imports=plan.imports
        )

    def _why_nothing_is_found(self) -> str:
        left_out = [
            f"{name} is left out: {reason}" for name, reason in (*self.resolution.ignored, *self.resolution.skipped)
        ]
        if self.options.only != Options().only:
            left_out.append(f"only {self.options.only!r} is asked for")
        return "\n".join(
            (
                "the batch spec matches nothing that it could run on; check its `on`, `workspaces` and `if`",
                *(f"  * {reason}" for reason in left_out),
            )
        )

    def _note_the_end(self, error: BaseException) -> None:
        """The manifest of a run that was stopped. The store itself may be what failed: then it stays as it was."""
        by_us = isinstance(error, Exception)
        failure = failure_of_error(error) if by_us else Failure(reason="cancelled", message="The run was stopped.")
        stopped = self._ended([self.results[number] for number in sorted(self.results)]).model_copy(
            update={"state": "failed" if by_us else "cancelled", "failure": failure}
        )
        with suppress(StoreTrouble):
            self.ledger.keep_manifest(stopped)

    def _ended(self, results: list[WorkspaceResult]) -> RunManifest:
        """The manifest, but for the state."""
        counts = StepCounts.total(result.step_counts for result in results)
        return self._manifest.model_copy(
            update={"ended_at": now(), "workspaces": tuple(results), "step_counts": counts}
        )

    def _changesets_of(self, numbers: Sequence[int]) -> list[tuple[ChangesetSpec, ...]]:
        """The changeset specs of workspaces: as just built here, or from what the ledger has of them."""

        def specs(number: int) -> tuple[ChangesetSpec, ...]:
            result = self.results[number]
            if number in self._changesets or result.state != "completed" or result.diff is None:
                return self._changesets.get(number, ())
            workspace = self._planned[number].workspace
            return self._build_changesets(workspace, result.diff, self.ledger.outputs(number))

        with ThreadPoolExecutor(_READERS, thread_name_prefix="changesets") as pool:
            return list(pool.map(specs, numbers))


def _in_parts(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), _PART):
        yield numbers[first : first + _PART]


def _without_diffs(specs: Iterable[ChangesetSpec]) -> Iterator[ChangesetSpec]:
    for spec in specs:
        yield replace(spec, commit=None)


def run_id_of(name: str, flow_run_id: str) -> str:
    """What a run is called in the store, good in keys and file names: the same for every attempt of one flow run.

    Of the flow run's id it takes the end. Prefect's ids are UUIDs of version 7: they begin with the time, and two runs
    of one minute begin alike.
    """
    return f"{name.lstrip('.-_')[:NAME_CHARACTERS] or 'run'}-{flow_run_id[-12:]}"
