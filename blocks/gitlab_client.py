"""GitLab by its REST interface, with python-gitlab."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from threading import Event
from typing import Any, TypeVar
from urllib.parse import quote

from gitlab import Gitlab
from gitlab.exceptions import GitlabError
from requests import RequestException, Response, Session

from blocks.code_host_settings import TIMEOUT_SECONDS, HttpHost
from blocks.code_hosts import Checks, Health, HostRefused, MergeMethod, People, Proposal, RequestState, ReviewRequest
from blocks.gitlab_host import GitLab
from blocks.host_answers import no_fork, number_of, trouble, unreachable
from blocks.per_thread import PerThread
from blocks.sources import Credentials, RepositoryLocation

_T = TypeVar("_T")

_DRAFT = "Draft: "
_STATES: dict[str, RequestState] = {"opened": "open", "locked": "open", "merged": "merged", "closed": "closed"}
_RUNNING = frozenset({"created", "waiting_for_resource", "preparing", "pending", "running", "scheduled", "manual"})


class GitLabHost(HttpHost[GitLab]):
    """A ``CodeHost`` by GitLab's REST interface. Drafts are a beginning of the title there: it is added and removed."""

    def __init__(self, settings: GitLab, stop: Event | None = None) -> None:
        super().__init__(settings, stop)
        self._mine = threading.local()
        self._clients = PerThread(self._connect, lambda client: client.session.close())

    def disconnect(self) -> None:
        self._clients.close_all()

    def location(self, repository: str) -> RepositoryLocation:
        return self._location(repository, Credentials("oauth2", self._settings.token))

    def fork(self, repository: str, owner: str) -> str:
        """GitLab refuses by 409 where there is a project of that path already: the fork, or some other one."""
        owner = owner or str(self._get("/user")["username"])
        path = f"{owner}/{repository.rpartition('/')[2]}"
        made = self._ask(
            lambda: self._client().http_post(
                f"{_project(repository)}/fork", post_data={"namespace_path": owner}, obey_rate_limit=False
            ),
            write=True,
            allowed=409,
        )
        if isinstance(made, dict):
            return str(made["path_with_namespace"])
        found = self._get(_project(path))
        parent = str((found.get("forked_from_project") or {}).get("path_with_namespace", ""))
        if parent.lower() != repository.lower():
            raise no_fork(self._where, path, repository)
        return str(found["path_with_namespace"])

    def find(self, repository: str, branch: str, head_repository: str) -> ReviewRequest | None:
        query = {"source_branch": branch, "state": "all", "order_by": "created_at", "sort": "desc", "scope": "all"}
        fork = self._id_of(head_repository) if head_repository else None
        found = [
            _request(entry)
            for entry in self._list(f"{_project(repository)}/merge_requests", query)
            if entry["source_project_id"] == (fork or entry["target_project_id"])
        ]
        return next((request for request in found if request.state == "open"), found[0] if found else None)

    def read(self, repository: str, id: str) -> ReviewRequest:
        return _request(self._get(self._path(repository, id)))

    def open(self, repository: str, proposal: Proposal) -> ReviewRequest:
        content: dict[str, Any] = {
            "source_branch": proposal.head_branch,
            "target_branch": proposal.base_branch,
            "title": f"{_DRAFT}{proposal.title}" if proposal.draft else proposal.title,
            "description": proposal.body,
        }
        if proposal.head_repository:
            content["target_project_id"] = self._id_of(repository)
        path = f"{_project(proposal.head_repository or repository)}/merge_requests"
        return _request(self._write(lambda client: client.http_post(path, post_data=content, obey_rate_limit=False)))

    def edit(self, repository: str, request: ReviewRequest, *, title: str, body: str, base_branch: str) -> None:
        shown = f"{_DRAFT}{title}" if request.draft else title
        self._put(repository, request, {"title": shown, "description": body, "target_branch": base_branch})

    def mark_ready(self, repository: str, request: ReviewRequest) -> None:
        self._put(repository, request, {"title": request.title})

    def ask(self, repository: str, request: ReviewRequest, add: People, drop_labels: Iterable[str]) -> None:
        content: dict[str, Any] = {}
        if add.labels:
            content["add_labels"] = ",".join(add.labels)
        if dropped := ",".join(drop_labels):
            content["remove_labels"] = dropped
        if add.reviewers or add.assignees:
            known = self._get(self._path(repository, request.id))
            for field, names in (("reviewer", add.reviewers), ("assignee", add.assignees)):
                if names:
                    there = [person["id"] for person in known[f"{field}s"]]
                    content[f"{field}_ids"] = [*there, *(self._user(name) for name in names)]
        if content:
            self._put(repository, request, content)

    def close(self, repository: str, request: ReviewRequest) -> None:
        self._put(repository, request, {"state_event": "close"})

    def reopen(self, repository: str, request: ReviewRequest) -> None:
        self._put(repository, request, {"state_event": "reopen"})

    def merge(self, repository: str, request: ReviewRequest, method: MergeMethod) -> None:
        """Whether there is a merge commit or a rebase is a setting of the GitLab project."""
        content = {"sha": request.head_commit, "squash": method == "squash"}
        path = f"{self._path(repository, request.id)}/merge"
        self._write(lambda client: client.http_put(path, post_data=content, obey_rate_limit=False))

    def health(self, repository: str, request: ReviewRequest) -> Health:
        known = self._get(self._path(repository, request.id))
        approvals = self._get(f"{self._path(repository, request.id)}/approvals")
        status = known.get("detailed_merge_status")
        working = status in ("checking", "unchecked", "preparing")
        return Health(
            review="changes_requested"
            if status == "requested_changes"
            else "approved"
            if approvals.get("approved") and approvals.get("approved_by")
            else "pending",
            checks=_checks(known.get("head_pipeline")),
            conflicts=None if working else bool(known["has_conflicts"]),
        )

    def _path(self, repository: str, id: str) -> str:
        return f"{_project(repository)}/merge_requests/{number_of(self._where, id)}"

    def _user(self, name: str) -> int:
        found = self._list("/users", {"username": name})
        if not found:
            raise HostRefused(self._where, f"there is no user {name}")
        return int(found[0]["id"])

    def _id_of(self, repository: str) -> int:
        """A project's number; it never changes."""
        known: dict[str, int] = self._mine.__dict__.setdefault("ids", {})
        if repository not in known:
            known[repository] = int(self._get(_project(repository))["id"])
        return known[repository]

    def _put(self, repository: str, request: ReviewRequest, content: dict[str, Any]) -> None:
        path = self._path(repository, request.id)
        self._write(lambda client: client.http_put(path, post_data=content, obey_rate_limit=False))

    def _get(self, path: str) -> dict[str, Any]:
        found: Any = self._ask(lambda: self._client().http_get(path, obey_rate_limit=False))
        return dict(found)

    def _list(self, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        def look() -> list[dict[str, Any]]:
            return list(self._client().http_list(path, query_data=query, get_all=True, obey_rate_limit=False))

        return list(self._ask(look))

    def _write(self, verb: Callable[[Gitlab], Any]) -> dict[str, Any]:
        return dict(self._ask(lambda: verb(self._client()), write=True) or {})

    def _client(self) -> Gitlab:
        return self._clients.get()

    def _connect(self) -> Gitlab:
        session = Session()
        session.hooks["response"].append(self._remember_headers)
        if proxies := self._settings.proxies():
            session.proxies, session.trust_env = proxies, False
        return Gitlab(
            self._settings.url,
            private_token=self._settings.token.get_secret_value(),
            ssl_verify=self._settings.ca_bundle or True,
            timeout=TIMEOUT_SECONDS,
            per_page=100,
            keep_base_url=True,
            session=session,
        )

    def _remember_headers(self, response: Response, *args: object, **kwargs: object) -> None:
        """The library's errors do not have them, and they say when to ask again."""
        self._mine.headers = dict(response.headers)

    def _ask(self, verb: Callable[[], _T], *, write: bool = False, allowed: int = 0) -> _T | Any:
        """What GitLab gives; None for an error of status ``allowed``."""
        return self._pace.ask(lambda: self._translated(verb, allowed), write=write)

    def _translated(self, verb: Callable[[], _T], allowed: int) -> _T | None:
        try:
            return verb()
        except GitlabError as error:
            if allowed and error.response_code == allowed:
                return None
            if error.response_code is None:
                raise HostRefused(self._where, f"its answer is not understood: {error.error_message}") from None
            raise trouble(self._where, error.response_code, self._mine.headers, str(error.error_message)) from None
        except RequestException as error:
            raise unreachable(self._where, error) from None


def _project(repository: str) -> str:
    return f"/projects/{quote(repository, safe='')}"


def _request(entry: dict[str, Any]) -> ReviewRequest:
    draft = bool(entry.get("draft"))
    return ReviewRequest(
        id=str(entry["iid"]),
        url=str(entry["web_url"]),
        state=_STATES[entry["state"]],
        draft=draft,
        title=str(entry["title"]).removeprefix(_DRAFT) if draft else str(entry["title"]),
        body=str(entry.get("description") or "").replace("\r\n", "\n"),
        head_branch=str(entry["source_branch"]),
        head_commit=str(entry.get("sha") or ""),
        base_branch=str(entry["target_branch"]),
        labels=tuple(entry.get("labels") or ()),
    )


def _checks(pipeline: dict[str, Any] | None) -> Checks:
    if not pipeline:
        return "none"
    status = pipeline["status"]
    return "passed" if status in ("success", "skipped") else "running" if status in _RUNNING else "failed"
