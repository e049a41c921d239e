"""boto3's side of a bucket: the client, and what its errors mean for a store."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from pydantic import SecretStr

from blocks.store import ArtifactConflict, ArtifactMissing, StoreFull, StoreRefused, StoreTrouble, StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

Checksums = Literal["when_required", "when_supported"]

_SMALL_BYTES = 64 * 1024

BROKEN_CONNECTION = (BotoConnectionError, HTTPClientError, IncompleteReadError)
_TEMPORARY = (*BROKEN_CONNECTION, CredentialRetrievalError, MetadataRetrievalError)

_MISSING = {"NoSuchKey", "404", "NotFound"}
_CONFLICT = {"PreconditionFailed", "412"}
_FULL = {"QuotaExceeded", "ServiceQuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_TRY_AGAIN = {
    "ConditionalRequestConflict",  # another conditional write goes on at this moment
    "OperationAborted",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestTimeout",
    "RequestTimeoutException",
}
_HINTS = {
    "NoSuchBucket": "there is no such bucket; create it or correct the name",
    "InvalidBucketName": "a bucket cannot have this name",
    "InvalidAccessKeyId": "the store does not know this access key; correct access_key_id",
    "SignatureDoesNotMatch": "the secret does not belong to the access key; correct secret_access_key",
    "AccessDenied": "the access key lacks a right; it needs to read, list and write in the bucket",
    "403": "the access key lacks a right; it needs to read, list and write in the bucket",
    "ExpiredToken": "the credentials have expired; renew them",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "PermanentRedirect": "the bucket is in another region; correct region",
    "AuthorizationHeaderMalformed": "the bucket is in another region; correct region",
}


# Kept by settings, not in a block: Prefect copies, compares and pickles blocks, and a client bears none of these.
@lru_cache(maxsize=8)
def connect(
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: SecretStr | None = None,
    session_token: SecretStr | None = None,
    path_style: bool = True,
    verify: bool | str = True,
    checksums: Checksums = "when_required",
) -> S3Client:
    """A client for all threads of this process.

    Without a key, boto3 looks in its usual places: environment, files, roles. Raises ``StoreRefused`` for settings that
    boto3 cannot use, its own (``AWS_PROFILE``, say) among them.
    """
    if isinstance(verify, str) and not Path(verify).is_file():
        raise StoreRefused("S3 client", f"there is no file {verify!r}; correct ca_bundle")
    config = Config(
        # The store's own retries are bounded by time; boto3's, by a count and by a quota that all threads share.
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={"addressing_style": "path" if path_style else "virtual"},
    )
    try:
        session = boto3.session.Session(
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key.get_secret_value() if secret_access_key else None,
            aws_session_token=session_token.get_secret_value() if session_token else None,
            region_name=region,
        )
        client: S3Client = session.client("s3", endpoint_url=endpoint_url, verify=verify, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreRefused("S3 client", str(error)) from error
    client.meta.events.register_last("before-call.s3", _send_small_bodies_at_once)
    return client


def _send_small_bodies_at_once(params: dict[str, Any], **_: object) -> None:
    """Do not ask first (Expect: 100-continue).

    Meanwhile SeaweedFS holds the key, and those who want the same key look again only after a second.
    """
    body = params.get("body")
    if isinstance(body, BytesIO) and body.getbuffer().nbytes <= _SMALL_BYTES:
        params["headers"].pop("Expect", None)


def translated(error: ClientError | BotoCoreError, where: str, key: str | None) -> StoreTrouble:
    """The store's error for one of boto3's. ``key`` is the artifact that was asked for, if any."""
    at = f"{where}, key {key!r}" if key else where
    if isinstance(error, ClientError):
        return _answered(error, at, where, key)
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreRefused(at, f"its certificate is not trusted; set ca_bundle ({error})")
    if isinstance(error, _TEMPORARY):
        return StoreUnavailable(at, f"it does not answer ({error})")
    if isinstance(error, NoCredentialsError):
        return StoreRefused(at, "there are no credentials; set access_key_id and secret_access_key")
    return StoreRefused(at, str(error))


def _answered(error: ClientError, at: str, where: str, key: str | None) -> StoreTrouble:
    code, status = error.response["Error"].get("Code", ""), error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    what = f"{_HINTS.get(code, error.response['Error'].get('Message') or 'it refuses')} ({code})"
    if key and code in _MISSING:
        return ArtifactMissing(key, where)
    if key and code in _CONFLICT:
        return ArtifactConflict(key, where)
    if code in _FULL or status == 507:
        return StoreFull(at, what)
    if code in _TRY_AGAIN or (status >= 500 and status != 501):  # 501: it cannot do this at all
        return StoreUnavailable(at, what)
    return StoreRefused(at, what)
