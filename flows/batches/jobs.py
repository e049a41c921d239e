"""A job of an instance's executor queue, as it comes over the wire: versions 1 and 2. Reads; runs nothing.

Upstream: internal/executor/types.go. The wire's version is the executor's doing (what it says in its request), and has
nothing to do with how the steps run: ``cli_steps`` or ``docker_steps``.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from .errors import PermanentError
from .records import explain

INPUT = "input.json"
STATE_DIFF = "state.diff"
WORKSPACE_FILES = "workspace-files"


class JobRefused(PermanentError):
    """The job is none that this executor can run. The message names what is wrong, and shows no values."""


class _Wire(BaseModel):
    # Go drops unknown keys: newer instances may send more.
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )


class JobFile(_Wire):
    """A file of the job: its content, or where the instance's file store has it. ``modified_at`` None: it is new."""

    content: bytes = Field(default=b"", repr=False)
    bucket: str = ""
    key: str = ""
    modified_at: datetime | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the content is to be fetched."""
        return bool(self.bucket and self.key)


class DockerStep(_Wire):
    """One container of a native job. ``env`` holds `NAME=VALUE`."""

    key: str = ""
    image: str = ""
    commands: list[str] = Field(default_factory=list)
    dir: str = ""
    env: list[str] = Field(default_factory=list, repr=False)


class CliStep(_Wire):
    """One run of src-cli. ``command`` is what stands behind `src`; ``env`` holds `NAME=VALUE`."""

    key: str = ""
    command: list[str] = Field(default_factory=list)
    dir: str = ""
    env: list[str] = Field(default_factory=list, repr=False)


class Job(_Wire):
    """One job. Its secrets stay out of every repr."""

    id: int
    token: SecretStr = SecretStr("")
    queue: str = ""
    repository: str = Field(default="", alias="repositoryName")
    commit: str = ""
    sparse_checkout: list[str] = Field(default_factory=list)
    files: dict[str, JobFile] = Field(default_factory=dict)
    docker_steps: list[DockerStep] = Field(default_factory=list)
    cli_steps: list[CliStep] = Field(default_factory=list)
    redacted_values: dict[str, str] = Field(default_factory=dict, repr=False)
    """Value -> the text to show in its place."""
    docker_auth_config: dict[str, Any] = Field(default_factory=dict, repr=False)
    """`auths` of a Docker configuration."""

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.repository}@{self.commit[:10]} job {self.id}"


def read_job(body: Mapping[str, Any]) -> Job:
    """The job of a dequeue response of either version. Raises JobRefused."""
    content = {key: value for key, value in body.items() if value is not None}
    files = content.get("files", {})
    if not isinstance(files, dict):
        raise JobRefused("the job's files are no object")
    is_base64 = content.get("version") == 2
    content["files"] = {checked_path(path): _file(path, value, is_base64) for path, value in files.items()}
    for steps in ("dockerSteps", "cliSteps"):
        if not isinstance(given := content.get(steps, []), list):
            raise JobRefused(f"the job's {steps} are no list")
        content[steps] = [_without_null(step) for step in given]
    try:
        return Job.model_validate(content)
    except ValidationError as error:
        raise JobRefused(f"the job is malformed: {explain(error)}") from error


def checked_path(path: str) -> str:
    """A file's path, if it stays in the job's folder. Raises JobRefused."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise JobRefused(f"the job's file {path!r} would lie outside of the job's folder")
    return PurePosixPath(path).as_posix()


def _file(path: str, value: Any, is_base64: bool) -> dict[str, Any]:
    if isinstance(value, str):  # of 4.0
        value = {"content": value}
    if not isinstance(value, dict):
        raise JobRefused(f"the job's file {path!r} is no object")
    file: dict[str, Any] = _without_null(value)
    text = file.get("content", "")
    if not isinstance(text, str):
        raise JobRefused(f"the content of the job's file {path!r} is no text")
    if str(file.get("modifiedAt", "")).startswith("0001-"):  # Go's zero time
        del file["modifiedAt"]
    try:
        file["content"] = b64decode(text, validate=True) if is_base64 else text.encode("utf-8", "surrogatepass")
    except binascii.Error as error:
        raise JobRefused(f"the content of the job's file {path!r} is not base64: {error}") from error
    return file


def _without_null(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value
