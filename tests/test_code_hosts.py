"""Publishing on fakes of GitHub, GitLab and Gitea, and on plain git: the same story for each, then what is special."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.code_hosts import CodeHost
from blocks.gitea_host import Gitea
from blocks.github_host import GitHub
from blocks.gitlab_host import GitLab
from tests.code_hosts.running import TOKEN, RunningHost, running
from tests.gitrepos import run_git
from tests.proposals import BRANCH, Change, Office, changed, move_base, push_as_person, repository_on

ROOT = Path(__file__).parents[1]
KINDS = ("github", "gitlab", "gitea")


def client(kind: str, url: str) -> CodeHost:
    token = SecretStr(TOKEN)
    if kind == "github":
        return GitHub(url=url, token=token, seconds_between_writes=0).connect()
    return (GitLab if kind == "gitlab" else Gitea)(url=url, token=token).connect()


class Place:
    """One host, and an office that publishes to it. Every test takes repositories of its own."""

    def __init__(self, host: RunningHost) -> None:
        self.host = host
        self.count = 0


@pytest.fixture(scope="module", params=KINDS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    root = tmp_path_factory.mktemp(request.param)
    for number in range(18):
        repository_on(root, f"acme/app{number}")
    for owner in ("acme", "ada"):
        repository_on(root, f"{owner}/namesake")
    with running(request.param, root, check=request.param == "github") as found:
        yield found
        assert found.state()["problems"] == []


_taken: dict[str, int] = {}


@pytest.fixture
def office(host: RunningHost, tmp_path: Path) -> Iterator[Office]:
    found = client(host.kind, host.url)
    yield Office(tmp_path, host.root, host.names, [found])
    found.disconnect()


@pytest.fixture
def change(host: RunningHost) -> Change:
    """A change for a repository that no other test has."""
    number = _taken[host.url] = _taken.get(host.url, -1) + 1
    path = f"acme/app{number}"
    return Change(path, run_git(host.repository(path), "rev-parse", "main"))


def done(outcomes: list[object]) -> list[str]:
    return [outcome.done for outcome in outcomes]  # type: ignore[attr-defined]


class TestStory:
    def test_a_changeset_is_proposed_updated_and_closed(
        self, host: RunningHost, office: Office, change: Change, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        path = change.path
        first = office.publish(office.run(change))

        assert done(first) == ["opened"], first
        (request,) = host.changes(repository=path)
        assert request["title"] == change.title
        assert request["body"].startswith("The old one goes.\n\n*Proposed by the batch change `new-mirror`.*")
        assert (request["base"], request["head"], request["draft"]) == ("main", BRANCH, False)
        commit = run_git(host.repository(path), "log", "-1", "--format=%an|%ae|%cn|%P|%B|%ad", "--date=iso", BRANCH)
        assert commit == (
            f"Grace Höpper|grace@example.com|Grace Höpper|{change.base}|Move to the new mirror\n\nAll of it.\n"
            "|2026-01-01 01:00:00 +0000"
        )
        assert run_git(host.repository(path), "show", f"{BRANCH}:README.md") == "hello, new mirror"
        assert run_git(host.repository(path), "diff", "--name-only", "main", BRANCH) == "README.md"

        again = office.publish(office.run(change))

        assert done(again) == ["left"]
        assert again[0].actions == ()

        reworded = changed(change, title="Use the newest mirror", files={"README.md": "hello, newest mirror\n"})
        second = office.publish(office.run(reworded))

        assert done(second) == ["updated"]
        (request,) = host.changes(repository=path)
        assert request["title"] == "Use the newest mirror"
        assert run_git(host.repository(path), "rev-list", "--count", f"main..{BRANCH}") == "1"

        kept = office.publish(office.run())
        assert done(kept) == ["kept"]
        closed = office.publish(office.run(), removed="close")
        assert done(closed) == ["closed"]
        (request,) = host.changes(repository=path)
        assert request["state"] == "closed"

        back = office.publish(office.run(reworded))
        assert done(back) == ["reopened"], back
        (request,) = host.changes(repository=path)
        assert request["state"] == "open"
        assert TOKEN not in caplog.text

    def test_a_dry_run_tells_everything_and_changes_nothing(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        run = office.run(change)
        before = len(host.state()["log"])

        (told,) = office.publish(run, dry_run=True, labels=("mirror",))
        asked = [line for line in host.state()["log"][before:] if "receive-pack" in line or line[:3] in ("POS", "PUT")]
        (outcome,) = office.publish(run)

        assert told.actions[0].startswith("push ")
        assert told.actions[0].endswith(f" to {BRANCH} (new branch)")
        assert told.actions[1:] == ("open a review request into main: Use the new mirror", "add labels mirror")
        assert asked == []
        assert outcome.actions == told.actions[:2]
        assert office.tracked()[f"{change.path} {BRANCH}"].state == "open"

    def test_drafts_become_ready_once(self, host: RunningHost, office: Office, change: Change) -> None:
        path = change.path
        office.publish(office.run(changed(change, published="draft")))
        (request,) = host.changes(repository=path)
        assert request["draft"] is True

        assert done(office.publish(office.run(change))) == ["updated"]
        (request,) = host.changes(repository=path)
        assert request["draft"] is False
        assert request["title"] == change.title

        title = {"title": f"WIP: {change.title}"} if host.kind == "gitea" else {"title": f"Draft: {change.title}"}
        renamed = {} if host.kind == "github" else title
        fields = {"draft": True, **renamed}
        host.control("set", {"repository": path, "number": str(request["number"]), "fields": fields})
        assert done(office.publish(office.run(change))) == ["left"]
        (request,) = host.changes(repository=path)
        assert request["draft"] is True

    def test_a_draft_can_become_ready_with_a_new_title(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(changed(change, published="draft")))
        renamed = changed(change, title="Use the newest mirror")

        assert done(office.publish(office.run(renamed))) == ["updated"]
        (request,) = host.changes(repository=change.path)
        assert (request["title"], request["draft"]) == ("Use the newest mirror", False)
        assert done(office.publish(office.run(renamed))) == ["left"]

    def test_what_people_change_stays_until_the_spec_says_something_else(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        path = change.path
        office.publish(office.run(change))
        number = str(host.changes(repository=path)[0]["number"])
        host.control("set", {"repository": path, "number": number, "fields": {"title": "Better words"}})

        office.publish(office.run(changed(change, body="More to say.")))

        (request,) = host.changes(repository=path)
        assert request["title"] == "Better words"
        assert request["body"].startswith("More to say.")

    def test_commits_of_others_are_never_overwritten_silently(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        path = change.path
        office.publish(office.run(change))
        by_hand = push_as_person(host.root, path, BRANCH, {"fix": "by hand\n"})
        new = changed(change, files={"README.md": "something else\n"})

        (stopped,) = office.publish(office.run(new))

        assert stopped.done == "conflict"
        assert "somebody else put commits on batch/new-mirror" in stopped.reason
        assert run_git(host.repository(path), "rev-parse", BRANCH) == by_hand
        assert office.tracked()[f"{path} {BRANCH}"].state == "conflict"

        (overwritten,) = office.publish(office.run(new), foreign_commits="overwrite")

        assert overwritten.done == "updated"
        assert run_git(host.repository(path), "show", f"{BRANCH}:README.md") == "something else"
        assert office.tracked()[f"{path} {BRANCH}"].state == "open"

    def test_a_base_that_moved_is_rebased(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(change))
        base = move_base(host.root, change.path, {"src/main.py": "print(2)\n"})
        moved = changed(change, base=base)

        left = office.publish(office.run(moved), rebase=False)
        updated = office.publish(office.run(moved))

        assert done(left) == ["left"]
        assert done(updated) == ["updated"]
        assert run_git(host.repository(change.path), "rev-parse", f"{BRANCH}^") == base
        assert len(host.changes(repository=change.path)) == 1

    def test_what_people_closed_is_not_opened_by_surprise(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        path = change.path
        office.publish(office.run(change))
        number = str(host.changes(repository=path)[0]["number"])
        host.control("set", {"repository": path, "number": number, "fields": {"state": "closed"}})
        new = changed(change, files={"README.md": "something else\n"})

        (left,) = office.publish(office.run(new))
        assert (left.done, left.reason) == ("left", "it was closed; --reopen opens it again")
        (reopened,) = office.publish(office.run(new), reopen=True)
        assert reopened.done == "reopened"
        assert [each["state"] for each in host.changes(repository=path)] == ["open"]

    def test_labels_reviewers_and_assignees_are_set_once(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        path = change.path
        for label in ("mirror", "chore", "by-hand"):
            host.control("label", {"repository": path, "name": label})
        office.publish(office.run(change), labels=("mirror",), reviewers=("rita",), assignees=("otto",))
        (request,) = host.changes(repository=path)
        assert (request["labels"], request["reviewers"], request["assignees"]) == (["mirror"], ["rita"], ["otto"])
        fields = {"labels": ["mirror", "by-hand"], "reviewers": []}
        host.control("set", {"repository": path, "number": str(request["number"]), "fields": fields})

        (updated,) = office.publish(office.run(change), labels=("chore",), reviewers=("rita",), assignees=("otto",))

        assert updated.actions == ("add labels chore; remove labels mirror",)
        (request,) = host.changes(repository=path)
        assert sorted(request["labels"]) == ["by-hand", "chore"]
        assert request["reviewers"] == []

    def test_a_label_that_somebody_took_off_is_no_trouble(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        path = change.path
        host.control("label", {"repository": path, "name": "mirror"})
        office.publish(office.run(change), labels=("mirror",))
        number = str(host.changes(repository=path)[0]["number"])
        host.control("set", {"repository": path, "number": number, "fields": {"labels": []}})

        assert done(office.publish(office.run(change))) == ["updated"]
        assert done(office.publish(office.run(change))) == ["left"]

    def test_a_fork_takes_the_branch(self, host: RunningHost, office: Office, change: Change) -> None:
        path = change.path
        (outcome,) = office.publish(office.run(changed(change, fork=True)))

        assert outcome.done == "opened", outcome
        fork = path.replace("acme/", "ada/")
        (request,) = host.changes(repository=path)
        assert request["head_repository"] == fork
        assert run_git(host.repository(fork), "show", f"{BRANCH}:README.md") == "hello, new mirror"
        assert run_git(host.repository(path), "branch", "--list", BRANCH) == ""
        again = office.publish(office.run(changed(change, fork=True, title="Other")))
        assert done(again) == ["updated"]

    def test_a_namesake_is_no_fork(self, host: RunningHost, office: Office) -> None:
        if host.kind == "github":
            return  # it gives the new fork another name
        path = "acme/namesake"
        change = Change(path, run_git(host.repository(path), "rev-parse", "main"), fork=True)

        (outcome,) = office.publish(office.run(change))

        assert (outcome.done, "ada/namesake is no fork of acme/namesake" in outcome.reason) == ("failed", True)
        assert run_git(host.repository("ada/namesake"), "branch", "--list") == "* main"

    @pytest.mark.parametrize("kind", ["primary", "secondary", "429"])
    def test_the_hosts_limits_are_obeyed(self, host: RunningHost, office: Office, change: Change, kind: str) -> None:
        if kind == "429" and host.kind != "github":
            return  # the same as the others there
        run = office.run(*(changed(change, branch=f"{kind}{number}") for number in range(3)))
        host.control("limit", {"kind": kind, "after": 3, "seconds": 1})

        assert set(done(office.publish(run))) == {"opened"}
        limits = host.state()["limits"]
        assert (limits["refusals"] > 0, limits["offences"]) == (True, 0)

    def test_what_is_no_review_request_is_told(self, host: RunningHost, office: Office, change: Change) -> None:
        outcomes = office.publish(office.run(imports={change.path: "not-a-number"}))
        outcomes += office.publish(office.run(imports={change.path: "4711"}))

        assert done(outcomes) == ["failed", "failed"]
        assert "its id is a number" in outcomes[0].reason
        assert "not found" in outcomes[1].reason


def test_the_fakes_know_nothing_of_the_product() -> None:
    """They are written from the hosts' documentation; what they have in common with the product is their word."""
    code = (
        "import sys, tests.code_hosts.core, tests.code_hosts.github, tests.code_hosts.gitlab, tests.code_hosts.gitea, "
        "tests.code_hosts.running; print(sorted(name for name in sys.modules if name.split('.')[0] in "
        "('flows', 'blocks', 'prefect')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
