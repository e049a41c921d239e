"""Upstream's AfterStepResult: what an instance and src-cli keep of a step. Read and written as Go does it.

Upstream: lib/batches/execution/results.go. "Version" here is the binary-diff feature, not the batch spec's version.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from .gojson import well_formed
from .records import RecordError, explain

_KEYS = ("version", "changedFiles", "stdout", "stderr", "stepIndex", "artifacts", "outputs", "skipped")


class _Upstream(BaseModel):
    # Go drops unknown keys and takes null for a missing value; it converts nothing.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, alias_generator=to_camel, populate_by_name=True)


class ChangedFiles(_Upstream):
    """Upstream's change lists. None is Go's nil list (null), which is not an empty one."""

    modified: list[str] | None = None
    added: list[str] | None = None
    deleted: list[str] | None = None
    renamed: list[str] | None = None


class AfterStepResult(_Upstream):
    """One step's result as upstream keeps it."""

    version: int = 1
    changed_files: ChangedFiles = ChangedFiles()
    stdout: str = ""
    stderr: str = ""
    step_index: int = 0
    diff_or_nil: bytes | None = None
    """The cumulative diff; None is Go's nil (null in version 2)."""
    artifacts: dict[str, Any] | None = None
    """Where streams and diffs that are too large to be inline are kept, by newer instances."""
    outputs: dict[str, Any] | None = None
    skipped: bool = False

    @property
    def diff(self) -> bytes:
        """The cumulative diff, empty if there is none."""
        return self.diff_or_nil or b""

    @classmethod
    def decode(cls, json_object: Mapping[str, Any]) -> AfterStepResult:
        """Read either version; missing keys take zero values. Raises RecordError.

        In version 1 the diff is text, and there is no `skipped`.
        """
        content = {key: json_object[key] for key in _KEYS if json_object.get(key) is not None}
        if content.get("version") == 2:
            content["diff_or_nil"] = _from_base64(json_object.get("diff"))
        else:
            content["diff_or_nil"] = _from_text(json_object.get("diff"))
            content.pop("skipped", None)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise RecordError(f"the AfterStepResult is malformed: {explain(error)}") from error

    def encode(self) -> dict[str, Any]:
        """The JSON object as Go writes it, in Go's order of keys. Version 1 loses what is not UTF-8, as upstream."""
        body: dict[str, Any] = {
            "changedFiles": self.changed_files.model_dump(),
            "stdout": self.stdout,
            "stderr": self.stderr,
            "stepIndex": self.step_index,
            "diff": well_formed(self.diff.decode("utf-8", "surrogateescape")),
            **({"artifacts": self.artifacts} if self.artifacts else {}),
            "outputs": self.outputs,
        }
        if self.version != 2:
            return body
        diff = None if self.diff_or_nil is None else b64encode(self.diff_or_nil).decode("ascii")
        return {"version": 2, **body, "diff": diff, "skipped": self.skipped}


def _from_base64(diff: object) -> bytes | None:
    if diff is None:
        return None
    try:
        return binascii.a2b_base64(_text(diff), strict_mode=True)
    except ValueError as error:
        raise RecordError(f"the AfterStepResult's diff is not base64: {error}") from error


def _from_text(diff: object) -> bytes:
    return b"" if diff is None else _text(diff).encode("utf-8", "surrogatepass")


def _text(diff: object) -> str:
    if not isinstance(diff, str):
        raise RecordError(f"the AfterStepResult's diff is no text but {type(diff).__name__}")
    return diff
