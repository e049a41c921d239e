"""The labels on everything we make in an engine: whose it is, and when it is certainly abandoned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

from blocks.owners import certainly_dead, current_owner, parse_owner

_PREFIX = "batchwright."
OWNER = _PREFIX + "owner"
DEADLINE = _PREFIX + "deadline"
RUN = _PREFIX + "run"
LIFE = _PREFIX + "life"
"""A name that one workspace has once: who knows that it is over knows that all with it can go."""

_NAME = "batchwright-"


def our_name(about: str) -> str:
    """A name for a container that we make, which no other one has. Every container of ours has one."""
    return f"{_NAME}{about}-{uuid4().hex[:12]}"


def is_our_name(name: str) -> bool:
    """Whether a container of this name may be ours. Labels do not say it: an image may have any, and hands them on."""
    return name.startswith(_NAME)


def our_labels(about: Mapping[str, str], lifetime_seconds: float) -> dict[str, str]:
    """Labels of a thing that this process makes and needs no longer than ``lifetime_seconds``.

    ``about``: names such as run, workspace, step. They get our prefix unless they have a dot.
    """
    deadline = datetime.fromtimestamp(time.time() + lifetime_seconds, UTC)
    named = {name if "." in name else _PREFIX + name: text for name, text in about.items()}
    return {**named, OWNER: str(current_owner()), DEADLINE: deadline.isoformat(timespec="seconds")}


def is_abandoned(labels: Mapping[str, str]) -> bool:
    """Whether nobody can need this any more: its process is dead or, where that cannot be seen, its time is over."""
    owner = parse_owner(labels.get(OWNER, ""))
    dead = certainly_dead(owner) if owner else None
    return _is_over(labels.get(DEADLINE, "")) if dead is None else dead


def _is_over(deadline: str) -> bool:
    try:
        return datetime.fromisoformat(deadline) < datetime.now(UTC)
    except (ValueError, TypeError):  # not a date of ours, or one without a time zone
        return False
