"""What a Sourcegraph instance is asked and told, a method each: repositories, workspaces, specs. No Prefect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from blocks import instance_search
from blocks.instance_client import Access, Connection
from blocks.instance_errors import InstanceMissing, InstanceRefused
from blocks.sources import Credentials, FoundWorkspace, KnownRepository, RepositoryLocation, Route, location

SUPPORTED = frozenset({"github", "gitlab", "bitbucketServer", "bitbucketCloud", "azuredevops", "gerrit", "perforce"})
"""Kinds of code hosts on which an instance can publish changesets."""

_REPOSITORY = "id name url externalRepository{serviceType} defaultBranch{name target{oid}}"
_HEADS = "refs/heads/"


@dataclass(frozen=True)
class Namespace:
    """A user or an organization that has batch changes. ``url`` is a path."""

    id: str
    url: str


@dataclass(frozen=True)
class CreatedBatchSpec:
    """A batch spec on the instance, to be looked at and applied at ``apply_url``."""

    id: str
    apply_url: str


@dataclass(frozen=True)
class BatchChangeNow:
    """A batch change as it is now. ``state`` "" if the instance does not say it."""

    id: str
    state: str
    spec_id: str
    spec: str
    """The batch spec that was applied last, as its author wrote it."""


@dataclass(frozen=True)
class GitAccess:
    """How git reaches the repositories through the instance."""

    address: str
    """With `{url}` and `{repository}`."""
    executor_token: SecretStr | None = None


class InstanceApi:
    """An instance, asked with one user's token. For any thread. Everything raises InstanceTrouble."""

    def __init__(
        self, access: Access, git: GitAccess, *, resolves_specs: bool = True, cancel: Event | None = None
    ) -> None:
        self.resolves_specs = resolves_specs
        self._connection, self._access, self._git = Connection(access, cancel), access, git

    @property
    def url(self) -> str:
        """The instance's address, without a slash at its end."""
        return self._access.url

    def find(self, query: str, *, keyword: bool) -> dict[str, tuple[str, ...]]:
        """The repositories that a query of `on` finds, with the paths found in each."""
        return instance_search.find(self._connection, query, pattern_type="keyword" if keyword else "standard")

    def repository(self, name: str) -> KnownRepository | None:
        """A repository by its name; None if there is none, or none that the user may see."""
        asked = "query($n:String!){repository(name:$n){" + _REPOSITORY + "}}"
        found = self._connection.graphql(asked, n=name).get("repository")
        return self._known(found) if found else None

    def commit_of(self, name: str, revision: str) -> str | None:
        """The commit of a revision; None if there is no such thing."""
        asked = "query($n:String!,$rev:String!){repository(name:$n){commit(rev:$rev){oid}}}"
        try:
            found = self._connection.graphql(asked, n=name, rev=revision).get("repository")
        except InstanceMissing:  # some versions say null, others that the revision was not found
            return None
        commit = (found or {}).get("commit")
        return str(commit["oid"]) if commit else None

    def workspaces(self, spec: str) -> tuple[FoundWorkspace, ...]:
        """Let the instance resolve `on` and `workspaces` of a batch spec."""
        asked = (
            "query($spec:String!){resolveWorkspacesForBatchSpec(batchSpec:$spec){"
            "onlyFetchWorkspace ignored unsupported repository{"
            + _REPOSITORY
            + "} branch{name target{oid}} path searchResultPaths}}"
        )
        found = self._connection.graphql(asked, spec=spec).get("resolveWorkspacesForBatchSpec") or ()
        return tuple(self._workspace(each) for each in found if each.get("repository") and each.get("branch"))

    def namespace(self, name: str = "") -> Namespace:
        """The organization or user of a name; without one, the user whose token we have. Raises InstanceMissing."""
        if name:
            asked = "query($name:String!){organization(name:$name){id url}}"
            found = self._optional(asked, "organization", name=name) or self._optional(
                "query($username:String!){user(username:$username){id url}}", "user", username=name
            )
        else:
            found = self._connection.graphql("query{currentUser{id url}}").get("currentUser")
        if not found:
            what = f"no user and no organization {name!r}" if name else "the access token belongs to no user"
            raise InstanceMissing(f"{self.url} (namespace)", what)
        return Namespace(found["id"], found.get("url") or "")

    def create_changeset_spec(self, spec: str) -> str:
        """Upload a changeset spec (JSON); its id. A second upload makes a second one, which the instance forgets."""
        asked = (
            "mutation($spec:String!){createChangesetSpec(changesetSpec:$spec){"
            "... on HiddenChangesetSpec{id} ... on VisibleChangesetSpec{id}}}"
        )
        return str(self._connection.graphql(asked, spec=spec)["createChangesetSpec"]["id"])

    def create_batch_spec(self, namespace: str, spec: str, changeset_specs: list[str]) -> CreatedBatchSpec:
        """Put changeset specs together under a batch spec (its YAML): a preview, that changes nothing yet.

        ``namespace`` and ``changeset_specs`` are ids.
        """
        asked = (
            "mutation($namespace:ID!,$spec:String!,$changesetSpecs:[ID!]!){createBatchSpec(namespace:$namespace,"
            "batchSpec:$spec,changesetSpecs:$changesetSpecs){id applyURL}}"
        )
        created = self._connection.graphql(asked, namespace=namespace, spec=spec, changesetSpecs=changeset_specs)
        found = created["createBatchSpec"]
        return CreatedBatchSpec(found["id"], self._absolute(found["applyURL"]))

    def apply(self, batch_spec: str) -> str:
        """Apply a batch spec by its id: changesets are published, updated, closed. The batch change's address.

        Applying what is applied already changes nothing.
        """
        asked = "mutation($b:ID!){applyBatchChange(batchSpec:$b){url}}"
        return self._absolute(self._connection.graphql(asked, b=batch_spec)["applyBatchChange"]["url"])

    def batch_change(self, id: str) -> BatchChangeNow | None:
        """A batch change by its id, with the spec that was applied last; None if there is none."""
        asked = "query($id:ID!){node(id:$id){... on BatchChange{%scurrentSpec{id originalInput}}}}"
        try:
            found = self._optional(asked % "id state ", "node", id=id)
        except InstanceRefused:  # a version that has no such field
            found = self._optional(asked % "", "node", id=id)
        if not found or not found.get("currentSpec"):
            return None
        spec = found["currentSpec"]
        return BatchChangeNow(found.get("id") or id, found.get("state") or "", spec["id"], spec["originalInput"])

    def _optional(self, query: str, part: str, **variables: str) -> Any:
        """A part of an answer, None also where the instance says by an error that there is no such thing."""
        try:
            return self._connection.graphql(query, **variables).get(part)
        except InstanceMissing:
            return None

    def _known(self, found: Any) -> KnownRepository:
        name, default = found["name"], found.get("defaultBranch") or {}
        commit = (default.get("target") or {}).get("oid") or ""
        return KnownRepository(
            location=self._location(name),
            id=found["id"],
            branch=(default.get("name") or "").removeprefix(_HEADS) if commit else "",
            commit=commit,
            supported=(found.get("externalRepository") or {}).get("serviceType", "github") in SUPPORTED,
        )

    def _workspace(self, found: Any) -> FoundWorkspace:
        return FoundWorkspace(
            repository=self._known(found["repository"]),
            branch=found["branch"]["name"].removeprefix(_HEADS),
            commit=found["branch"]["target"]["oid"],
            path=(found.get("path") or "").strip("/"),
            only_fetch_workspace=bool(found.get("onlyFetchWorkspace")),
            ignored=bool(found.get("ignored")),
            supported=not found.get("unsupported"),
            search_result_paths=tuple(sorted(found.get("searchResultPaths") or ())),
        )

    def _location(self, name: str) -> RepositoryLocation:
        address = self._git.address.replace("{url}", self.url).replace("{repository}", quote(name))
        token = self._git.executor_token
        header = f"token-executor {token.get_secret_value()}" if token else ""
        if not token and self._access.token:
            header = f"token {self._access.token.get_secret_value()}"
        bundle = str(Path(self._access.ca_bundle).expanduser()) if self._access.ca_bundle else ""
        return replace(
            location(name, address),
            credentials=Credentials(headers={"Authorization": SecretStr(header)} if header else {}),
            route=Route(ca_bundle=bundle, verify=self._access.verify),
        )

    def _absolute(self, path: str) -> str:
        return path if "://" in path else f"{self.url}{path}"
