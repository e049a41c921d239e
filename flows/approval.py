"""A person decides in the dashboard whether the changeset specs of a run go on.

The run is suspended: its process ends and costs nothing while people think. The answer starts a new process of the same
flow run, which goes on with just what was shown: nothing is resolved or run again, whatever has changed meanwhile.
"""

# No `from __future__ import annotations`: Prefect makes the dashboard's form of Answer's annotations.

import json
from dataclasses import dataclass
from typing import Literal

from prefect import runtime
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from blocks.store import ArtifactMissing

from .batches.approvals import Approval
from .batches.errors import PermanentError
from .batches.records import now
from .batches.results import RunManifest
from .ledger import Ledger
from .markdown import code

REJECTED = "Rejected"
"""The state of a run that people did not approve. Of the type CANCELLED: it can be retried, and nobody is alarmed."""

SHOWN = 10
"""Changeset specs in the form. The page and the report have all."""


class ApprovalImpossible(PermanentError):
    """A run that nobody can be asked about."""


class Answer(RunInput):
    """What a person says to a run's changeset specs."""

    decision: Literal["approve", "reject"] = Field(description="Approve: the run goes on. Reject: it ends here.")
    comment: str = Field(default="", description="Why, and who you are. It is kept with the run.")


@dataclass(frozen=True)
class Approvals:
    """The question to the people about one run, in this attempt of its flow run."""

    ledger: Ledger
    attempt: int

    @classmethod
    def of(cls, ledger: Ledger) -> "Approvals":
        """For the flow run that this code is in. Raises ApprovalImpossible: only a deployment's run can wait."""
        if runtime.deployment.id is None:
            raise ApprovalImpossible("only a deployment's run can wait for an approval: start it from the dashboard")
        return cls(ledger, runtime.flow_run.run_count)

    def awaited(self) -> RunManifest | None:
        """The run as people were asked about it in this attempt; None if nobody was asked yet."""
        asked = self._known()
        if asked is None or asked.attempt != self.attempt:
            return None
        return self.ledger.manifest()

    def ask(self, manifest: RunManifest, *, hours: float) -> Approval:
        """The people's decision. Until there is one, this suspends the flow run and does not return.

        What was approved before, in an earlier attempt, is not asked about again unless it has changed. After
        ``hours`` without an answer Prefect makes the run Failed; Retry asks anew.
        """
        digest = digest_of(self.ledger, manifest)
        known = self._known()
        if known is not None and known.holds_for(digest):
            return known
        if known is None or known.attempt != self.attempt:
            known = Approval(attempt=self.attempt, changesets_digest=digest, asked_at=now())
            self.ledger.keep_approval(known)
        form = Answer.with_initial_data(description=_description(manifest, self.ledger))
        # The key tells one question from the next: Prefect answers a key that it knows with the answer it knows.
        answer = suspend_flow_run(wait_for_input=form, timeout=round(hours * 3600), key=f"approval-{self.attempt}")
        decided = known.answered("approved" if answer.decision == "approve" else "rejected", answer.comment.strip())
        self.ledger.keep_approval(decided)
        return decided

    def _known(self) -> Approval | None:
        try:
            return self.ledger.approval()
        except ArtifactMissing:
            return None


def digest_of(ledger: Ledger, manifest: RunManifest) -> str:
    """What the changeset specs of a run come to: equal if, and only if, the same is proposed."""
    return ledger.changesets_digest(manifest)


def _description(manifest: RunManifest, ledger: Ledger) -> str:
    """What the form says above its fields, in markdown. Titles and names are shown as code: nobody trusts them."""
    numbers = range(1, manifest.changeset_specs + 1)
    specs = [json.loads(ledger.store.get(ledger.key(f"changesets/{number}.json"))) for number in numbers[:SHOWN]]
    lines = [f"* {code(spec['baseRepository'])}: {code(spec.get('title', ''))}" for spec in specs]
    if len(numbers) > SHOWN:
        lines.append(f"* and {len(numbers) - SHOWN} more")
    return "\n".join((f"{len(numbers)} changeset specs are ready. Their diffs are on the tab *Artifacts*.\n", *lines))
