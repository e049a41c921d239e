"""The runs in the artifact store: what was asked, what became of it. The truth, whatever Prefect remembers.

runs/<run>/manifest.json               RunManifest, written at the start and at the end
runs/<run>/spec.yaml                   the batch spec as given
runs/<run>/scope.json                  the repositories that it was narrowed to; whether people have to approve it
runs/<run>/plan.json                   RunPlan, written once, when the workspaces are found
runs/<run>/shards/<k>.json             Shard: the workspaces, in lists of what one process runs
runs/<run>/workspaces/<n>.json         WorkspaceResult, written when the workspace ends
runs/<run>/outputs/<n>.json            WorkspaceOutputs, of a workspace that changed something
runs/<run>/steps/<n>-<step>.json       StepResult of what ran, failed or was skipped in this run
runs/<run>/changesets/<n>.json .patch  changeset specs in upstream's form, and their diffs (git apply -p0)
runs/<run>/approval.json               Approval: what people were asked about it, and their answer
latest-run.json                        which run began last
"""

from __future__ import annotations

import hashlib
import itertools
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event
from uuid import uuid4

from pydantic import JsonValue

from blocks.store import ArtifactMissing, ArtifactStore, KeyRefused

from .batches.approvals import Approval, read_approval
from .batches.changesets import ChangesetSpec
from .batches.errors import PermanentError
from .batches.plans import (
    RunPlan,
    Shard,
    WorkspaceOutputs,
    read_run_plan,
    read_shard,
    read_workspace_outputs,
)
from .batches.results import (
    RunManifest,
    StepReference,
    StepResult,
    WorkspaceResult,
    read_run_manifest,
    read_step_result,
    read_workspace_result,
)

LATEST = "last"
"""How people call the run that began last."""

EVERYTHING = "*"

_LATEST_KEY = "latest-run.json"
_AT_ONCE = 8
"""Of the documents of a run: writing or reading one is mostly waiting, for a disk or a server."""
_LARGE_BYTES = 8 << 20
"""Of a diff: its changeset spec is not put together in memory."""
_BASE64_BYTES = 3 << 20
"""A multiple of three, so that the pieces' base64 is that of the whole."""


class RunUnknown(PermanentError):
    """The store has no such run, or several."""


class Ledger:
    """The records of one run. Raises the store's errors."""

    def __init__(self, store: ArtifactStore, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self._closed = Event()

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is kept."""
        return self._closed.is_set()

    def close(self) -> None:
        """Keep nothing more, and say nothing of it: another process goes on with the run."""
        self._closed.set()

    def begin(self, manifest: RunManifest, spec: str, *, only: str = EVERYTHING, needs_approval: bool = False) -> None:
        """Note that the run has begun. ``only``: a glob on the names of the repositories that it takes."""
        scope = {"schema_version": 1, "only": only, "needs_approval": needs_approval}
        self._put(self.key("scope.json"), json.dumps(scope).encode())
        self._put(self.key("spec.yaml"), spec.encode("utf-8", "surrogateescape"))
        self.keep_manifest(manifest)
        self._put(_LATEST_KEY, json.dumps({"schema_version": 1, "run_id": self.run_id}).encode())

    def keep_plan(self, plan: RunPlan, shards: Sequence[Shard]) -> None:
        """Write the workspaces that were found. The plan comes last: when it is there, all of it is."""
        for shard in shards:
            self._put(self.key(f"shards/{shard.number}.json"), shard.encode())
        self._put(self.key("plan.json"), plan.encode())

    def plan(self) -> RunPlan | None:
        """What an earlier attempt found; None: no attempt came so far."""
        try:
            return read_run_plan(self.store.get(self.key("plan.json")))
        except ArtifactMissing:
            return None

    def shard(self, number: int) -> Shard:
        """The workspaces of a shard, counted from 1."""
        return read_shard(self.store.get(self.key(f"shards/{number}.json")))

    def spec(self) -> str:
        """The batch spec as given."""
        return self.store.get(self.key("spec.yaml")).decode("utf-8", "surrogateescape")

    def keep_manifest(self, manifest: RunManifest) -> None:
        """Write the manifest, replacing the one before."""
        self._put(self.key("manifest.json"), manifest.encode())

    def keep_steps(self, workspace: int, results: Sequence[StepResult]) -> dict[int, str]:
        """Write what became of steps; returns the artifacts' keys by step. Workspaces count from 1."""
        keys = {result.index: self.key(f"steps/{workspace}-{result.index + 1}.json") for result in results}
        if results:
            with ThreadPoolExecutor(min(_AT_ONCE, len(results)), thread_name_prefix="ledger") as pool:
                list(pool.map(lambda result: self._put(keys[result.index], result.encode()), results))
        return keys

    def keep_workspace(self, workspace: int, result: WorkspaceResult) -> None:
        """Write what became of a workspace."""
        self._put(self.key(f"workspaces/{workspace}.json"), result.encode())

    def results(self, numbers: Iterable[int]) -> dict[int, WorkspaceResult]:
        """What became of workspaces, by number; those of which nothing is known yet are left out."""

        wanted = set(numbers) & {_number(key) for key in self.store.list_keys(self.key("workspaces/"))}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(self._workspace, wanted), strict=True))

    def keep_outputs(self, workspace: int, outputs: Mapping[str, JsonValue]) -> None:
        """Write the outputs of a workspace that is done."""
        record = WorkspaceOutputs(outputs=dict(outputs))
        self._put(self.key(f"outputs/{workspace}.json"), record.encode())

    def outputs(self, workspace: int) -> Mapping[str, JsonValue]:
        """The outputs of a workspace that is done and has changed something."""
        return read_workspace_outputs(self.store.get(self.key(f"outputs/{workspace}.json"))).outputs

    def keep_changesets(self, specs: Sequence[ChangesetSpec], *, first: int = 1) -> None:
        """Write changeset specs, numbered from ``first`` in their order."""

        def keep(number: int, spec: ChangesetSpec) -> None:
            self._keep_changeset(self.key(f"changesets/{number}.json"), spec)
            if spec.commit is not None:
                self._put(self.key(f"changesets/{number}.patch"), spec.commit.diff)

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ledger") as pool:
            list(pool.map(keep, itertools.count(first), specs))

    def keep_approval(self, approval: Approval) -> None:
        """Write what people were asked or have answered, replacing the question before."""
        self._put(self.key("approval.json"), approval.encode())

    def approval(self) -> Approval:
        """What people were asked, or have answered. Raises ArtifactMissing if they were not."""
        return read_approval(self.store.get(self.key("approval.json")))

    def manifest(self) -> RunManifest:
        """The manifest; of a run that has not ended, with the workspaces that have."""
        manifest = read_run_manifest(self.store.get(self.key("manifest.json")))
        if manifest.ended_at is not None:
            return manifest
        return manifest.model_copy(update={"workspaces": tuple(self._workspaces())})

    def only(self) -> str:
        """The glob on repository names that the run was narrowed to."""
        return str(self._scope().get("only", EVERYTHING))

    def needs_approval(self) -> bool:
        """Whether people have to approve of the run's changeset specs."""
        return bool(self._scope().get("needs_approval", False))

    def changesets_digest(self, manifest: RunManifest) -> str:
        """What the changeset specs of the run come to: equal if, and only if, the same is proposed."""
        digest = hashlib.sha256()
        for key in self.changeset_keys(manifest):
            content = self.store.get(key)
            digest.update(f"{key.rpartition('/')[2]} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def steps(self, workspace: WorkspaceResult) -> list[tuple[StepReference, StepResult]]:
        """The records of a workspace's steps, in order."""
        return [(step, read_step_result(self.store.get(step.key))) for step in workspace.steps]

    def changeset_keys(self, manifest: RunManifest) -> list[str]:
        """The keys of the run's changeset specs and their patches. What an earlier attempt had more stays out."""
        found = sorted((_number(key), key) for key in self.store.list_keys(self.key("changesets/")))
        return [key for number, key in found if number <= manifest.changeset_specs]

    def key(self, name: str) -> str:
        """The artifact key of one of the run's documents."""
        return f"runs/{self.run_id}/{name}"

    def _scope(self) -> dict[str, object]:
        """Runs of before there was one have none."""
        try:
            return dict(json.loads(self.store.get(self.key("scope.json"))))
        except ArtifactMissing:
            return {}

    def _workspaces(self) -> Iterator[WorkspaceResult]:
        for key in sorted(self.store.list_keys(self.key("workspaces/")), key=_number):
            yield read_workspace_result(self.store.get(key))

    def _workspace(self, number: int) -> WorkspaceResult:
        return read_workspace_result(self.store.get(self.key(f"workspaces/{number}.json")))

    def _keep_changeset(self, key: str, spec: ChangesetSpec) -> None:
        if spec.commit is None or len(spec.commit.diff) < _LARGE_BYTES:
            self._put(key, b"".join(encoded(spec)))
        elif not self.is_closed:
            with NamedTemporaryFile(prefix="changeset-") as file:
                file.writelines(encoded(spec))
                file.flush()
                self.store.put_file(key, Path(file.name))

    def _put(self, key: str, data: bytes) -> None:
        if not self.is_closed:
            self.store.put(key, data)


def find_run(store: ArtifactStore, name: str) -> Ledger:
    """The run that ``name`` means: its id, the beginning of it, or ``last``. Raises RunUnknown."""
    if name == LATEST:
        return Ledger(store, _latest(store))
    found = _runs(store, name)
    if name in found:
        return Ledger(store, name)
    if len(found) == 1:
        return Ledger(store, found[0])
    if not found:
        raise RunUnknown(f"there is no run {name!r} in this store; `{LATEST}` is the one that began last")
    raise RunUnknown(f"{name!r} is the beginning of {len(found)} runs: {', '.join(found[:5])}; write more of it")


def encoded(spec: ChangesetSpec) -> Iterator[bytes]:
    """A changeset spec as the store keeps it: upstream's JSON, in pieces, as a diff may be large."""
    diff = memoryview(spec.commit.diff if spec.commit is not None and spec.commit.binary else b"")
    mark = uuid4().hex
    text = json.dumps(spec.encode(mark if diff else None), indent=1, ensure_ascii=False) + "\n"
    head, _, tail = text.partition(mark)
    yield head.encode()
    for start in range(0, len(diff), _BASE64_BYTES):
        yield b64encode(diff[start : start + _BASE64_BYTES])
    yield tail.encode()


def _runs(store: ArtifactStore, beginning: str) -> list[str]:
    if not beginning or "/" in beginning:
        return []
    try:
        return sorted({key.split("/")[1] for key in store.list_keys(f"runs/{beginning}")})
    except KeyRefused:
        return []  # what no key can begin with, no run can be called


def _latest(store: ArtifactStore) -> str:
    try:
        return str(json.loads(store.get(_LATEST_KEY))["run_id"])
    except ArtifactMissing as error:
        raise RunUnknown("there is no run in this store yet; `batchwright run SPEC` makes one") from error


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[1].split(".")[0])
