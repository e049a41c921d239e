"""Artifacts in a bucket of an S3-compatible store, through boto3. No Prefect.

Written for what the stores have in common, not for AWS alone: no trailing checksums unless asked for, Content-MD5 on
every upload, conditional writes only where they are honoured, ETags with and without quotes.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypedDict, TypeVar
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from blocks.s3_client import BROKEN_CONNECTION, translated
from blocks.store import (
    ArtifactConflict,
    ArtifactCorrupt,
    ArtifactMissing,
    Sink,
    StoreRefused,
    StoreTrouble,
    Versioned,
    checked_key,
    checked_prefix,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectOutputTypeDef, HeadObjectOutputTypeDef

T = TypeVar("T")

log = logging.getLogger(__name__)

# The store's own key begins with a dot, which no artifact's does.
_CHECK = ".check"
_CHUNK_BYTES = 1024 * 1024
_PART_BYTES = 16 * 1024 * 1024
_MAX_PARTS = 10_000
_FORGOTTEN_SECONDS = 24 * 3600
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 8.0


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: str


_ABSENT: _Condition = {"IfNoneMatch": "*"}


@dataclass(frozen=True)
class BucketStore:
    """An ``ArtifactStore`` in a bucket, below ``prefix`` (without slashes at its ends).

    While the store does not answer, a request is repeated with growing pauses, ``patience_seconds`` long in all.
    """

    client: S3Client
    bucket: str
    prefix: str = ""
    patience_seconds: float = field(default=60.0, compare=False)

    @property
    def location(self) -> str:
        """The bucket and its server, in words."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + f" at {self.client.meta.endpoint_url}"

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write an artifact; with ``if_absent`` only if there is none."""
        return self._write(checked_key(key), partial(self._put_object, key, content), if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> bool:
        """Write an artifact from a file; a large one in parts of 16 MiB, one after the other."""
        if path.stat().st_size <= _PART_BYTES:
            return self.put(key, path.read_bytes(), if_absent=if_absent)
        if if_absent and self.exists(key):
            return False
        return self._write(checked_key(key), partial(self._put_parts, key, path), if_absent=if_absent)

    def get(self, key: str) -> bytes:
        """The content of an artifact, compared with the checksum that was stored beside it."""
        return self.get_versioned(key).content

    def get_versioned(self, key: str) -> Versioned:
        """The content of an artifact and its version: the ETag."""
        content = BytesIO()
        version = self._download(checked_key(key), content)
        return Versioned(content.getvalue(), version)

    def replace(self, key: str, content: bytes, *, expected: str | None) -> str:
        """Write an artifact if it is still at the version ``expected``."""
        if not honours_conditions(self):
            raise StoreRefused(self.location, "the store has no conditional writes (If-Match), which this needs")
        if expected is None:
            return self._put_object(checked_key(key), content, _ABSENT)
        try:
            return self._put_object(checked_key(key), content, {"IfMatch": expected})
        except (ArtifactMissing, ArtifactConflict):
            if self._etag(key) != expected:
                raise ArtifactConflict(key, self.location) from None
        # Some stores (Ceph 16) compare with the quotes that they themselves put around the ETag.
        return self._put_object(key, content, {"IfMatch": expected.strip('"')})

    def copy_to(self, key: str, target: Sink) -> None:
        """Write the content to ``target`` in pieces; a broken connection is taken up where it broke."""
        self._download(checked_key(key), target)

    def exists(self, key: str) -> bool:
        """Whether there is an artifact of this key."""
        return self._etag(checked_key(key)) is not None

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with ``prefix``."""
        root = self._name("")
        page = partial(self.client.list_objects_v2, Bucket=self.bucket, Prefix=root + checked_prefix(prefix))
        while True:
            answer = self._answer(page)
            for entry in answer.get("Contents", []):
                key = entry["Key"].removeprefix(root)
                if not key.startswith(".") and not key.endswith("/"):  # some stores list folders, too
                    yield key
            if not answer.get("IsTruncated"):
                return
            page = partial(page, ContinuationToken=answer["NextContinuationToken"])

    def check(self) -> None:
        """Write, read and list in the bucket; find out if conditional writes are honoured; abort forgotten uploads."""
        content = uuid4().hex.encode()
        self._put_object(_CHECK, content)
        self._download(_CHECK, BytesIO())
        self._answer(partial(self.client.list_objects_v2, Bucket=self.bucket, Prefix=self._name(_CHECK), MaxKeys=1))
        if not honours_conditions(self):
            log.warning(
                "%s: no conditional writes; of two writers at the same moment the later one wins", self.location
            )
        with suppress(ClientError, BotoCoreError):  # no right to see them, or a store that knows no such request
            self._abort_forgotten_uploads()

    def _write(self, key: str, write: Callable[[_Condition], str], *, if_absent: bool) -> bool:
        if not if_absent:
            write({})
            return True
        if not honours_conditions(self):
            if self.exists(key):
                return False
            write({})
            return True
        try:
            write(_ABSENT)
        except ArtifactConflict:
            return False
        return True

    def _put_object(self, key: str, content: bytes, condition: _Condition | None = None) -> str:
        """Write in one request; returns the ETag."""
        metadata = {"sha256": hashlib.sha256(content).hexdigest(), "writer": uuid4().hex}
        put = partial(
            self.client.put_object,
            Bucket=self.bucket,
            Key=self._name(key),
            Body=content,
            ContentMD5=_md5(content),
            Metadata=metadata,
            **(condition or {}),
        )
        return self._committed(lambda: put()["ETag"], key, metadata["writer"])

    def _put_parts(self, key: str, path: Path, condition: _Condition) -> str:
        """Write in parts, of which one at a time is in memory; returns the ETag."""
        name, writer = self._name(key), uuid4().hex
        create = partial(self.client.create_multipart_upload, Bucket=self.bucket, Key=name, Metadata={"writer": writer})
        upload_id = self._answer(create, key)["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            for number, part in enumerate(_parts(path), 1):
                parts.append({"PartNumber": number, "ETag": self._put_part(key, upload_id, number, part)})
            complete = partial(
                self.client.complete_multipart_upload,
                Bucket=self.bucket,
                Key=name,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                **condition,
            )
            return self._committed(lambda: complete()["ETag"], key, writer)
        except BaseException:
            abort = partial(self.client.abort_multipart_upload, Bucket=self.bucket, Key=name, UploadId=upload_id)
            with suppress(StoreTrouble):  # parts that are left behind are paid for
                self._answer(abort)
            raise

    def _abort_forgotten_uploads(self) -> None:
        """Parts that killed writers left are paid for. Writers may be on any host: only an upload's age tells."""
        listing = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self._name(""))
        for upload in listing.get("Uploads", []):
            if upload["Initiated"].timestamp() < time.time() - _FORGOTTEN_SECONDS:
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _put_part(self, key: str, upload_id: str, number: int, part: bytes) -> str:
        put = partial(
            self.client.upload_part,
            Bucket=self.bucket,
            Key=self._name(key),
            UploadId=upload_id,
            PartNumber=number,
            Body=part,
            ContentMD5=_md5(part),
        )
        return self._answer(put, key)["ETag"]

    def _committed(self, write: Callable[[], str], key: str, writer: str) -> str:
        """Do the request that makes an artifact visible; returns the ETag.

        If it worked and only the answer was lost, the repeated request is refused: we were first all the same.
        """
        tries = 0

        def counted() -> str:
            nonlocal tries
            tries += 1
            return write()

        try:
            return self._answer(counted, key)
        except (ArtifactConflict, StoreRefused):
            if tries > 1 and (etag := self._written_by(writer, key)):
                return etag
            raise

    def _written_by(self, writer: str, key: str) -> str | None:
        """The ETag of an artifact if ``writer`` wrote it."""
        with suppress(StoreTrouble):  # of two troubles the first is told
            head = self._head(key)
            if _metadata(head).get("writer") == writer:
                return head["ETag"]
        return None

    def _etag(self, key: str) -> str | None:
        """The version of an artifact, None if there is none."""
        try:
            return self._head(key)["ETag"]
        except ArtifactMissing:
            return None

    def _head(self, key: str) -> HeadObjectOutputTypeDef:
        return self._answer(partial(self.client.head_object, Bucket=self.bucket, Key=self._name(key)), key)

    def _download(self, key: str, target: Sink) -> str:
        """Write the content to ``target``, going on after a broken connection; returns the ETag."""
        get = partial(self.client.get_object, Bucket=self.bucket, Key=self._name(key))
        first = answer = self._answer(get, key)
        digest, offset = hashlib.sha256(), 0
        pauses = self._pauses()
        while True:
            try:
                with closing(answer["Body"]) as body:
                    for chunk in body.iter_chunks(_CHUNK_BYTES):
                        target.write(chunk)
                        digest.update(chunk)
                        offset += len(chunk)
                break
            except BROKEN_CONNECTION as error:
                self._wait(pauses, translated(error, self.location, key))
                answer = self._answer(partial(get, Range=f"bytes={offset}-"), key)
                self._expect_same_version(first, answer, key)
        if _metadata(first).get("sha256", digest.hexdigest()) != digest.hexdigest():
            raise ArtifactCorrupt(key, self.location)
        return first["ETag"]

    def _expect_same_version(self, first: GetObjectOutputTypeDef, answer: GetObjectOutputTypeDef, key: str) -> None:
        if answer["ETag"] != first["ETag"]:
            answer["Body"].close()
            raise ArtifactConflict(key, self.location)

    def _answer(self, request: Callable[[], T], key: str | None = None) -> T:
        """Make a request, again while the store does not answer; raise what boto3's errors mean for a store."""
        pauses = self._pauses()
        while True:
            try:
                return request()
            except (ClientError, BotoCoreError) as error:
                self._wait(pauses, translated(error, self.location, key))

    def _pauses(self) -> Iterator[float]:
        """Growing pauses with jitter, as long as our patience lasts."""
        pause, left = _FIRST_PAUSE_SECONDS, self.patience_seconds
        while left > 0:
            wait = min(left, pause * random.uniform(0.5, 1.0))
            yield wait
            left -= wait
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _wait(self, pauses: Iterator[float], trouble: StoreTrouble) -> None:
        """Wait before another try, or raise if it would not help or our patience is at its end."""
        pause = next(pauses, None)
        if pause is None or not trouble.temporary:
            raise trouble
        log.warning("%s; trying again in %.1f s", trouble, pause)
        time.sleep(pause)

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key


def honours_conditions(store: BucketStore) -> bool:
    """Whether the store refuses ``If-None-Match: *`` on a key that is there. Many overwrite it, some answer 501."""
    with _probing:
        return _honours_conditions(store)


# One thread asks and the others wait: a dozen at the same key at once can hold each other up for seconds.
_probing = Lock()


@lru_cache(maxsize=8)
def _honours_conditions(store: BucketStore) -> bool:
    put = partial(store.client.put_object, Bucket=store.bucket, Key=store._name(_CHECK), Body=b"")
    store._answer(put, _CHECK)
    try:
        store._answer(partial(put, **_ABSENT), _CHECK)
    except (ArtifactConflict, StoreRefused) as answer:
        return isinstance(answer, ArtifactConflict)
    return False


def _parts(path: Path) -> Iterator[bytes]:
    size = max(_PART_BYTES, path.stat().st_size // _MAX_PARTS + 1)
    with path.open("rb") as file:
        while part := file.read(size):
            yield part


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _metadata(answer: GetObjectOutputTypeDef | HeadObjectOutputTypeDef) -> dict[str, str]:
    # Some stores change the case of the names.
    return {name.lower(): value for name, value in answer["Metadata"].items()}
