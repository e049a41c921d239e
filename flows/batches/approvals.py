"""What people decided about a run's changeset specs: asked, approved or rejected. A record, kept beside the run's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .records import Digest, Reader, Record, Time, now, read

Decision = Literal["asked", "approved", "rejected"]


class Approval(Record):
    """The question whether a run's changeset specs may go on, and its answer."""

    schema_version: Literal[1] = 1
    attempt: int
    """Of the flow run, in which it was asked: a Retry is the next one, a resumption is not."""
    changesets_digest: Digest
    """Of the changeset specs as they were shown."""
    decision: Decision = "asked"
    comment: str = ""
    asked_at: Time
    answered_at: Time | None = None

    def answered(self, decision: Literal["approved", "rejected"], comment: str) -> Approval:
        """The same question with its answer, given now."""
        return self.model_copy(update={"decision": decision, "comment": comment, "answered_at": now()})

    @property
    def sentence(self) -> str:
        """The decision for people."""
        if self.decision == "rejected":
            return f"rejected{self._why}. Nothing goes on; Retry asks again"
        return f"{self.decision}{self._why}"

    @property
    def _why(self) -> str:
        return f": {self.comment}" if self.comment else ""

    def holds_for(self, changesets_digest: str) -> bool:
        """Whether just these changeset specs were approved."""
        return self.decision == "approved" and self.changesets_digest == changesets_digest


_READERS: Mapping[int, Reader[Approval]] = {1: Approval.model_validate}


def read_approval(raw: bytes) -> Approval:
    """A stored approval of any version. Raises RecordError."""
    return read(raw, "approval", _READERS)
