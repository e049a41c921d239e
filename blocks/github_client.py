"""GitHub by its REST interface, with PyGithub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event
from typing import Any, TypeVar

from github import Auth, Github
from github.GithubException import BadAttributeException, GithubException
from github.PullRequest import PullRequest
from github.Repository import Repository
from github.Requester import HTTPRequestsConnectionClass, HTTPSRequestsConnectionClass
from pydantic import SecretStr
from requests import RequestException

from blocks.code_host_settings import TIMEOUT_SECONDS, HttpHost
from blocks.code_hosts import (
    Checks,
    Health,
    HostTrouble,
    MergeMethod,
    NotThere,
    People,
    Proposal,
    RequestState,
    Review,
    ReviewRequest,
)
from blocks.github_host import GitHub
from blocks.host_answers import not_understood, number_of, trouble, unreachable
from blocks.per_thread import PerThread
from blocks.sources import Credentials, RepositoryLocation

_T = TypeVar("_T")

_TEAM = "team:"
_FAILED = frozenset({"failure", "timed_out", "cancelled", "action_required", "startup_failure", "stale"})


class GitHubHost(HttpHost[GitHub]):
    """A ``CodeHost`` by GitHub's REST interface."""

    def __init__(self, settings: GitHub, stop: Event | None = None) -> None:
        super().__init__(settings, stop)
        self._clients = PerThread(self._connect, Github.close)

    def disconnect(self) -> None:
        self._clients.close_all()

    def location(self, repository: str) -> RepositoryLocation:
        token = self._settings.token or SecretStr(self._ask(lambda: str(self._client().requester.auth.token)))  # type: ignore[union-attr]
        return self._location(repository, Credentials(token=token))

    def fork(self, repository: str, owner: str) -> str:
        """GitHub gives the fork that there is; a new one comes to be in the background."""

        def make() -> str:
            found = self._repository(repository)
            made = found.create_fork(organization=owner) if owner else found.create_fork()
            return made.full_name

        return self._ask(make, write=True)

    def find(self, repository: str, branch: str, head_repository: str) -> ReviewRequest | None:
        owner = (head_repository or repository).partition("/")[0]

        def look() -> list[ReviewRequest]:
            pulls = self._repository(repository).get_pulls(
                state="all", sort="created", direction="desc", head=f"{owner}:{branch}"
            )
            return [_request(pull) for pull in pulls if pull.head.ref == branch]

        found = self._ask(look)
        return next((request for request in found if request.state == "open"), found[0] if found else None)

    def read(self, repository: str, id: str) -> ReviewRequest:
        return self._ask(lambda: _request(self._pull(repository, id)))

    def open(self, repository: str, proposal: Proposal) -> ReviewRequest:
        owner = proposal.head_repository.partition("/")[0]

        def make() -> ReviewRequest:
            pull = self._repository(repository).create_pull(
                base=proposal.base_branch,
                head=f"{owner}:{proposal.head_branch}" if owner else proposal.head_branch,
                title=proposal.title,
                body=proposal.body,
                draft=proposal.draft,
            )
            return _request(pull)

        return self._ask(make, write=True)

    def edit(self, repository: str, request: ReviewRequest, *, title: str, body: str, base_branch: str) -> None:
        self._ask(lambda: self._lazy(repository, request).edit(title=title, body=body, base=base_branch), write=True)

    def mark_ready(self, repository: str, request: ReviewRequest) -> None:
        """Only GraphQL can do it."""

        def mark() -> None:
            self._client().requester.graphql_named_mutation(
                "markPullRequestReadyForReview", {"pullRequestId": request.handle}, "pullRequest { isDraft }"
            )

        self._ask(mark, write=True)

    def ask(self, repository: str, request: ReviewRequest, add: People, drop_labels: Iterable[str]) -> None:
        pull = self._lazy(repository, request)
        if add.labels:
            self._ask(lambda: pull.add_to_labels(*add.labels), write=True)
        for label in drop_labels:
            with suppress(NotThere):  # somebody took it off already
                self._ask(lambda label=label: pull.remove_from_labels(label), write=True)  # type: ignore[misc]
        if add.reviewers:
            users = [name for name in add.reviewers if not name.startswith(_TEAM)]
            teams = [name.removeprefix(_TEAM) for name in add.reviewers if name.startswith(_TEAM)]
            self._ask(lambda: pull.create_review_request(reviewers=users, team_reviewers=teams), write=True)
        if add.assignees:
            self._ask(lambda: pull.add_to_assignees(*add.assignees), write=True)

    def close(self, repository: str, request: ReviewRequest) -> None:
        self._ask(lambda: self._lazy(repository, request).edit(state="closed"), write=True)

    def reopen(self, repository: str, request: ReviewRequest) -> None:
        self._ask(lambda: self._lazy(repository, request).edit(state="open"), write=True)

    def merge(self, repository: str, request: ReviewRequest, method: MergeMethod) -> None:
        self._ask(
            lambda: self._lazy(repository, request).merge(merge_method=method, sha=request.head_commit), write=True
        )

    def health(self, repository: str, request: ReviewRequest) -> Health:
        pull = self._ask(lambda: self._pull(repository, request.id))
        mergeable = pull.mergeable  # None: GitHub works it out because we asked; so ask again
        if mergeable is None and request.state == "open":
            mergeable = self._ask(lambda: self._pull(repository, request.id).mergeable)
        return Health(
            review=_review(self._ask(lambda: [(each.user.login, each.state) for each in pull.get_reviews()])),
            checks=self._checks(repository, pull.head.sha),
            conflicts=None if mergeable is None else not mergeable,
        )

    def _checks(self, repository: str, commit: str) -> Checks:
        def look() -> set[str]:
            found = self._repository(repository).get_commit(commit)  # lazy: no request of its own
            combined = found.get_combined_status()
            states = {combined.state} if combined.total_count else set()
            return states | {str(run.conclusion or "pending") for run in found.get_check_runs()}

        states = self._ask(look)
        if states & {*_FAILED, "error"}:
            return "failed"
        return "running" if "pending" in states else "passed" if states else "none"

    def _pull(self, repository: str, id: str) -> PullRequest:
        pull = self._repository(repository).get_pull(number_of(self._where, id))
        pull.complete()
        return pull

    def _lazy(self, repository: str, request: ReviewRequest) -> PullRequest:
        """A pull request to act on, without asking for it."""
        address = f"{self._settings.interface}/repos/{repository}"
        known = {"url": f"{address}/pulls/{request.id}", "issue_url": f"{address}/issues/{request.id}"}
        return PullRequest(self._client().requester, {}, known, completed=True)

    def _repository(self, repository: str) -> Repository:
        return self._client().get_repo(repository)

    def _client(self) -> Github:
        return self._clients.get()

    def _connect(self) -> Github:
        client = Github(
            auth=_auth(self._settings),
            base_url=self._settings.interface,
            timeout=int(TIMEOUT_SECONDS),
            user_agent="batchwright",
            per_page=100,
            verify=self._settings.ca_bundle or True,
            lazy=True,  # no request but what we ask for
            retry=None,  # we pace and repeat ourselves, for all threads together
            seconds_between_requests=None,
            seconds_between_writes=None,
        )
        _use_proxies(client, self._settings.proxies())
        return client

    def _ask(self, verb: Callable[[], _T], *, write: bool = False) -> _T:
        return self._pace.ask(lambda: self._translated(verb), write=write)

    def _translated(self, verb: Callable[[], _T]) -> _T:
        try:
            return verb()
        except GithubException as error:
            raise self._trouble(error) from None  # it shows headers and data
        except BadAttributeException as error:
            raise not_understood(self._where, error) from None
        except RequestException as error:
            raise unreachable(self._where, error) from None

    def _trouble(self, error: GithubException) -> HostTrouble:
        return trouble(self._where, error.status, error.headers or {}, _said(error))


def _auth(settings: GitHub) -> Auth.Auth:
    """Who we are, in PyGithub's words."""
    if settings.token is not None:
        return Auth.Token(settings.token.get_secret_value())
    assert settings.private_key is not None
    assert settings.installation_id is not None
    app = Auth.AppAuth(settings.app_id, settings.private_key.get_secret_value())
    return app.get_installation_auth(settings.installation_id)


def _use_proxies(client: Github, proxies: dict[str, str]) -> None:
    """PyGithub takes a proxy from the environment only; this gives one client connections with a proxy of their own."""
    if not proxies:
        return
    requester: Any = client.requester

    def through_proxy(kind: type[Any]) -> Callable[..., Any]:
        def connect(*args: Any, **kwargs: Any) -> Any:
            connection = kind(*args, **kwargs)
            connection.session.proxies = proxies
            connection.session.trust_env = False
            return connection

        return connect

    https = requester.scheme == "https"
    requester._Requester__connectionClass = through_proxy(
        HTTPSRequestsConnectionClass if https else HTTPRequestsConnectionClass
    )


def _request(pull: PullRequest) -> ReviewRequest:
    state: RequestState = "merged" if pull.merged_at else "open" if pull.state == "open" else "closed"
    return ReviewRequest(
        id=str(pull.number),
        url=pull.html_url,
        state=state,
        draft=bool(pull.draft),
        title=pull.title,
        body=(pull.body or "").replace("\r\n", "\n"),
        head_branch=pull.head.ref,
        head_commit=pull.head.sha,
        base_branch=pull.base.ref,
        labels=tuple(label.name for label in pull.labels),
        handle=pull.node_id,
    )


def _review(reviews: Iterable[tuple[str, str]]) -> Review:
    """The verdict of all; of each person the last one that is a verdict counts."""
    last = {who: state for who, state in reviews if state in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")}
    if "CHANGES_REQUESTED" in last.values():
        return "changes_requested"
    return "approved" if "APPROVED" in last.values() else "pending"


def _said(error: GithubException) -> str:
    """The message with its details, which say what is wrong."""
    data = error.data if isinstance(error.data, dict) else {}
    details = [
        str(each.get("message") or each.get("code") or "") if isinstance(each, dict) else str(each)
        for each in data.get("errors") or ()
    ]
    return "; ".join(part for part in (str(data.get("message") or error.message or ""), *details) if part)
