"""What a step's result depends on, as the key of the step cache: all that the step really reads, and nothing else.

The key stands in object names and records, so nobody may get a secret back from it. What a key is made of is otherwise
known to whoever reads the store; with a plain digest a short secret could be found by trying. There is no secret that
all workers share and that could key a MAC, so a step that reads secrets is keyed through scrypt instead: the same
inputs give the same key on every machine, and each guess costs 16 MiB and tens of milliseconds. A guess at a random
token of the usual length stays hopeless either way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

KEY_FORMAT = 1
"""Raised whenever a key's meaning changes: results under older keys are then simply not found."""

_SCRYPT_COST, _SCRYPT_BLOCK_SIZE, _SCRYPT_PARALLELISM = 2**14, 8, 1


@dataclass(frozen=True)
class StepInputs:
    """All that one step reads. Digests are hex sha256 unless said otherwise."""

    base_commit: str
    path: str
    """The workspace's, "" for the root."""
    sparse: bool
    """Whether only the workspace's path was checked out."""
    state_digest: str
    """Digest of the workspace's content before the step."""
    image_digest: str
    """The image's, as the runtime says it (`sha256:...`)."""
    shell: str
    working_directory: str
    script: str
    environment: Mapping[str, str] = field(repr=False)
    secret_names: frozenset[str]
    """The variables of ``environment`` that hold secrets."""
    files: Mapping[str, str]
    """Target in the container -> digest of the content."""
    mounts: Mapping[str, str]
    """Mountpoint -> digest of the content, names and modes below it."""
    runtime: Mapping[str, str]
    """The runtime's settings that can change a result."""


def step_key(inputs: StepInputs) -> str:
    """The key of a step's result: 64 hex digits, the same on every machine. Slow on purpose if it reads secrets."""
    content = {entry.name: _plain(getattr(inputs, entry.name)) for entry in fields(inputs)} | {"format": KEY_FORMAT}
    # ASCII escapes keep names and values that are not UTF-8 (surrogateescape) apart and encodable.
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
    if not inputs.secret_names:
        return hashlib.sha256(canonical).hexdigest()
    return hashlib.scrypt(
        canonical,
        salt=b"batchwright step key",
        n=_SCRYPT_COST,
        r=_SCRYPT_BLOCK_SIZE,
        p=_SCRYPT_PARALLELISM,
        dklen=hashlib.sha256().digest_size,
    ).hex()


def _plain(value: object) -> object:
    """As JSON can hold it; order never matters."""
    match value:
        case Mapping():
            return dict(value)
        case frozenset():
            return sorted(value)
    return value
