"""How changesets are published: what is decided outside of the batch spec."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PublishOptions(BaseModel):
    """How changesets are published. What they are stands in the batch spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: str = Field(default="*", description="Glob: publish only the changesets of repositories whose names match.")
    undecided: Literal["leave", "draft", "publish"] = Field(
        default="leave", description="What becomes of changesets for which the spec's `published` says nothing."
    )
    foreign_commits: Literal["stop", "overwrite"] = Field(
        default="stop",
        description="What to do where somebody else put commits on a changeset's branch: leave it and say so, or "
        "replace them.",
    )
    removed: Literal["keep", "close", "detach"] = Field(
        default="keep", description="What becomes of changesets that were published before and are in this run no more."
    )
    reopen: bool = Field(
        default=False,
        description="Open changesets again that were closed on the code host or by `batchwright close`, take up those "
        "that were let go of, and make those anew that are gone from it.",
    )
    rebase: bool = Field(
        default=True, description="Put a changeset on top of its base branch when nothing but the base has changed."
    )
    older: bool = Field(default=False, description="Also where a later run was published already.")
    incomplete: bool = Field(
        default=False, description="Also if the run did not complete: publish the changesets that it has."
    )
    fork: bool = Field(
        default=False, description="Push to forks, unless the spec's `fork` says something for the changeset."
    )
    fork_owner: str = Field(default="", description="Who owns the forks. Empty: the user of the token.")
    labels: tuple[str, ...] = Field(default=(), description="Labels to set on review requests.")
    reviewers: tuple[str, ...] = Field(
        default=(), description="Users to ask for a review; `team:NAME` is a team, where the host has teams."
    )
    assignees: tuple[str, ...] = Field(default=(), description="Users to assign review requests to.")
    link: str = Field(
        default="", description="The address that review requests give for the batch change, in their last line."
    )
    changesets_at_once: int = Field(default=4, ge=1, le=64, description="How many changesets to work on at a time.")
