"""A fake of GitHub's REST interface (and the one GraphQL mutation that has no REST twin), as an Enterprise server.

From docs.github.com/rest. With ``check``, every answer is validated with the models that githubkit generates from
GitHub's OpenAPI description.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from typing import Any

from tests.code_hosts import repos
from tests.code_hosts.core import Answer, Change, Host, Refused, Repository, Request, paged

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_REPOSITORY_URLS = (
    *("archive", "assignees", "blobs", "branches", "clone", "collaborators", "comments", "commits", "compare"),
    *("contents", "contributors", "deployments", "downloads", "events", "forks", "git", "git_commits", "git_refs"),
    *("git_tags", "hooks", "issue_comment", "issue_events", "issues", "keys", "labels", "languages", "merges"),
    *("milestones", "notifications", "pulls", "releases", "ssh", "stargazers", "statuses", "subscribers"),
    *("subscription", "svn", "tags", "teams", "trees"),
)
_USER_URLS = (
    *("avatar", "html", "followers", "following", "gists", "starred", "subscriptions", "organizations", "repos"),
    *("events", "received_events"),
)
_ISSUE_FIELDS = (
    *("id", "node_id", "html_url", "number", "state", "title", "user", "milestone", "locked", "closed_at"),
    *("created_at", "updated_at"),
)


class GitHub(Host):
    api = "/api/v3"

    def __init__(self, *args: Any, check: bool = False) -> None:
        super().__init__(*args)
        self.installation_tokens: set[str] = set()
        self.valid: Callable[[str, Any], None] = _validator() if check else lambda model, content: None

    def accepts(self, password: str) -> bool:
        return password == self.token or password in self.installation_tokens

    def authenticated(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if request.path.startswith("/api/v3/app/"):
            return scheme == "Bearer" and _claims(token).get("iss") == "4711"
        return scheme.lower() in ("token", "bearer") and self.accepts(token)

    def limited(self, kind: str, seconds: float) -> Refused:
        if kind == "primary":
            headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "5000"}
            headers["X-RateLimit-Reset"] = str(int(time.time() + seconds))
            return Refused(403, {"message": "API rate limit exceeded for user ID 1."}, headers)
        message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        headers = {} if kind == "silent" else {"Retry-After": str(max(1, round(seconds)))}
        return Refused(429 if kind == "429" else 403, {"message": message}, headers)

    def invalid(self, *messages: str, **fields: str) -> Refused:
        errors: list[dict[str, str]] = [{"resource": "PullRequest", "code": "custom", "message": m} for m in messages]
        errors += [{"resource": "PullRequest", "field": name, "code": code} for name, code in fields.items()]
        return Refused(422, {"message": "Validation Failed", "errors": errors, "documentation_url": "https://docs"})

    def route(self, request: Request) -> Answer:
        if request.path == "/api/graphql":
            return self._graphql(request)
        path = request.path.removeprefix(self.api)
        for method, pattern, verb in self._routes:
            if method == request.method and (found := re.fullmatch(pattern, path)):
                return verb(self, request, *found.groups())
        raise self.not_found()

    def _installation_token(self, request: Request, installation: str) -> Answer:
        if installation != "99":
            raise self.not_found()
        token = f"ghs_{len(self.installation_tokens)}installation"
        self.installation_tokens.add(token)
        expires = time.strftime(_TIME, time.gmtime(time.time() + 3600))
        return self._told(201, "InstallationToken", {"token": token, "expires_at": expires, "permissions": {}})

    def _user(self, request: Request) -> Answer:
        return Answer(200, self.person(self.user))

    def _repo(self, request: Request, path: str) -> Answer:
        return self._told(200, "FullRepository", self.full_repository(self.repository(path)))

    def _fork(self, request: Request, path: str) -> Answer:
        self.fields(request.body, self._unknown, organization=str, name=str, default_branch_only=bool)
        fork, _ = self.fork_of(self.repository(path), request.body.get("organization", self.user))
        return self._told(202, "FullRepository", self.full_repository(fork))

    def _pulls(self, request: Request, path: str) -> Answer:
        unknown = request.query.keys() - {"state", "head", "base", "sort", "direction", "per_page", "page"}
        if unknown:
            raise self.invalid(f"unknown query {unknown}")
        repository = self.repository(path)
        found = list(repository.changes)
        for change in found:
            self.look_at(change)
        if (state := request.query.get("state", "open")) != "all":
            found = [change for change in found if (change.state == "open") == (state == "open")]
        if head := request.query.get("head"):
            owner, colon, branch = head.partition(":")
            if colon:  # without an owner, GitHub ignores it
                found = [c for c in found if (c.head_repository.partition("/")[0], c.head) == (owner, branch)]
        if base := request.query.get("base"):
            found = [change for change in found if change.base == base]
        if request.query.get("direction", "desc") == "desc":
            found.reverse()
        entries = [self.pull(change, simple=True) for change in found]
        for entry in entries:
            self.valid("PullRequestSimple", entry)
        return paged(entries, request, self, size="per_page", default=30, most=100)

    def _create(self, request: Request, path: str) -> Answer:
        body = request.body
        self.fields(
            body, self._unknown, title=str, body=str, head=str, base=str, draft=bool, maintainer_can_modify=bool,
            head_repo=str, issue=int,
        )  # fmt: skip
        repository = self.repository(path)
        missing = {name: "missing_field" for name in ("title", "head", "base") if not body.get(name)}
        if missing:
            raise self.invalid(**missing)
        owner, colon, branch = body["head"].rpartition(":")
        source = self._source(repository, owner) if colon else repository
        head = repos.branch_commit(self.folder(source.path), branch) if source else ""
        base = repos.branch_commit(self.folder(path), body["base"])
        if not head:
            raise self.invalid(head="invalid")
        if not base:
            raise self.invalid(base="invalid")
        assert source is not None
        if self.twin(repository, source.path, branch, body["base"]):
            owner = source.path.partition("/")[0]
            raise self.invalid(f"A pull request already exists for {owner}:{branch}.")
        if source.path != repository.path:
            repos.borrow(self.folder(path), self.folder(source.path))
        if not repos.has_new_commits(self.folder(path), base, head):
            raise self.invalid(f"No commits between {body['base']} and {branch}")
        change = self.open_change(
            repository,
            title=body["title"],
            body=body.get("body", ""),
            head_repository=source.path,
            head=branch,
            base=body["base"],
            draft=body.get("draft", False),
        )
        return self._told(201, "PullRequest", self.pull(change))

    def _source(self, repository: Repository, owner: str) -> Repository | None:
        """The repository of ``owner`` in the network of forks."""
        root = repository.parent or repository.path
        network = [each for each in self.repositories.values() if root in (each.path, each.parent)]
        return next((each for each in network if each.path.partition("/")[0] == owner), None)

    def _pull(self, request: Request, path: str, number: str) -> Answer:
        return self._told(200, "PullRequest", self.pull(self.change(self.repository(path), number)))

    def _edit(self, request: Request, path: str, number: str) -> Answer:
        body = request.body
        self.fields(body, self._unknown, title=str, body=str, state=str, base=str, maintainer_can_modify=bool)
        repository = self.repository(path)
        change = self.change(repository, number)
        if (state := body.get("state")) not in (None, "open", "closed"):
            raise self.invalid(state="invalid")
        if (base := body.get("base", change.base)) != change.base:
            if change.state != "open":
                raise self.invalid("Cannot change the base branch of a closed pull request.")
            if not repos.branch_commit(self.folder(path), base):
                raise self.invalid(base="invalid")
        if state == "open" and change.state != "open":
            self._reopen(repository, change)
        elif state == "closed" and change.state == "open":
            change.state = "closed"
        change.title, change.body, change.base = body.get("title", change.title), body.get("body", change.body), base
        change.edits += 1
        return self._told(200, "PullRequest", self.pull(change))

    def _reopen(self, repository: Repository, change: Change) -> None:
        if change.state == "merged":
            raise self.invalid("state cannot be changed. The pull request was merged.")
        now = repos.branch_commit(self.folder(change.head_repository), change.head)
        if not now:
            raise self.invalid(f"state cannot be changed. The {change.head} branch has been deleted.")
        if now != change.frozen:
            raise self.invalid(f"state cannot be changed. The {change.head} branch was force-pushed or recreated.")
        if self.twin(repository, change.head_repository, change.head, change.base):
            raise self.invalid("state cannot be changed. There is already an open pull request.")
        change.state = "open"

    def _merge(self, request: Request, path: str, number: str) -> Answer:
        body = request.body
        self.fields(body, self._unknown, commit_title=str, commit_message=str, sha=str, merge_method=str)
        change = self.change(self.repository(path), number)
        if body.get("merge_method", "merge") not in ("merge", "squash", "rebase"):
            raise self.invalid(merge_method="invalid")
        if change.state != "open" or change.draft or self.conflicts(change):
            raise Refused(405, {"message": "Pull Request is not mergeable"})
        if body.get("sha", change.frozen) != change.frozen:
            raise Refused(409, {"message": "Head branch was modified. Review and try the merge again."})
        commit = self.merge(change)
        return self._told(
            200,
            "PullRequestMergeResult",
            {"sha": commit, "merged": True, "message": "Pull Request successfully merged"},
        )

    def _reviews(self, request: Request, path: str, number: str) -> Answer:
        change = self.change(self.repository(path), number)
        entries = [self._review(change, at, who, state) for at, (who, state) in enumerate(change.reviews, 1)]
        for entry in entries:
            self.valid("PullRequestReview", entry)
        return paged(entries, request, self, size="per_page", default=30, most=100)

    def _review(self, change: Change, id: int, who: str, state: str) -> dict[str, Any]:
        url = self._pull_url(change)
        return {
            "id": id, "node_id": f"PRR_{id}", "user": self.person(who), "body": "", "state": state, "html_url": url,
            "pull_request_url": url, "_links": {"html": {"href": url}, "pull_request": {"href": url}},
            "submitted_at": change.created.strftime(_TIME), "commit_id": change.frozen, "author_association": "MEMBER",
        }  # fmt: skip

    def _request_reviews(self, request: Request, path: str, number: str) -> Answer:
        self.fields(request.body, self._unknown, reviewers=list, team_reviewers=list)
        change = self.change(self.repository(path), number)
        wanted = request.body.get("reviewers", [])
        for name in wanted:
            if name not in self.people or name == change.author:
                raise Refused(422, {"message": f"Reviews may only be requested from collaborators: {name}"})
        wanted += [f"team:{name}" for name in request.body.get("team_reviewers", [])]
        change.reviewers += [name for name in wanted if name not in change.reviewers]
        return self._told(201, "PullRequestSimple", self.pull(change, simple=True))

    def _labels(self, request: Request, path: str, number: str) -> Answer:
        labels = request.body["labels"] if isinstance(request.body, dict) else request.body
        change = self.change(self.repository(path), number)
        change.labels += [label for label in labels if label not in change.labels]
        entries = [self._label(label) for label in change.labels]
        for entry in entries:
            self.valid("Label", entry)
        return Answer(200, entries)

    def _unlabel(self, request: Request, path: str, number: str, label: str) -> Answer:
        change = self.change(self.repository(path), number)
        if label not in change.labels:
            raise Refused(404, {"message": "Label does not exist"})
        change.labels.remove(label)
        return Answer(200, [self._label(each) for each in change.labels])

    def _assign(self, request: Request, path: str, number: str) -> Answer:
        self.fields(request.body, self._unknown, assignees=list)
        change = self.change(self.repository(path), number)
        change.assignees += [name for name in request.body["assignees"] if name in self.people]
        return self._told(201, "Issue", self._issue(change))

    def _status(self, request: Request, path: str, commit: str) -> Answer:
        repository = self.repository(path)
        states = repository.statuses.get(commit, {})
        url = f"{self.address}{self.api}/repos/{path}/commits/{commit}"
        worst = [state for state in ("error", "failure", "pending") if state in states.values()]
        statuses = [
            {"id": at, "node_id": f"S_{at}", "state": state, "context": context, "description": None,
             "target_url": None, "avatar_url": None, "url": url, "created_at": "2026-01-01T00:00:00Z",
             "updated_at": "2026-01-01T00:00:00Z"}
            for at, (context, state) in enumerate(states.items(), 1)
        ]  # fmt: skip
        state = "failure" if worst and worst[0] != "pending" else "success" if states and not worst else "pending"
        content = {
            "state": state, "statuses": statuses, "sha": commit, "total_count": len(states),
            "repository": self.full_repository(repository), "commit_url": url, "url": f"{url}/status",
        }  # fmt: skip
        return self._told(200, "CombinedCommitStatus", content)

    def _check_runs(self, request: Request, path: str, commit: str) -> Answer:
        self.repository(path)
        return Answer(200, {"total_count": 0, "check_runs": []})

    _routes: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
        ("POST", "/app/installations/([^/]+)/access_tokens", _installation_token),
        ("GET", "/user", _user),
        ("GET", "/repos/([^/]+/[^/]+)", _repo),
        ("POST", "/repos/([^/]+/[^/]+)/forks", _fork),
        ("GET", "/repos/([^/]+/[^/]+)/pulls", _pulls),
        ("POST", "/repos/([^/]+/[^/]+)/pulls", _create),
        ("GET", r"/repos/([^/]+/[^/]+)/pulls/(\d+)", _pull),
        ("PATCH", r"/repos/([^/]+/[^/]+)/pulls/(\d+)", _edit),
        ("PUT", r"/repos/([^/]+/[^/]+)/pulls/(\d+)/merge", _merge),
        ("GET", r"/repos/([^/]+/[^/]+)/pulls/(\d+)/reviews", _reviews),
        ("POST", r"/repos/([^/]+/[^/]+)/pulls/(\d+)/requested_reviewers", _request_reviews),
        ("POST", r"/repos/([^/]+/[^/]+)/issues/(\d+)/labels", _labels),
        ("DELETE", r"/repos/([^/]+/[^/]+)/issues/(\d+)/labels/([^/]+)", _unlabel),
        ("POST", r"/repos/([^/]+/[^/]+)/issues/(\d+)/assignees", _assign),
        ("GET", "/repos/([^/]+/[^/]+)/commits/([0-9a-f]{40})/status", _status),
        ("GET", "/repos/([^/]+/[^/]+)/commits/([0-9a-f]{40})/check-runs", _check_runs),
    )

    def _graphql(self, request: Request) -> Answer:
        found = re.search(r"markPullRequestReadyForReview\(input: \$input\)", request.body.get("query", ""))
        node = request.body.get("variables", {}).get("input", {}).get("pullRequestId", "")
        for repository in self.repositories.values():
            for change in repository.changes:
                if found and self._node(change) == node:
                    change.draft = False
                    return Answer(200, {"data": {"markPullRequestReadyForReview": {"pullRequest": {"isDraft": False}}}})
        errors = [{"type": "NOT_FOUND", "message": "Could not resolve to a node with the global id."}]
        return Answer(200, {"data": None, "errors": errors})

    def _unknown(self, name: str) -> Refused:
        return self.invalid(**{name: "unknown or of the wrong type"})

    def _told(self, status: int, model: str, content: dict[str, Any]) -> Answer:
        self.valid(model, content)
        return Answer(status, content)

    def _node(self, change: Change) -> str:
        return f"PR_{change.repository}_{change.number}"

    def _pull_url(self, change: Change) -> str:
        return f"{self.address}{self.api}/repos/{change.repository}/pulls/{change.number}"

    def person(self, name: str) -> dict[str, Any]:
        url = f"{self.address}{self.api}/users/{name}"
        return {
            "login": name, "id": self.people.get(name, 9), "node_id": f"U_{name}", "gravatar_id": "", "url": url,
            "type": "User", "site_admin": False, **{f"{each}_url": f"{url}/{each}" for each in _USER_URLS},
        }  # fmt: skip

    def full_repository(self, repository: Repository) -> dict[str, Any]:
        owner, _, name = repository.path.partition("/")
        url, times = f"{self.address}{self.api}/repos/{repository.path}", "2026-01-01T00:00:00Z"
        numbers = "forks forks_count stargazers_count watchers_count size open_issues_count open_issues watchers"
        flags = "private has_issues has_projects has_wiki has_pages has_discussions archived disabled"
        return {
            "id": repository.id, "node_id": f"R_{repository.id}", "name": name, "full_name": repository.path,
            "owner": self.person(owner), "html_url": f"{self.address}/{repository.path}", "description": None,
            "fork": bool(repository.parent), "url": url, "mirror_url": None, "homepage": None, "language": None,
            "license": None, "default_branch": self.default_branch(repository), "subscribers_count": 0,
            "network_count": 0, "pushed_at": times, "created_at": times, "updated_at": times,
            **dict.fromkeys(numbers.split(), 0), **dict.fromkeys(flags.split(), False),
            **{f"{each}_url": f"{url}/{each}" for each in _REPOSITORY_URLS},
        }  # fmt: skip

    def pull(self, change: Change, *, simple: bool = False) -> dict[str, Any]:
        repository = self.repositories[change.repository]
        source = self.repositories[change.head_repository]
        url, html = self._pull_url(change), f"{self.address}/{change.repository}/pull/{change.number}"
        at = change.created.strftime(_TIME)
        commit = self.head_commit(change)
        closed = at if change.state != "open" else None
        urls = ["issue", "commits", "review_comments", "review_comment", "comments", "statuses"]
        content = {
            "url": url, "id": 1000 * repository.id + change.number, "node_id": self._node(change), "html_url": html,
            "diff_url": f"{html}.diff", "patch_url": f"{html}.patch",
            **{f"{each}_url": f"{url}/{each}" for each in urls},
            "number": change.number, "state": "open" if change.state == "open" else "closed", "locked": False,
            "title": change.title, "user": self.person(change.author), "body": change.body or None,
            "labels": [{**self._label(label)} for label in change.labels], "milestone": None, "created_at": at,
            "updated_at": at, "closed_at": closed, "merged_at": at if change.state == "merged" else None,
            "merge_commit_sha": change.merge_commit or None, "assignee": None,
            "assignees": [self.person(name) for name in change.assignees],
            "requested_reviewers": [self.person(name) for name in change.reviewers if not name.startswith("team:")],
            "requested_teams": [], "draft": change.draft, "auto_merge": None, "author_association": "MEMBER",
            "head": self._side(source, change.head, commit),
            "base": self._side(repository, change.base, self.base_commit(change)),
            "_links": {each: {"href": url} for each in (*urls[1:], "self", "html", "issue")},
        }  # fmt: skip
        if not simple:
            mergeable = None if change.state != "open" else not self.conflicts(change)
            content |= {
                "merged": change.state == "merged", "mergeable": mergeable, "rebaseable": mergeable,
                "mergeable_state": "unknown" if mergeable is None else "clean" if mergeable else "dirty",
                "merged_by": self.person(self.user) if change.state == "merged" else None, "comments": 0,
                "review_comments": 0, "maintainer_can_modify": False, "commits": 1, "additions": 1, "deletions": 0,
                "changed_files": 1,
            }  # fmt: skip
        return content

    def _side(self, repository: Repository, branch: str, commit: str) -> dict[str, Any]:
        owner = repository.path.partition("/")[0]
        return {
            "label": f"{owner}:{branch}", "ref": branch, "sha": commit, "user": self.person(owner),
            "repo": self.full_repository(repository),
        }  # fmt: skip

    def _label(self, name: str) -> dict[str, Any]:
        return {
            "id": abs(hash(name)) % 10**6, "node_id": f"L_{name}", "url": f"{self.address}/labels/{name}", "name": name,
            "description": None, "color": "ededed", "default": False, "archived_at": None, "archived_by": None,
        }  # fmt: skip

    def _issue(self, change: Change) -> dict[str, Any]:
        pull = self.pull(change, simple=True)
        url = pull["issue_url"]
        links = {f"{each}_url": url for each in ("repository", "labels", "comments", "events")}
        labels = [self._label(label) for label in change.labels]
        return {
            **{name: pull[name] for name in _ISSUE_FIELDS},
            "url": url,
            "comments": 0,
            "labels": labels,
            "assignees": pull["assignees"],
            **links,
        }


def _claims(token: str) -> dict[str, Any]:
    """What a JSON web token says. (Its signature is not checked: the fake has no key.)"""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    return dict(json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))))


def _validator() -> Callable[[str, Any], None]:
    from githubkit_schemas.latest import models

    def valid(model: str, content: Any) -> None:
        getattr(models, model).model_validate(json.loads(json.dumps(content)))

    return valid
