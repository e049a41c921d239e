"""A fake of Gitea's REST interface (its OpenAPI document, 1.22): pull requests, reviews, statuses, forks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.code_hosts import repos
from tests.code_hosts.core import Answer, Change, Host, Refused, Repository, Request, paged

_SORTS = {"oldest", "recentupdate", "recentclose", "leastupdate", "mostcomment", "leastcomment", "priority"}
_DRAFT = re.compile(r"^(?:WIP:|\[WIP\])", re.IGNORECASE)


class Gitea(Host):
    api = "/api/v1"

    def accepts(self, password: str) -> bool:
        return password == self.token

    def authenticated(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"token {self.token}"

    def not_found(self) -> Refused:
        return Refused(404, {"message": "The target couldn't be found.", "errors": []})

    def unauthorized(self) -> Refused:
        return Refused(401, {"message": "user does not exist [uid: 0, name: ]"})

    def limited(self, kind: str, seconds: float) -> Refused:
        """A reverse proxy's: Gitea has no limits of its own."""
        return Refused(429, {"message": "Too Many Requests"}, {"Retry-After": str(max(1, round(seconds)))})

    def route(self, request: Request) -> Answer:
        path = request.path.removeprefix(self.api)
        for method, pattern, verb in self._routes:
            if method == request.method and (found := re.fullmatch(pattern, path)):
                return verb(self, request, *found.groups())
        raise self.not_found()

    def _me(self, request: Request) -> Answer:
        return Answer(200, self._person(self.user))

    def _repo(self, request: Request, path: str) -> Answer:
        return Answer(200, self._shown(self.repository(path)))

    def _fork(self, request: Request, path: str) -> Answer:
        self.fields(request.body, self._unknown, organization=str, name=str)
        fork, known = self.fork_of(self.repository(path), request.body.get("organization", self.user))
        if known:
            taken = "already forked by user" if fork.parent == path else "already there under this name"
            raise Refused(409, {"message": f"repository is {taken}"})
        return Answer(202, self._shown(fork))

    def _repo_labels(self, request: Request, path: str) -> Answer:
        entries = [{"id": id, "name": name, "color": "ededed"} for name, id in self.repository(path).labels.items()]
        return paged(entries, request, self, size="limit", default=30, most=50)

    def _list(self, request: Request, path: str) -> Answer:
        if unknown := request.query.keys() - {"state", "sort", "limit", "page", "milestone", "labels", "poster"}:
            raise Refused(422, {"message": f"unknown {unknown}"})
        if request.query.get("sort", "oldest") not in _SORTS:
            raise Refused(422, {"message": "sort: value is not one of those allowed"})
        found = list(reversed(self.repository(path).changes))
        for change in found:
            self.look_at(change)
        if (state := request.query.get("state", "open")) != "all":
            found = [change for change in found if (change.state == "open") == (state == "open")]
        return paged([self._pull(change) for change in found], request, self, size="limit", default=30, most=50)

    def _create(self, request: Request, path: str) -> Answer:
        body = request.body
        self.fields(body, self._unknown, head=str, base=str, title=str, body=str, labels=list, assignees=list)
        repository = self.repository(path)
        if not body.get("title"):
            raise Refused(422, {"message": "[]: Required"})
        owner, colon, branch = body["head"].rpartition(":")
        source = self.repository(f"{owner}/{path.partition('/')[2]}") if colon else repository
        if not repos.branch_commit(self.folder(source.path), branch):
            raise self.not_found()
        if not repos.branch_commit(self.folder(path), body["base"]):
            raise self.not_found()
        if twin := self.twin(repository, source.path, branch, body["base"]):
            text = f"pull request already exists for these targets [id: {twin.number}, issue_id: {twin.number}]"
            raise Refused(409, {"message": text})
        change = self.open_change(
            repository,
            title=body["title"],
            body=body.get("body", ""),
            head_repository=source.path,
            head=branch,
            base=body["base"],
            draft=bool(_DRAFT.match(body["title"])),
        )
        return Answer(201, self._pull(change))

    def _read(self, request: Request, path: str, number: str) -> Answer:
        return Answer(200, self._pull(self.change(self.repository(path), number)))

    def _edit(self, request: Request, path: str, number: str) -> Answer:
        body = request.body
        self.fields(body, self._unknown, title=str, body=str, base=str, state=str, assignees=list, labels=list)
        change = self.change(self.repository(path), number)
        state = body.get("state")
        if state == "open" and change.state != "open":
            if change.state == "merged" or not repos.branch_commit(self.folder(change.head_repository), change.head):
                raise Refused(412, {"message": "cannot reopen this pull request"})
            change.state = "open"
        elif state == "closed":
            if change.state == "merged":
                raise Refused(412, {"message": "cannot change state of this pull request, it was already merged"})
            change.state = "closed"
        change.title, change.body = body.get("title", change.title), body.get("body", change.body)
        change.draft = bool(_DRAFT.match(change.title))
        change.base = body.get("base", change.base)
        change.assignees = body.get("assignees", change.assignees)
        change.edits += 1
        return Answer(201, self._pull(change))

    def _merge(self, request: Request, path: str, number: str) -> Answer:
        body = request.body
        self.fields(body, self._unknown, Do=str, head_commit_id=str, MergeTitleField=str, MergeMessageField=str)
        change = self.change(self.repository(path), number)
        if body.get("Do") not in ("merge", "rebase", "squash", "rebase-merge", "fast-forward-only"):
            raise Refused(422, {"message": "[Do]: In"})
        if change.state != "open" or change.draft or self.conflicts(change):
            raise Refused(405, {"message": "Please try again later"})
        if body.get("head_commit_id", change.frozen) != change.frozen:
            raise Refused(409, {"message": "head out of date"})
        self.merge(change)
        return Answer(200, {})

    def _reviews(self, request: Request, path: str, number: str) -> Answer:
        change = self.change(self.repository(path), number)
        entries = [
            {"id": at, "user": self._person(who), "state": state, "dismissed": False}
            for at, (who, state) in enumerate(change.reviews, 1)
        ]
        return paged(entries, request, self, size="limit", default=30, most=50)

    def _request_reviews(self, request: Request, path: str, number: str) -> Answer:
        self.fields(request.body, self._unknown, reviewers=list, team_reviewers=list)
        change = self.change(self.repository(path), number)
        for name in request.body.get("reviewers", []):
            if name not in self.people:
                raise self.not_found()
            change.reviewers.append(name)
        return Answer(201, [])

    def _labels(self, request: Request, path: str, number: str) -> Answer:
        self.fields(request.body, self._unknown, labels=list)
        repository = self.repository(path)
        change = self.change(repository, number)
        names = {id: name for name, id in repository.labels.items()}
        change.labels += [names[id] for id in request.body["labels"] if names[id] not in change.labels]
        return Answer(200, [])

    def _unlabel(self, request: Request, path: str, number: str, label: str) -> Answer:
        repository = self.repository(path)
        names = {str(id): name for name, id in repository.labels.items()}
        change = self.change(repository, number)
        change.labels = [each for each in change.labels if each != names[label]]
        return Answer(204)

    def _status(self, request: Request, path: str, commit: str) -> Answer:
        states = self.repository(path).statuses.get(commit, {})
        order = ("error", "failure", "pending", "warning", "success")
        worst = next((state for state in order if state in states.values()), "")
        return Answer(200, {"state": worst, "sha": commit, "total_count": len(states), "statuses": []})

    _routes: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
        ("GET", "/user", _me),
        ("GET", "/repos/([^/]+/[^/]+)", _repo),
        ("POST", "/repos/([^/]+/[^/]+)/forks", _fork),
        ("GET", "/repos/([^/]+/[^/]+)/labels", _repo_labels),
        ("GET", "/repos/([^/]+/[^/]+)/pulls", _list),
        ("POST", "/repos/([^/]+/[^/]+)/pulls", _create),
        ("GET", r"/repos/([^/]+/[^/]+)/pulls/(\d+)", _read),
        ("PATCH", r"/repos/([^/]+/[^/]+)/pulls/(\d+)", _edit),
        ("POST", r"/repos/([^/]+/[^/]+)/pulls/(\d+)/merge", _merge),
        ("GET", r"/repos/([^/]+/[^/]+)/pulls/(\d+)/reviews", _reviews),
        ("POST", r"/repos/([^/]+/[^/]+)/pulls/(\d+)/requested_reviewers", _request_reviews),
        ("POST", r"/repos/([^/]+/[^/]+)/issues/(\d+)/labels", _labels),
        ("DELETE", r"/repos/([^/]+/[^/]+)/issues/(\d+)/labels/(\d+)", _unlabel),
        ("GET", "/repos/([^/]+/[^/]+)/commits/([0-9a-f]{40})/status", _status),
    )

    def _unknown(self, name: str) -> Refused:
        return Refused(422, {"message": f"[{name}]: unknown, or of the wrong type"})

    def _person(self, name: str) -> dict[str, Any]:
        return {"id": self.people.get(name, 9), "login": name}

    def _shown(self, repository: Repository) -> dict[str, Any]:
        return {
            "id": repository.id,
            "full_name": repository.path,
            "fork": bool(repository.parent),
            "parent": self._shown(self.repositories[repository.parent]) if repository.parent else None,
            "default_branch": self.default_branch(repository),
        }

    def _pull(self, change: Change) -> dict[str, Any]:
        repository, source = self.repositories[change.repository], self.repositories[change.head_repository]
        commit = self.head_commit(change)
        return {
            "id": 1000 * repository.id + change.number, "number": change.number, "title": change.title,
            "body": change.body, "state": "open" if change.state == "open" else "closed",
            "merged": change.state == "merged", "draft": change.draft,
            "html_url": f"{self.address}/{repository.path}/pulls/{change.number}",
            "mergeable": change.state == "open" and not self.conflicts(change),
            "labels": [{"id": repository.labels[name], "name": name} for name in change.labels],
            "assignees": [self._person(name) for name in change.assignees] or None,
            "requested_reviewers": [self._person(name) for name in change.reviewers],
            "head": {"label": change.head, "ref": change.head, "sha": commit, "repo": self._shown(source)},
            "base": {"label": change.base, "ref": change.base, "sha": self.base_commit(change),
                     "repo": self._shown(repository)},
        }  # fmt: skip
