"""What people decided, as it is kept."""

from __future__ import annotations

from flows.batches.approvals import Approval, read_approval
from flows.batches.records import now

DIGEST, OTHER = "a" * 64, "b" * 64

VERSION_1 = b"""{
 "schema_version": 1,
 "attempt": 2,
 "changesets_digest": "54cc74eee88f2658fe208d6695b42aba8a9d0ff350ed6ad8d9e2e811e73d5ee0",
 "decision": "approved",
 "comment": "fine, K.",
 "asked_at": "2026-11-25T16:19:38.828634Z",
 "answered_at": "2026-11-25T16:20:30.111487Z"
}"""


def test_an_approval_of_version_1_stays_readable() -> None:
    approval = read_approval(VERSION_1)

    assert (approval.attempt, approval.decision, approval.comment) == (2, "approved", "fine, K.")
    assert read_approval(approval.encode()) == approval


def test_an_approval_holds_for_just_the_changeset_specs_that_were_shown() -> None:
    asked = Approval(attempt=1, changesets_digest=DIGEST, asked_at=now())

    assert asked.answered("approved", "").holds_for(DIGEST)
    assert not asked.answered("approved", "").holds_for(OTHER)
    assert not asked.answered("rejected", "").holds_for(DIGEST)
    assert not asked.holds_for(DIGEST)


def test_the_decision_is_told_with_its_reason() -> None:
    asked = Approval(attempt=1, changesets_digest=DIGEST, asked_at=now())

    assert asked.answered("approved", "fine, K.").sentence == "approved: fine, K."
    assert asked.answered("rejected", "").sentence == "rejected. Nothing goes on; Retry asks again"
