"""What became of a changeset, and of all of them: for tables, summaries and exit codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from ..batches.records import Part

Done = Literal[
    "opened", "updated", "pushed", "left", "unpublished", "reopened", "closed", "merged", "detached", "imported",
    "kept", "conflict", "failed",
]  # fmt: skip
"""``left``: it is as it should be. ``kept``: it is in the run no more, and was not to be closed."""

TROUBLE: frozenset[Done] = frozenset({"conflict", "failed"})


class Outcome(Part):
    """What became of one changeset."""

    repository: str
    branch: str
    done: Done
    url: str = ""
    actions: tuple[str, ...] = ()
    """What was done, or with a dry run would be done, in order."""
    reason: str = ""


class Counts(Part):
    """How many changesets had which outcome."""

    by_outcome: dict[Done, int] = Field(default_factory=dict)

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Counts:
        """The counts of some outcomes."""
        return cls(by_outcome=dict(Counter(outcome.done for outcome in outcomes)))

    @classmethod
    def total(cls, counts: Iterable[Counts]) -> Counts:
        """The sum."""
        total: Counter[Done] = Counter()
        for each in counts:
            total.update(each.by_outcome)
        return cls(by_outcome=dict(total))

    @property
    def trouble(self) -> int:
        """How many need a person."""
        return sum(number for done, number in self.by_outcome.items() if done in TROUBLE)

    @property
    def headline(self) -> str:
        """All of it in one line."""
        parts = [f"{number} {done}" for done, number in sorted(self.by_outcome.items())]
        return f"changesets: {', '.join(parts) or 'none'}"
