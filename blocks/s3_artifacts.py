"""The block that keeps artifacts in a bucket of an S3-compatible store."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, HttpUrl, SecretStr, field_validator, model_validator

from blocks.artifacts import StoreBlock
from blocks.bucket import BucketStore
from blocks.s3_client import Checksums, connect
from blocks.store import checked_key

# A check is to tell soon that a store is not there; a run in its third hour rather waits.
_CHECK_PATIENCE_SECONDS = 2.0
# What S3 allows a name (1024) beyond what we allow a key (800).
_MAX_PREFIX_BYTES = 200


class S3Artifacts(StoreBlock):
    """
    Keep artifacts in a bucket of Amazon S3 or of any store that speaks its protocol.

    Example:
        Load a stored block and use it:
        ```python
        from blocks.s3_artifacts import S3Artifacts

        artifacts = S3Artifacts.load("BLOCK_NAME")
        artifacts.put("notes/hello.txt", b"hello")
        ```
    """

    _block_type_name = "S3 Artifacts"
    _block_type_slug = "s3-artifacts"
    _description = "Keep the artifacts of batch changes in an S3-compatible bucket."
    _documentation_url = HttpUrl("https://docs.prefect.io/v3/advanced/results")

    # Pydantic's errors would otherwise print the secrets that they complain about.
    model_config = ConfigDict(hide_input_in_errors=True)

    bucket: str = Field(description="The bucket that holds the artifacts. It must exist.")
    prefix: str = Field(default="", description="A folder in the bucket, without slashes at its ends.")
    endpoint_url: str | None = Field(default=None, description="The store's address, if it is not Amazon S3.")
    region: str | None = Field(default=None, description="The bucket's region, where the store has regions.")
    access_key_id: str | None = Field(
        default=None,
        description="The access key. Without one, the worker's environment, AWS files or role provide it.",
    )
    secret_access_key: SecretStr | None = Field(default=None, description="The secret of the access key.")
    session_token: SecretStr | None = Field(
        default=None, description="The token that belongs to a temporary access key."
    )
    path_style: bool = Field(
        default=True,
        description="Whether the bucket stands in the path of an address (most stores) or in its host name.",
    )
    verify_certificate: bool = Field(
        default=True, description="Whether the certificate of an https endpoint must be valid."
    )
    ca_bundle: str | None = Field(
        default=None, description="A file on the workers with the certificates to trust, if not the usual ones."
    )
    checksums: Checksums = Field(
        default="when_required",
        description="When boto3 adds checksums of its own. Many stores refuse those of 'when_supported'.",
    )
    patience_seconds: float = Field(
        default=60.0, ge=0, description="How long a request is repeated while the store does not answer."
    )

    @field_validator("prefix")
    @classmethod
    def _is_a_key(cls, prefix: str) -> str:
        if len(prefix.encode()) > _MAX_PREFIX_BYTES:
            raise ValueError(f"prefix has at most {_MAX_PREFIX_BYTES} bytes")
        return checked_key(prefix) if prefix else prefix

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("endpoint_url has the form https://HOST or https://HOST:PORT")
        if parts.username or parts.password:
            raise ValueError("endpoint_url must not hold a key; use access_key_id and secret_access_key")
        return url

    @model_validator(mode="after")
    def _has_whole_credentials(self) -> S3Artifacts:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: give both or neither")
        return self

    def store(self) -> BucketStore:
        """The bucket as a store."""
        client = connect(
            endpoint_url=self.endpoint_url,
            region=self.region,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            session_token=self.session_token,
            path_style=self.path_style,
            verify=(self.ca_bundle or True) if self.verify_certificate else False,
            checksums=self.checksums,
        )
        return BucketStore(client, self.bucket, self.prefix, self.patience_seconds)

    def check(self) -> None:
        """Raise, soon and with one clear message, unless artifacts can be written and read here."""
        replace(self.store(), patience_seconds=min(self.patience_seconds, _CHECK_PATIENCE_SECONDS)).check()
