"""The batch spec as frozen models. Loading and validation are in ``loading``; nothing here refuses anything.

Upstream: lib/batches/batch_spec.go. Field names follow the YAML, in snake case.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Published = bool | Literal["draft"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OnQuery(_Model):
    """`on: repositoriesMatchingQuery`."""

    query: str


class OnRepository(_Model):
    """`on: repository`. No branches means the default branch."""

    repository: str
    branches: tuple[str, ...] = ()


class WorkspaceRule(_Model):
    """One entry of `workspaces`: every folder that holds ``root_at_location_of`` becomes a workspace."""

    root_at_location_of: str
    in_: str = "*"
    only_fetch_workspace: bool = False


class EnvEntry(_Model):
    """One environment variable of a step. ``value`` None: the value comes from outside, by name."""

    name: str
    value: str | None


class Output(_Model):
    """One entry of a step's `outputs`. ``format`` "" is text."""

    value: str
    format: Literal["", "text", "json", "yaml"] = ""


class Mount(_Model):
    """One entry of a step's `mount`: ``path`` beside the spec, ``mountpoint`` in the container."""

    path: str
    mountpoint: str


class Step(_Model):
    """One script in a container image. ``condition`` is `if`; "" means: always run."""

    run: str
    container: str
    env: tuple[EnvEntry, ...] = ()
    files: dict[str, str] = {}
    outputs: dict[str, Output] = {}
    condition: str = ""
    mounts: tuple[Mount, ...] = ()


class Group(_Model):
    """One entry of `transformChanges.group`."""

    directory: str
    branch: str
    repository: str = ""


class ImportChangesets(_Model):
    """One entry of `importChangesets`; integer ids are their digits."""

    repository: str
    external_ids: tuple[str, ...]


class Author(_Model):
    name: str
    email: str


class PublishedRule(_Model):
    """One entry of a `published` list."""

    pattern: str
    value: Published


class ChangesetTemplate(_Model):
    """What each changeset spec says. ``published`` None: decided in the UI."""

    title: str
    body: str = ""
    branch: str
    message: str
    author: Author | None = None
    fork: bool | None = None
    published: Published | tuple[PublishedRule, ...] | None = None


class BatchSpec(_Model):
    version: int = 1
    name: str
    description: str = ""
    on: tuple[OnQuery | OnRepository, ...] = ()
    workspaces: tuple[WorkspaceRule, ...] = ()
    steps: tuple[Step, ...] = ()
    groups: tuple[Group, ...] = ()
    import_changesets: tuple[ImportChangesets, ...] = ()
    changeset_template: ChangesetTemplate | None = None
