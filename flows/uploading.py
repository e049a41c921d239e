"""A run's changeset specs, brought to a Sourcegraph instance: uploaded, put together as a batch spec, applied.

What is uploaded is noted in the run's ledger (instance.json) after each piece, so another attempt goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from blocks.instance_api import InstanceApi
from blocks.instance_errors import InstanceMissing, InstanceRefused
from blocks.sourcegraph import SourcegraphInstance
from blocks.store import ArtifactMissing

from .batches.errors import PermanentError
from .batches.records import Reader, Record, Time, now, read
from .batches.results import RunManifest
from .catalogues import understood
from .ledger import Ledger

log = logging.getLogger(__name__)

Upload = Literal["no", "preview", "apply"]
"""Keep the changeset specs here; show them on the instance as a preview; apply them there at once."""

KEPT_HOURS = 24
"""Instances forget uploaded changeset specs after two days, so older ones are uploaded again."""

_AT_ONCE = 8
_NOTED_AT_ONCE = 32


class UploadRecord(Record):
    """What of a run is on an instance."""

    schema_version: Literal[1] = 1
    instance: str
    namespace: str
    """Its id."""
    begun_at: Time
    changeset_specs: dict[str, str] = Field(default_factory=dict)
    """Digest of what was uploaded -> the id that the instance gave it."""
    batch_spec: str = ""
    batch_spec_digest: str = ""
    """Of the batch spec and its changeset specs' ids."""
    preview_url: str = ""
    batch_change_url: str = ""
    """Where it was applied; "" if it was not."""

    @property
    def url(self) -> str:
        """Where people go on."""
        return self.batch_change_url or self.preview_url


_READERS: Mapping[int, Reader[UploadRecord]] = {1: UploadRecord.model_validate}


def read_upload_record(raw: bytes) -> UploadRecord:
    """A stored upload record of any version. Raises RecordError."""
    return read(raw, "upload record", _READERS)


def uploaded(ledger: Ledger) -> UploadRecord | None:
    """What of a run is on an instance; None: nothing was uploaded."""
    try:
        return read_upload_record(ledger.store.get(ledger.key("instance.json")))
    except ArtifactMissing:
        return None


def upload_target(
    repositories: object, instance: SourcegraphInstance | None, upload: Upload
) -> SourcegraphInstance | None:
    """The instance that a run uploads to: the one given, else the one that its repositories come from.

    None: nothing is to be uploaded. Raises PermanentError if something is, and there is no instance.
    """
    if upload == "no":
        return None
    if instance is not None:
        return instance
    if isinstance(repositories, SourcegraphInstance):
        return repositories
    raise PermanentError(f"upload is {upload!r}, but there is no instance to upload to: choose one")


def upload(
    ledger: Ledger, manifest: RunManifest, instance: InstanceApi, *, namespace: str = "", apply: bool = False
) -> UploadRecord:
    """Bring the changeset specs of a run that completed to an instance; ``apply`` the batch spec there too.

    Doing it again uploads nothing twice. Raises PermanentError, TemporaryError, Stopped, the store's errors.
    """
    if manifest.state != "completed":
        raise PermanentError(
            f"run {manifest.run_id} is {manifest.state}: only what completed is uploaded; run it again, or let failed "
            "workspaces be (skip_errors)"
        )
    with understood():
        uploading = _Uploading(ledger, instance, instance.namespace(namespace).id)
        try:
            return uploading.bring(manifest, apply=apply)
        except (InstanceMissing, InstanceRefused):
            if not uploading.went_on:
                raise
            log.info("the instance has forgotten what was uploaded before; uploading all of it again")
            return uploading.anew().bring(manifest, apply=apply)


class _Uploading:
    """One attempt to bring a run to an instance. ``went_on``: an earlier attempt had begun."""

    def __init__(self, ledger: Ledger, instance: InstanceApi, namespace: str, *, go_on: bool = True) -> None:
        self._ledger, self._instance = ledger, instance
        self._record = UploadRecord(instance=instance.url, namespace=namespace, begun_at=now())
        known = uploaded(ledger) if go_on else None
        self.went_on = known is not None and (known.instance, known.namespace) == (instance.url, namespace)
        if known is not None and self.went_on and now() - known.begun_at < timedelta(hours=KEPT_HOURS):
            self._record = known
        self._ids: dict[str, str] = {}

    def anew(self) -> _Uploading:
        """The same without what was noted."""
        return _Uploading(self._ledger, self._instance, self._record.namespace, go_on=False)

    def bring(self, manifest: RunManifest, *, apply: bool) -> UploadRecord:
        spec = self._ledger.store.get(self._ledger.key("spec.yaml")).decode("utf-8", "surrogateescape")
        keys = [key for key in self._ledger.changeset_keys(manifest) if key.endswith(".json")]
        # They hold diffs, and together they may be larger than the memory: each is read when it is needed.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self._ids = self._repository_ids(pool.map, keys)
            digests = list(pool.map(lambda key: _digest(self._encoded(key)), keys))
            key_of = dict(zip(digests, keys, strict=True))
            missing = [digest for digest in key_of if digest not in self._record.changeset_specs]
            for at in range(0, len(missing), _NOTED_AT_ONCE):
                some = missing[at : at + _NOTED_AT_ONCE]
                ids = pool.map(lambda each: self._instance.create_changeset_spec(self._encoded(key_of[each])), some)
                new = dict(zip(some, ids, strict=True))
                self._note(changeset_specs={**self._record.changeset_specs, **new})
        self._preview(spec, [self._record.changeset_specs[digest] for digest in digests])
        if apply and not self._record.batch_change_url:
            self._note(batch_change_url=self._instance.apply(self._record.batch_spec))
        return self._record

    def _preview(self, spec: str, ids: list[str]) -> None:
        digest = _digest("\n".join((spec, *ids)))
        if self._record.batch_spec and self._record.batch_spec_digest == digest:
            return
        created = self._instance.create_batch_spec(self._record.namespace, spec, ids)
        self._note(batch_spec=created.id, batch_spec_digest=digest, preview_url=created.apply_url, batch_change_url="")

    def _repository_ids(self, each: Callable[..., Any], keys: list[str]) -> dict[str, str]:
        """What the instance calls the repositories. Raises PermanentError with all that it does not have."""
        names = list(dict.fromkeys(each(lambda key: self._document(key)["baseRepository"], keys)))
        found = dict(zip(names, each(self._instance.repository, names), strict=True))
        if unknown := [name for name, known in found.items() if known is None]:
            raise PermanentError(
                f"the instance has no repository {', '.join(unknown)}, or the token's user may not see it; a "
                "repository needs the same name here and there"
            )
        return {name: known.id for name, known in found.items()}

    def _document(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ledger.store.get(key))
        return found

    def _encoded(self, key: str) -> str:
        """A changeset spec as it is uploaded."""
        return json.dumps(self._with_ids(self._document(key)))

    def _with_ids(self, document: dict[str, Any]) -> dict[str, Any]:
        named = {name: document[name] for name in ("baseRepository", "headRepository") if name in document}
        # A title, a branch or a message never is empty, a body may be: the instance wants to be told so.
        body = {"body": document.get("body", "")} if "commits" in document else {}
        return {**document, **body, **{name: self._ids[value] for name, value in named.items()}}

    def _note(self, **changes: object) -> None:
        self._record = self._record.model_copy(update=changes)
        self._ledger.store.put(self._ledger.key("instance.json"), self._record.encode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
