"""A fake of GitLab's REST interface (docs.gitlab.com/api): merge requests, approvals, forks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from tests.code_hosts import repos
from tests.code_hosts.core import Answer, Change, Host, Refused, Repository, Request, paged

_DRAFT = re.compile(r"^(?:draft:|\[draft\]|\(draft\))\s*", re.IGNORECASE)
_STATES = {"open": "opened", "closed": "closed", "merged": "merged"}


class GitLab(Host):
    api = "/api/v4"

    def accepts(self, password: str) -> bool:
        return password == self.token

    def authenticated(self, request: Request) -> bool:
        return request.headers.get("private-token") == self.token

    def not_found(self) -> Refused:
        return Refused(404, {"message": "404 Project Not Found"})

    def unauthorized(self) -> Refused:
        return Refused(401, {"message": "401 Unauthorized"})

    def limited(self, kind: str, seconds: float) -> Refused:
        headers = {"RateLimit-Limit": "60", "RateLimit-Remaining": "0"}
        headers["RateLimit-Reset"] = str(int(time.time() + seconds))
        if kind != "primary":
            headers["Retry-After"] = str(max(1, round(seconds)))
        return Refused(429, {"message": "429 Too Many Requests"}, headers)

    def route(self, request: Request) -> Answer:
        path = request.path.removeprefix(self.api)
        for method, pattern, verb in self._routes:
            if method == request.method and (found := re.fullmatch(pattern, path)):
                return verb(self, request, *found.groups())
        raise self.not_found()

    def _project_of(self, name: str) -> Repository:
        if name.isdigit():
            found = next((each for each in self.repositories.values() if str(each.id) == name), None)
            if found is None:
                raise self.not_found()
            return found
        return self.repository(unquote(name))

    def _me(self, request: Request) -> Answer:
        return Answer(200, self._person(self.user))

    def _users(self, request: Request) -> Answer:
        name = request.query.get("username", "")
        return Answer(200, [self._person(name)] if name in self.people else [])

    def _project(self, request: Request, name: str) -> Answer:
        return Answer(200, self._shown(self._project_of(name)))

    def _fork(self, request: Request, name: str) -> Answer:
        self.fields(request.body, self._unknown, namespace_path=str, name=str, path=str)
        project = self._project_of(name)
        fork, known = self.fork_of(project, request.body.get("namespace_path", self.user))
        if known:
            raise Refused(409, {"message": {"name": ["has already been taken"], "path": ["has already been taken"]}})
        return Answer(201, self._shown(fork))

    def _list(self, request: Request, name: str) -> Answer:
        known = {"source_branch", "target_branch", "state", "order_by", "sort", "scope", "per_page", "page"}
        if unknown := request.query.keys() - known:
            raise Refused(400, {"error": f"{', '.join(unknown)} is invalid"})
        found = list(self._project_of(name).changes)
        for change in found:
            self.look_at(change)
        if (state := request.query.get("state", "all")) != "all":
            found = [change for change in found if _STATES[change.state] == state]
        if branch := request.query.get("source_branch"):
            found = [change for change in found if change.head == branch]
        if request.query.get("sort", "desc") == "desc":
            found.reverse()
        entries = [self._merge_request(change) for change in found]
        return paged(entries, request, self, size="per_page", default=20, most=100)

    def _create(self, request: Request, name: str) -> Answer:
        body = request.body
        self.fields(
            body, self._unknown, source_branch=str, target_branch=str, title=str, description=str,
            target_project_id=int, labels=str, remove_source_branch=bool,
        )  # fmt: skip
        for wanted in ("source_branch", "target_branch", "title"):
            if not body.get(wanted):
                raise Refused(400, {"error": f"{wanted} is missing"})
        source = self._project_of(name)
        target = self._project_of(str(body.get("target_project_id", source.id)))
        head = repos.branch_commit(self.folder(source.path), body["source_branch"])
        base = repos.branch_commit(self.folder(target.path), body["target_branch"])
        if not head or not base:
            side = "Source" if not head else "Target"
            raise Refused(422, {"message": [f'{side} branch "{body["source_branch"]}" does not exist']})
        if twin := self.twin(target, source.path, body["source_branch"], body["target_branch"]):
            text = f"Another open merge request already exists for this source branch: !{twin.number}"
            raise Refused(409, {"message": [text]})
        change = self.open_change(
            target,
            title=body["title"],
            body=body.get("description", ""),
            head_repository=source.path,
            head=body["source_branch"],
            base=body["target_branch"],
            draft=bool(_DRAFT.match(body["title"])),
        )
        return Answer(201, self._merge_request(change))

    def _read(self, request: Request, name: str, number: str) -> Answer:
        return Answer(200, self._merge_request(self.change(self._project_of(name), number)))

    def _edit(self, request: Request, name: str, number: str) -> Answer:
        body = request.body
        self.fields(
            body, self._unknown, title=str, description=str, target_branch=str, state_event=str, add_labels=str,
            remove_labels=str, reviewer_ids=list, assignee_ids=list,
        )  # fmt: skip
        project = self._project_of(name)
        change = self.change(project, number)
        event = body.get("state_event")
        if event not in (None, "close", "reopen"):
            raise Refused(400, {"error": "state_event does not have a valid value"})
        if event == "reopen":
            if change.state == "merged" or not repos.branch_commit(self.folder(change.head_repository), change.head):
                raise Refused(422, {"message": ["State cannot transition via reopen"]})
            change.state = "open"
        elif event == "close" and change.state == "open":
            change.state = "closed"
        change.title = body.get("title", change.title)
        change.draft = bool(_DRAFT.match(change.title))
        change.body, change.base = body.get("description", change.body), body.get("target_branch", change.base)
        dropped = body.get("remove_labels", "").split(",")
        added = filter(None, body.get("add_labels", "").split(","))
        change.labels = [each for each in dict.fromkeys([*change.labels, *added]) if each not in dropped]
        by_id = {id: name for name, id in self.people.items()}
        if "reviewer_ids" in body:
            change.reviewers = [by_id[id] for id in body["reviewer_ids"]]
        if "assignee_ids" in body:
            change.assignees = [by_id[id] for id in body["assignee_ids"]]
        change.edits += 1
        return Answer(200, self._merge_request(change))

    def _merge(self, request: Request, name: str, number: str) -> Answer:
        body = request.body
        self.fields(body, self._unknown, sha=str, squash=bool, merge_commit_message=str)
        change = self.change(self._project_of(name), number)
        if change.state != "open" or change.draft:
            raise Refused(405, {"message": "405 Method Not Allowed"})
        if self.conflicts(change):
            raise Refused(422, {"message": "Branch cannot be merged"})
        if body.get("sha", change.frozen) != change.frozen:
            raise Refused(409, {"message": "SHA does not match HEAD of source branch"})
        self.merge(change)
        return Answer(200, self._merge_request(change))

    def _approvals(self, request: Request, name: str, number: str) -> Answer:
        change = self.change(self._project_of(name), number)
        by = [{"user": self._person(who)} for who, state in change.reviews if state == "approved"]
        return Answer(200, {"approved": True, "approvals_required": 0, "approvals_left": 0, "approved_by": by})

    _routes: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
        ("GET", "/user", _me),
        ("GET", "/users", _users),
        ("GET", "/projects/([^/]+)", _project),
        ("POST", "/projects/([^/]+)/fork", _fork),
        ("GET", "/projects/([^/]+)/merge_requests", _list),
        ("POST", "/projects/([^/]+)/merge_requests", _create),
        ("GET", r"/projects/([^/]+)/merge_requests/(\d+)", _read),
        ("PUT", r"/projects/([^/]+)/merge_requests/(\d+)", _edit),
        ("PUT", r"/projects/([^/]+)/merge_requests/(\d+)/merge", _merge),
        ("GET", r"/projects/([^/]+)/merge_requests/(\d+)/approvals", _approvals),
    )

    def _unknown(self, name: str) -> Refused:
        return Refused(400, {"error": f"{name} is invalid"})

    def _person(self, name: str) -> dict[str, Any]:
        return {"id": self.people[name], "username": name, "name": name, "state": "active"}

    def _shown(self, project: Repository) -> dict[str, Any]:
        parent = {"forked_from_project": self._shown(self.repositories[project.parent])} if project.parent else {}
        return {
            **parent,
            "id": project.id,
            "path_with_namespace": project.path,
            "default_branch": self.default_branch(project),
            "web_url": f"{self.address}/{project.path}",
        }

    def _merge_request(self, change: Change) -> dict[str, Any]:
        target, source = self.repositories[change.repository], self.repositories[change.head_repository]
        commit = self.head_commit(change)
        conflicts = change.state == "open" and self.conflicts(change)
        states = set(target.statuses.get(commit, {}).values())
        pipeline = "failed" if "failed" in states else "running" if "running" in states else "success"
        asked = any(state == "requested_changes" for _, state in change.reviews)
        merge_status = "conflict" if conflicts else "requested_changes" if asked else "mergeable"
        return {
            "id": 1000 * target.id + change.number, "iid": change.number, "project_id": target.id,
            "title": change.title, "description": change.body, "state": _STATES[change.state],
            "created_at": change.created.isoformat(), "target_branch": change.base, "source_branch": change.head,
            "source_project_id": source.id, "target_project_id": target.id, "labels": change.labels,
            "draft": change.draft, "sha": commit, "merge_commit_sha": change.merge_commit or None,
            "web_url": f"{self.address}/{target.path}/-/merge_requests/{change.number}",
            "has_conflicts": conflicts, "detailed_merge_status": merge_status,
            "head_pipeline": {"id": 1, "status": pipeline} if states else None,
            "author": self._person(change.author),
            "reviewers": [self._person(name) for name in change.reviewers],
            "assignees": [self._person(name) for name in change.assignees],
        }  # fmt: skip
