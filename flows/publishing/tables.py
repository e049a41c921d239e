"""Changesets as people look at them: rows for tables, in the dashboard and on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..batches.tracked import TrackedChangeset
from .outcomes import Outcome

Row = dict[str, str]


def tracked_row(tracked: TrackedChangeset) -> Row:
    """A changeset as it was seen last."""
    conflicts = {None: "", True: "conflicts", False: "none"}[tracked.conflicts]
    return {
        "repository": tracked.repository,
        "branch": tracked.branch,
        "state": f"{tracked.state} (imported)" if tracked.imported else tracked.state,
        "review": tracked.review.replace("_", " "),
        "checks": tracked.checks,
        "merge conflicts": conflicts,
        "url": tracked.url,
        "problem": tracked.problem,
    }


def outcome_row(outcome: Outcome) -> Row:
    """What became of a changeset."""
    return {
        "repository": outcome.repository,
        "branch": outcome.branch,
        "outcome": outcome.done,
        "url": outcome.url,
        "what": "; ".join(outcome.actions),
        "reason": outcome.reason,
    }


def headline(changesets: Iterable[TrackedChangeset]) -> str:
    """All changesets of a batch change in one line."""
    states = Counter(tracked.state for tracked in changesets)
    counted = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return f"{states.total()} changesets: {counted}" if states else "no changesets"
