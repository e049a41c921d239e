"""The block of Gitea and Forgejo. By httpx: there is no client library that is kept well."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from threading import Event
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import Field, HttpUrl, SecretStr

from blocks.code_host_settings import TIMEOUT_SECONDS, CodeHostBlock, HttpHost
from blocks.code_hosts import (
    Checks,
    Health,
    HostRefused,
    MergeMethod,
    People,
    Proposal,
    RequestState,
    Review,
    ReviewRequest,
)
from blocks.host_answers import no_fork, not_understood, number_of, trouble, unreachable
from blocks.sources import Credentials, RepositoryLocation

_DRAFT = "WIP: "
_TEAM = "team:"
_PAGE = 50
"""The most that Gitea gives at once, unless its administrator allows more."""


class Gitea(CodeHostBlock):
    """Propose changesets as pull requests on Gitea or Forgejo.

    The token needs the permissions `repository` and `issue`, both to read and write (and `user` to read, for forks).

    Example:
        ```python
        from blocks.gitea_host import Gitea

        host = Gitea.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Gitea Host"
    _block_type_slug = "gitea-host"
    _description = "Propose changesets as pull requests on Gitea or Forgejo."
    _documentation_url = HttpUrl("https://docs.gitea.com/usage/pull-request")

    token: SecretStr = Field(description="An access token.")

    def connect(self, stop: Event | None = None) -> GiteaHost:
        """The host. Asks nobody."""
        return GiteaHost(self, stop)


class GiteaHost(HttpHost[Gitea]):
    """A ``CodeHost`` by Gitea's REST interface. Drafts are a beginning of the title there: it is added and removed."""

    def disconnect(self) -> None:
        if (client := self.__dict__.pop("_client", None)) is not None:
            client.close()

    def location(self, repository: str) -> RepositoryLocation:
        return self._location(repository, Credentials(token=self._settings.token))

    def fork(self, repository: str, owner: str) -> str:
        """Gitea refuses by 409 where there is a repository of that path already: the fork, or some other one."""
        mine = owner or str(self._get("/user")["login"])
        content = {"organization": owner} if owner else {}
        try:
            return str(self._write("POST", f"{_repo(repository)}/forks", content)["full_name"])
        except HostRefused:
            path = f"{mine}/{repository.partition('/')[2]}"
            found = self._get(_repo(path))
            parent = str((found.get("parent") or {}).get("full_name", ""))
            if parent.lower() != repository.lower():
                raise no_fork(self._where, path, repository) from None
            return str(found["full_name"])

    def find(self, repository: str, branch: str, head_repository: str) -> ReviewRequest | None:
        """Gitea finds by base and head together only, so the pull requests are read, as it lists them: newest first."""
        wanted = (head_repository or repository).lower()
        found: ReviewRequest | None = None
        for entry in self._pages(f"{_repo(repository)}/pulls", {"state": "all"}):
            head = entry["head"]
            if head["ref"] != branch or str((head.get("repo") or {}).get("full_name", "")).lower() != wanted:
                continue
            request = _request(entry)
            if request.state == "open":
                return request
            found = found or request
        return found

    def read(self, repository: str, id: str) -> ReviewRequest:
        return _request(self._get(self._path(repository, id)))

    def open(self, repository: str, proposal: Proposal) -> ReviewRequest:
        owner = proposal.head_repository.partition("/")[0]
        content = {
            "head": f"{owner}:{proposal.head_branch}" if owner else proposal.head_branch,
            "base": proposal.base_branch,
            "title": f"{_DRAFT}{proposal.title}" if proposal.draft else proposal.title,
            "body": proposal.body,
        }
        return _request(self._write("POST", f"{_repo(repository)}/pulls", content))

    def edit(self, repository: str, request: ReviewRequest, *, title: str, body: str, base_branch: str) -> None:
        content = {"title": f"{_DRAFT}{title}" if request.draft else title, "body": body}
        if base_branch != request.base_branch:
            content["base"] = base_branch
        self._write("PATCH", self._path(repository, request.id), content)

    def mark_ready(self, repository: str, request: ReviewRequest) -> None:
        self._write("PATCH", self._path(repository, request.id), {"title": request.title})

    def ask(self, repository: str, request: ReviewRequest, add: People, drop_labels: Iterable[str]) -> None:
        dropped = set(drop_labels)
        issue = f"{_repo(repository)}/issues/{number_of(self._where, request.id)}"
        if add.labels or dropped:
            numbers = {entry["name"]: entry["id"] for entry in self._pages(f"{_repo(repository)}/labels", {})}
            if missing := [label for label in add.labels if label not in numbers]:
                raise HostRefused(self._where, f"{repository} has no label {', '.join(missing)}; make it there")
            if add.labels:
                self._write("POST", f"{issue}/labels", {"labels": [numbers[label] for label in add.labels]})
            for label in dropped & numbers.keys():
                self._write("DELETE", f"{issue}/labels/{numbers[label]}", None)
        if add.reviewers:
            content = {
                "reviewers": [name for name in add.reviewers if not name.startswith(_TEAM)],
                "team_reviewers": [name.removeprefix(_TEAM) for name in add.reviewers if name.startswith(_TEAM)],
            }
            self._write("POST", f"{self._path(repository, request.id)}/requested_reviewers", content)
        if add.assignees:
            known = [person["login"] for person in self._get(self._path(repository, request.id)).get("assignees") or ()]
            everyone = [*known, *(name for name in add.assignees if name not in known)]
            self._write("PATCH", self._path(repository, request.id), {"assignees": everyone})

    def close(self, repository: str, request: ReviewRequest) -> None:
        self._write("PATCH", self._path(repository, request.id), {"state": "closed"})

    def reopen(self, repository: str, request: ReviewRequest) -> None:
        self._write("PATCH", self._path(repository, request.id), {"state": "open"})

    def merge(self, repository: str, request: ReviewRequest, method: MergeMethod) -> None:
        content = {"Do": method, "head_commit_id": request.head_commit}
        self._write("POST", f"{self._path(repository, request.id)}/merge", content)

    def health(self, repository: str, request: ReviewRequest) -> Health:
        known = self._get(self._path(repository, request.id))
        status = self._get(f"{_repo(repository)}/commits/{known['head']['sha']}/status")
        return Health(
            review=_review(self._pages(f"{self._path(repository, request.id)}/reviews", {})),
            checks=_checks(status),
            conflicts=None if known.get("mergeable") is None else not known["mergeable"],
        )

    def _path(self, repository: str, id: str) -> str:
        return f"{_repo(repository)}/pulls/{number_of(self._where, id)}"

    def _get(self, path: str) -> dict[str, Any]:
        return dict(self._content(self._pace.ask(lambda: self._answer("GET", path, None, {}))))

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            asked = {**query, "page": str(page), "limit": str(_PAGE)}
            answer = self._pace.ask(lambda asked=asked: self._answer("GET", path, None, asked))  # type: ignore[misc]
            entries = self._content(answer)
            yield from entries
            if not entries or 'rel="next"' not in answer.headers.get("link", ""):
                return
            page += 1

    def _write(self, method: str, path: str, content: dict[str, Any] | None) -> dict[str, Any]:
        answer = self._pace.ask(lambda: self._answer(method, path, content, {}), write=True)
        found = self._content(answer) if answer.content else {}
        return found if isinstance(found, dict) else {}

    def _content(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise not_understood(self._where, error) from None

    def _answer(
        self, method: str, path: str, content: dict[str, Any] | None, query: Mapping[str, str]
    ) -> httpx.Response:
        try:
            answer = self._client.request(method, path, json=content, params=query)
        except httpx.HTTPError as error:
            raise unreachable(self._where, error) from None
        if not answer.is_success:
            raise trouble(self._where, answer.status_code, answer.headers, _said(answer))
        return answer

    @cached_property
    def _client(self) -> httpx.Client:
        bundle, proxy = self._settings.ca_bundle, self._settings.proxy
        return httpx.Client(
            base_url=f"{self._settings.url}/api/v1",
            headers={
                "Authorization": f"token {self._settings.token.get_secret_value()}",
                "User-Agent": "batchwright",
            },
            verify=ssl.create_default_context(cafile=bundle) if bundle else True,
            proxy=proxy.get_secret_value() if proxy else None,
            timeout=TIMEOUT_SECONDS,
        )


def _repo(repository: str) -> str:
    return "/repos/" + "/".join(quote(part, safe="") for part in repository.split("/"))


def _request(entry: Mapping[str, Any]) -> ReviewRequest:
    title, draft = str(entry["title"]), bool(entry.get("draft"))
    state: RequestState = "merged" if entry.get("merged") else "open" if entry["state"] == "open" else "closed"
    return ReviewRequest(
        id=str(entry["number"]),
        url=str(entry["html_url"]),
        state=state,
        draft=draft,
        title=title.removeprefix(_DRAFT) if draft else title,
        body=str(entry.get("body") or "").replace("\r\n", "\n"),
        head_branch=str(entry["head"]["ref"]),
        head_commit=str(entry["head"]["sha"]),
        base_branch=str(entry["base"]["ref"]),
        labels=tuple(label["name"] for label in entry.get("labels") or ()),
    )


def _review(reviews: Iterable[Mapping[str, Any]]) -> Review:
    """The verdict of all; of each person the last one that is a verdict counts."""
    last = {
        entry["user"]["login"]: entry["state"]
        for entry in reviews
        if entry["state"] in ("APPROVED", "REQUEST_CHANGES") and not entry.get("dismissed") and entry.get("user")
    }
    if "REQUEST_CHANGES" in last.values():
        return "changes_requested"
    return "approved" if last else "pending"


def _checks(status: Mapping[str, Any]) -> Checks:
    if not status.get("total_count"):
        return "none"
    state = status["state"]
    return "passed" if state in ("success", "warning") else "running" if state == "pending" else "failed"


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("message") or "")
    except (ValueError, AttributeError):
        return answer.reason_phrase
