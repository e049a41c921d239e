"""Publishing, whatever happens in between: on one kind of host, with real git; the kinds are in test_code_hosts."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from pydantic import SecretStr

from blocks.code_hosts import CodeHost, HostLimited, HostRefused, HostUnavailable
from blocks.gitea_host import Gitea
from blocks.github_host import GitHub
from blocks.gitlab_host import GitLab
from blocks.host_answers import trouble
from blocks.pacing import Pace
from blocks.plain_git_host import PlainGit
from flows.batches.branches import fault_of_branch
from flows.batches.errors import PermanentError
from flows.batches.tracked import TrackedChangeset, read_tracked_changeset
from flows.cli.errors import BadInput
from flows.cli.hosts import host_blocks
from flows.publishing.changesets import RunNotReady
from flows.publishing.hosts import Hosts
from flows.publishing.outcomes import Outcome
from flows.publishing.upkeep import Keeper, Selection
from tests.code_hosts.running import TOKEN, RunningHost, running
from tests.engines import wait_until
from tests.gitrepos import run_git
from tests.proposals import BRANCH, NAME, Change, Office, changed, diff_of, move_base, push_as_person, repository_on

COMMAND = Path(sys.executable).with_name("batchwright")
REPOSITORIES = 36
MANY, SPREAD = 100, 5
"""Changesets of the story, and the repositories that they are in."""


def gitea(host: RunningHost, **settings: object) -> CodeHost:
    return Gitea(url=host.url, token=SecretStr(TOKEN), **settings).connect()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    root = tmp_path_factory.mktemp("host")
    for number in range(REPOSITORIES):
        repository_on(root, f"acme/app{number}")
    with running("gitea", root) as found:
        yield found
        assert found.state()["problems"] == []


@pytest.fixture
def office(host: RunningHost, tmp_path: Path) -> Iterator[Office]:
    found = gitea(host)
    yield Office(tmp_path, host.root, host.names, [found])
    found.disconnect()


_taken = iter(range(REPOSITORIES))


@pytest.fixture
def change(host: RunningHost) -> Change:
    """A change for a repository that no other test has."""
    path = f"acme/app{next(_taken)}"
    return Change(path, run_git(host.repository(path), "rev-parse", "main"))


def done(outcomes: list[Outcome]) -> list[str]:
    return [outcome.done for outcome in outcomes]


def keeper(office: Office) -> Keeper:
    return Keeper(office.tracking, Hosts(office.hosts), office.home)


def forget(office: Office, **fields: object) -> None:
    """The one tracked changeset is as these fields say: what a killed publisher did is not in its document."""
    (key,) = office.tracking.documents()
    document = office.tracking.open(key)
    assert document.content is not None
    document.write(document.content.model_copy(update=fields))


class TestPublished:
    """What `published` decides, and what it never takes back."""

    @pytest.mark.parametrize("published", [False, None])
    def test_what_is_not_to_be_published_is_not(
        self, host: RunningHost, office: Office, change: Change, published: bool | None
    ) -> None:
        (outcome,) = office.publish(office.run(changed(change, published=published)))

        assert outcome.done == "unpublished"
        assert host.changes(repository=change.path) == []
        assert run_git(host.repository(change.path), "branch", "--list", BRANCH) == ""
        assert office.tracked()[f"{change.path} {BRANCH}"].state == "unpublished"

    def test_the_undecided_can_be_published(self, host: RunningHost, office: Office, change: Change) -> None:
        run = office.run(changed(change, published=None))

        assert done(office.publish(run, undecided="draft")) == ["opened"]
        assert [each["draft"] for each in host.changes(repository=change.path)] == [True]

    def test_what_is_published_is_kept_up_to_date_whatever_published_says_later(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        office.publish(office.run(change))

        (outcome,) = office.publish(office.run(changed(change, published=False, title="Other")))

        assert outcome.done == "updated"
        assert [(each["title"], each["state"]) for each in host.changes(repository=change.path)] == [("Other", "open")]


class TestRuns:
    """Which runs may be published."""

    def test_a_run_that_failed_is_published_only_when_insisted(self, office: Office, change: Change) -> None:
        run = office.run(change, failed=("acme/other",))

        with pytest.raises(RunNotReady, match="is failed, so some changesets are missing or old"):
            office.publish(run)
        assert done(office.publish(run, incomplete=True)) == ["opened"]

    def test_a_run_that_waits_for_an_approval_is_not_published(self, office: Office, change: Change) -> None:
        run = office.run(change, approval=True)

        with pytest.raises(RunNotReady, match="waits for somebody to approve it"):
            office.publish(run)

    def test_an_older_run_does_not_undo_a_later_one(self, host: RunningHost, office: Office, change: Change) -> None:
        older = office.run(changed(change, title="Older"))
        later = office.run(changed(change, title="Later"))
        office.publish(later)

        (left,) = office.publish(older)
        assert (left.done, "--older" in left.reason) == ("left", True)
        assert [each["title"] for each in host.changes(repository=change.path)] == ["Later"]
        assert done(office.publish(older, older=True)) == ["updated"]

    def test_what_a_run_could_not_know_is_not_closed(self, host: RunningHost, office: Office, change: Change) -> None:
        """Because something failed there, or because the run was narrowed to other repositories."""
        office.publish(office.run(change))

        failed = office.publish(office.run(failed=(change.path,)), incomplete=True, removed="close")
        narrowed = office.publish(office.run(only="*/other"), removed="close")

        assert [(each.done, each.reason) for each in (*failed, *narrowed)] == [
            ("kept", "something failed in its repository in this run"),
            ("kept", "this run did not ask for its repository"),
        ]
        assert [each["state"] for each in host.changes(repository=change.path)] == ["open"]

    def test_imports_are_tracked_and_left_alone(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(change))
        number = str(host.changes(repository=change.path)[0]["number"])
        other = Office(office.folder / "other", office.root, office.names, office.hosts)

        (outcome,) = other.publish(other.run(imports={change.path: number}))
        caring = keeper(other)
        merged = list(caring.each(caring.merge, Selection(), per_minute=None))
        closed = other.publish(other.run(), removed="close")

        assert (outcome.done, outcome.branch) == ("imported", f"#{number}")
        assert [(each.done, each.reason) for each in merged] == [
            ("left", "it is somebody else's, and only tracked here")
        ]
        assert [each["state"] for each in host.changes(repository=change.path)] == ["open"]
        (tracked,) = other.tracked().values()
        assert (tracked.state, tracked.imported, tracked.url) == ("open", True, outcome.url)
        assert [(each.done, each.reason) for each in closed] == [
            ("kept", "it is somebody else's, and only tracked here")
        ]

    def test_a_repository_on_no_host_is_told(self, office: Office, change: Change) -> None:
        office.names = "elsewhere.example.com"

        (outcome,) = office.publish(office.run(change))

        assert outcome.done == "failed"
        assert "is on none of the given code hosts" in outcome.reason


class TestOthers:
    """What somebody else did first."""

    def test_a_branch_of_others_is_never_taken(self, host: RunningHost, office: Office, change: Change) -> None:
        run_git(host.repository(change.path), "branch", BRANCH, "main")
        new = changed(change, files={"x": "x\n"})

        (outcome,) = office.publish(office.run(new), foreign_commits="overwrite")

        assert (outcome.done, outcome.reason) == ("conflict", f"there is a branch {BRANCH} that is not ours")
        assert run_git(host.repository(change.path), "rev-parse", BRANCH) == change.base

    def test_a_review_request_of_others_is_never_taken(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(change))
        fields = {"body": "mine"}
        number = str(host.changes(repository=change.path)[0]["number"])
        host.control("set", {"repository": change.path, "number": number, "fields": fields})
        forgetful = Office(office.folder / "forgetful", office.root, office.names, office.hosts)

        (outcome,) = forgetful.publish(forgetful.run(change), foreign_commits="overwrite")

        assert outcome.done == "conflict"
        assert "a review request for the branch that is not ours" in outcome.reason

    def test_its_own_are_known_again_without_any_state(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(change))
        forgetful = Office(office.folder / "forgetful", office.root, office.names, office.hosts)

        (outcome,) = forgetful.publish(forgetful.run(change))

        assert outcome.done == "left"
        assert len(host.changes(repository=change.path)) == 1

    def test_every_commit_that_we_may_have_pushed_is_known(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        """A push of which we never saw the end, then one that did not come through: the branch is at the first."""
        office.publish(office.run(change))
        (before,) = office.tracked().values()
        office.publish(office.run(changed(change, files={"README.md": "second\n"})))
        (second,) = office.tracked().values()
        forget(office, commit=before.commit, content=before.content, pushing=second.commit)
        hook = host.repository(change.path) / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)

        (refused,) = office.publish(office.run(changed(change, files={"README.md": "third\n"})))
        hook.unlink()
        (tracked,) = office.tracked().values()
        (outcome,) = office.publish(office.run(changed(change, files={"README.md": "fourth\n"})))

        assert refused.done == "failed"
        assert tracked.unsure == (second.commit,)
        assert outcome.done == "updated", outcome
        assert run_git(host.repository(change.path), "show", f"{BRANCH}:README.md") == "fourth"
        (tracked,) = office.tracked().values()
        assert (tracked.pushing, tracked.unsure) == ("", ())

    def test_the_base_branch_cannot_be_a_changeset(self, office: Office, change: Change) -> None:
        (outcome,) = office.publish(office.run(changed(change, branch="main")))

        assert outcome.done == "failed"
        assert "is the branch that it goes to" in outcome.reason

    def test_two_publishers_at_once_make_one_review_request(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        run = office.run(*(changed(change, branch=f"b{number}") for number in range(6)))
        other = Office(office.folder, office.root, office.names, [gitea(host)])

        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda each: each.publish(run), (office, other)))
        other.hosts[0].disconnect()

        assert not {"failed", "conflict"} & {each.done for outcomes in both for each in outcomes}, both
        heads = Counter(each["head"] for each in host.changes(repository=change.path))
        assert heads == {f"b{number}": 1 for number in range(6)}
        assert all(tracked.external_id for tracked in office.tracked().values())


class TestUpkeep:
    def test_the_table_says_how_it_fares_and_the_green_are_merged(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        branches = ("good", "red", "asked", "draft", "conflicting")
        files = {"README.md": "conflicts\n"}
        office.publish(
            office.run(
                *(
                    changed(
                        change,
                        branch=branch,
                        published="draft" if branch == "draft" else True,
                        files=files if branch == "conflicting" else {branch: "x\n"},
                    )
                    for branch in branches
                )
            )
        )
        numbers = {each["head"]: str(each["number"]) for each in host.changes(repository=change.path)}

        def tell(what: str, branch: str, **more: str) -> None:
            host.control(what, {"repository": change.path, "number": numbers[branch], **more})

        tell("status", "good", state="success")
        tell("review", "good", who="rita", state="APPROVED")
        tell("status", "red", state="failure")
        tell("review", "asked", who="rita", state="REQUEST_CHANGES")
        with_conflict = run_git(host.repository(change.path), "commit-tree", f"{change.base}^{{tree}}", "-m", "x")
        assert with_conflict
        repository_work = host.root / f"{change.path}.work"
        (repository_work / "README.md").write_text("of the base\n")
        run_git(repository_work, "commit", "--quiet", "--all", "--message=Move")
        run_git(repository_work, "push", "--quiet", str(host.repository(change.path)), "main")
        caring = keeper(office)

        list(caring.each(caring.refresh, Selection(), per_minute=None))
        seen = {
            each.branch: (each.state, each.review, each.checks, each.conflicts) for each in office.tracked().values()
        }
        merged = {
            each.branch: each.reason or each.done
            for each in caring.each(caring.merge, Selection(branches="*"), per_minute=6000)
        }

        assert seen == {
            "good": ("open", "approved", "passed", False),
            "red": ("open", "pending", "failed", False),
            "asked": ("open", "changes_requested", "none", False),
            "draft": ("draft", "pending", "none", False),
            "conflicting": ("open", "pending", "none", True),
        }
        assert merged == {
            "good": "merged",
            "red": "its checks are not green: failed",
            "asked": "changes are requested",
            "draft": "it is a draft",
            "conflicting": "it conflicts with its base branch",
        }
        assert run_git(host.repository(change.path), "show", "main:good") == "x"
        again = office.publish(office.run(changed(change, branch="good", files={"good": "y\n"})))
        assert next((each.done, each.reason) for each in again) == ("left", "it is merged")

    def test_commits_of_others_are_not_merged(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(change))
        push_as_person(host.root, change.path, BRANCH, {"extra": "x\n"})
        caring = keeper(office)

        (outcome,) = caring.each(caring.merge, Selection(), per_minute=None)

        assert outcome.reason == "somebody else put commits on its branch; merge it on the code host"

    def test_closed_on_request_stays_closed(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(change))
        caring = keeper(office)

        closed = list(caring.each(caring.close, Selection(repositories="*/nobody"), per_minute=None))
        assert closed == []
        assert done(list(caring.each(caring.close, Selection(), per_minute=None))) == ["closed"]
        assert done(office.publish(office.run(changed(change, title="Other")))) == ["left"]
        assert [each["state"] for each in host.changes(repository=change.path)] == ["closed"]

    def test_what_is_let_go_of_is_left_alone(self, host: RunningHost, office: Office, change: Change) -> None:
        office.publish(office.run(change))

        detached = office.publish(office.run(), removed="detach")
        after = office.publish(office.run(), removed="close")

        assert (done(detached), done(after)) == (["detached"], [])
        assert [each["state"] for each in host.changes(repository=change.path)] == ["open"]
        assert done(office.publish(office.run(changed(change, title="Other")))) == ["updated"]

    def test_what_somebody_let_go_of_is_taken_up_only_when_asked(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        office.publish(office.run(change))
        caring, new = keeper(office), changed(change, title="Other")

        detached = list(caring.each(caring.detach, Selection(), per_minute=None))
        (left,) = office.publish(office.run(new))
        before = [each["title"] for each in host.changes(repository=change.path)]
        (taken,) = office.publish(office.run(new), reopen=True)

        assert done(detached) == ["detached"]
        assert (left.done, left.reason) == ("left", "it was let go of; --reopen takes it up again")
        assert (before, taken.done) == ([change.title], "updated")
        assert [each["title"] for each in host.changes(repository=change.path)] == ["Other"]
        assert done(office.publish(office.run(new))) == ["left"]

    def test_what_somebody_closed_after_it_was_let_go_of_stays_closed(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        office.publish(office.run(change))
        office.publish(office.run(), removed="detach")
        number = str(host.changes(repository=change.path)[0]["number"])
        host.control("set", {"repository": change.path, "number": number, "fields": {"state": "closed"}})

        (left,) = office.publish(office.run(change))

        assert (left.done, left.reason) == ("left", "it was closed; --reopen opens it again")

    @pytest.mark.parametrize("by", ["request", "removal"])
    def test_what_was_pushed_but_never_opened_is_taken_back(
        self, host: RunningHost, office: Office, change: Change, by: str
    ) -> None:
        self._push_only(host, office, change)
        caring = keeper(office)
        (looked,) = caring.each(caring.refresh, Selection(), per_minute=None)
        (merged,) = caring.each(caring.merge, Selection(), per_minute=None)

        if by == "request":
            closed = list(caring.each(caring.close, Selection(), per_minute=None))
        else:
            closed = office.publish(office.run(), removed="close")

        told = "it has no review request yet; publish again"
        assert [(each.done, each.reason) for each in (looked, merged)] == [("left", told)] * 2
        assert [(each.done, each.actions) for each in closed] == [("closed", (f"remove the branch {BRANCH}",))]
        assert done(office.publish(office.run(change))) == ["left" if by == "request" else "opened"]

    def _push_only(self, host: RunningHost, office: Office, change: Change) -> None:
        """Publishing ends after the push: the host wants a pause just then, and we do not wait."""
        impatient = Office(office.folder, office.root, office.names, [gitea(host, patience_seconds=0.5)])
        host.control("limit", {"kind": "retry-after", "after": 1, "seconds": 0})
        (failed,) = impatient.publish(office.run(change))
        impatient.hosts[0].disconnect()
        assert (failed.done, host.changes(repository=change.path)) == ("failed", [])
        assert run_git(host.repository(change.path), "show", f"{BRANCH}:README.md") == "hello, new mirror"

    def test_what_was_opened_but_never_noted_is_closed(self, host: RunningHost, office: Office, change: Change) -> None:
        """As we leave it when we are killed just after the review request was made."""
        office.publish(office.run(change))
        forget(office, external_id="", url="", state="unpublished")

        (closed,) = office.publish(office.run(), removed="close")

        (request,) = host.changes(repository=change.path)
        (tracked,) = office.tracked().values()
        assert (closed.done, request["state"]) == ("closed", "closed")
        assert (tracked.state, tracked.closed_by) == ("closed", "removal")
        assert tracked.external_id == str(request["number"])

    def test_another_review_request_under_the_number_is_left_alone(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        """As when the repository was removed and made again."""
        office.publish(office.run(change))
        number = str(host.changes(repository=change.path)[0]["number"])
        run_git(host.repository(change.path), "branch", "theirs", "main")
        fields = {"head": "theirs", "body": "mine"}
        host.control("set", {"repository": change.path, "number": number, "fields": fields})
        caring, new = keeper(office), changed(change, title="Other")

        (closed,) = caring.each(caring.close, Selection(), per_minute=None)
        (gone,) = office.publish(office.run(new))
        (opened,) = office.publish(office.run(new), reopen=True)

        assert (closed.done, "another review request under the number" in closed.reason) == ("failed", True)
        assert (gone.done, gone.reason) == (
            "failed",
            "the review request is gone from the code host; --reopen makes a new one",
        )
        assert opened.done == "opened"
        assert {(each["head"], each["title"], each["state"]) for each in host.changes(repository=change.path)} == {
            ("theirs", change.title, "open"),
            (BRANCH, "Other", "open"),
        }


class TestTrouble:
    def test_an_answer_that_got_lost_makes_no_second_review_request(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        host.control("fail", {"statuses": [502]})

        (outcome,) = office.publish(office.run(change))

        assert outcome.done == "opened"
        assert len(host.changes(repository=change.path)) == 1

    def test_what_fails_is_noted_and_mended_by_the_next_run(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        (failed,) = office.publish(office.run(change), labels=("there-is-none",))
        (tracked,) = office.tracked().values()
        assert failed.done == "failed"
        assert "has no label there-is-none" in tracked.problem
        assert tracked.state == "open"

        host.control("label", {"repository": change.path, "name": "there-is-none"})
        (mended,) = office.publish(office.run(change), labels=("there-is-none",))
        (tracked,) = office.tracked().values()
        assert (mended.done, tracked.problem) == ("updated", "")

    def test_limits_are_obeyed_by_all_threads(self, host: RunningHost, office: Office, change: Change) -> None:
        """Nobody asks again before the time that the host says."""
        run = office.run(*(changed(change, branch=f"b{number}") for number in range(8)))
        host.control("limit", {"kind": "retry-after", "after": 6, "seconds": 2})

        outcomes = office.publish(run)

        limits = host.state()["limits"]
        assert set(done(outcomes)) == {"opened"}
        assert limits["refusals"] >= 1
        assert limits["offences"] == 0

    def test_a_token_is_nowhere_but_in_requests(
        self,
        host: RunningHost,
        office: Office,
        change: Change,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """Not in arguments of processes, nor in files, logs, representations, pickles of errors."""
        spy = tmp_path / "bin" / "git"
        spy.parent.mkdir()
        real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
        spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/argv\nexec {real} "$@"\n')
        spy.chmod(0o755)
        monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
        caplog.set_level(logging.DEBUG)
        office.publish(office.run(change))
        wrong = [
            gitea_with("wrong-TOKEN-of-ours"),
            github_with("wrong-TOKEN-of-ours"),
            gitlab_with("wrong-TOKEN-of-ours"),
        ]
        told = [repr(block) + str(block) for block in wrong]
        refused = Office(tmp_path / "refused", office.root, office.names, [gitea(host)])
        refused.hosts[0]._settings = gitea_with("wrong-TOKEN-of-ours", host.url)  # type: ignore[attr-defined]
        (outcome,) = refused.publish(refused.run(change))
        refused.hosts[0].disconnect()

        assert outcome.done == "failed"
        argv = (tmp_path / "argv").read_text()
        assert "push" in argv.split("\n")
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != spy]
        for secret in (TOKEN, "wrong-TOKEN-of-ours"):
            assert secret not in argv
            assert secret not in caplog.text
            assert secret not in repr(told) + repr(outcome) + repr(office.hosts)
            assert not any(secret.encode() in content for content in files)


def gitea_with(token: str, url: str = "https://git.example.com") -> Gitea:
    return Gitea(url=url, token=SecretStr(token))


def github_with(token: str) -> GitHub:
    return GitHub(token=SecretStr(token))


def gitlab_with(token: str) -> GitLab:
    return GitLab(token=SecretStr(token))


class TestCommand:
    def run(self, office: Office, *arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments, "--store", office.folder / "store"],
            env={**os.environ, "GITEA_TOKEN": token, "BATCHWRIGHT_HOME": str(office.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def test_from_the_dry_run_to_the_end(self, host: RunningHost, office: Office, change: Change) -> None:
        run, hosts = office.run(change), ("--host", f"gitea={host.url}")

        dry = self.run(office, "publish", run, *hosts, "--dry-run")
        real = self.run(office, "publish", run, *hosts)
        fork = self.run(office, "publish", office.run(changed(change, branch="main")), *hosts, "--json")
        table = self.run(office, "status", NAME, *hosts)
        closed = self.run(office, "close", NAME, *hosts, "--only", f"*/{change.path}")

        assert (dry.returncode, "would be: changesets: 1 opened" in dry.stdout) == (0, True)
        assert (real.returncode, "changesets: 1 opened" in real.stdout, real.stderr) == (0, True, "")
        assert (fork.returncode, json.loads(fork.stdout)[0]["done"]) == (1, "failed")
        assert f"{host.url}/{change.path}/pulls/1" in table.stdout
        assert "1 changesets: 1 open; looked at" in table.stdout
        assert "changesets: 1 closed" in closed.stdout

    def test_it_can_be_interrupted_while_the_host_wants_a_pause(
        self, host: RunningHost, office: Office, change: Change
    ) -> None:
        run = office.run(change)
        host.control("limit", {"kind": "retry-after", "after": 0, "seconds": 3000})
        process = subprocess.Popen(
            # What a shell starts in the background would ignore the signal.
            [
                "env",
                "--default-signal=INT",
                COMMAND,
                "publish",
                run,
                "--host",
                f"gitea={host.url}",
                "--store",
                office.folder / "store",
            ],
            env={**os.environ, "GITEA_TOKEN": TOKEN, "BATCHWRIGHT_HOME": str(office.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_until(lambda: host.state()["limits"]["refusals"] == 1)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=300)
        finally:
            process.kill()
            host.control("limit", {})

        assert (process.returncode, "interrupted: do it again" in said) == (130, True), said
        assert host.changes(repository=change.path) == []


@pytest.mark.parametrize(
    ("given", "token", "says"),
    [
        ([], "x", "no code host: give --host"),
        (["gitea=https://git.example.com"], "", "no token; set GITEA_TOKEN"),
        (["gitea=https://a:secret-in-it@git.example.com"], "x", "give the token in its own field"),
        (["svn=https://git.example.com"], "x", "there is github=, gitlab=, gitea= and git="),
        (["nothing"], "x", "neither KIND=ADDRESS nor a stored block"),
    ],
)
def test_a_host_that_cannot_be_is_told(
    monkeypatch: pytest.MonkeyPatch, given: list[str], token: str, says: str
) -> None:
    monkeypatch.setenv("GITEA_TOKEN", token)

    with pytest.raises(BadInput, match=re.escape(says)) as told:
        host_blocks(given)
    assert "secret-in-it" not in str(told.value)


def test_a_host_can_have_repositories_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITEA_TOKEN", "x")

    (block,) = host_blocks(["gitea=https://git.example.com/#mirrors/ours"])

    assert (block.url, block.connect().names) == ("https://git.example.com", "mirrors/ours")


class TestPlainGit:
    def test_a_changeset_is_a_branch(self, tmp_path: Path) -> None:
        base = repository_on(tmp_path / "root", "acme/app")
        office = Office(tmp_path, tmp_path / "root", "git.example.com")
        office.hosts = [PlainGit(url=str(tmp_path / "root"), names="git.example.com").connect()]
        change = Change("acme/app", base)
        bare = tmp_path / "root" / "acme" / "app.git"

        assert done(office.publish(office.run(change))) == ["pushed"]
        assert run_git(bare, "show", f"{BRANCH}:README.md") == "hello, new mirror"
        assert done(office.publish(office.run(change))) == ["left"]
        assert done(office.publish(office.run(changed(change, message="Other")))) == ["updated"]
        assert done(office.publish(office.run(), removed="close")) == ["closed"]
        assert run_git(bare, "branch", "--list") == "* main"
        assert done(office.publish(office.run(change))) == ["pushed"]
        caring = keeper(office)
        assert done(list(caring.each(caring.close, Selection(), per_minute=None))) == ["closed"]
        assert done(office.publish(office.run(change))) == ["left"]
        assert done(office.publish(office.run(change), reopen=True)) == ["pushed"]
        run_git(bare, "branch", "-D", BRANCH)
        (left,) = office.publish(office.run(changed(change, message="Other")))
        assert (left.done, left.reason) == ("left", "its branch was removed; --reopen makes it again")


@pytest.mark.parametrize(
    ("status", "headers", "text", "kind", "wait"),
    [
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1010", "Date": "Thu, 01 Jan 1970 00:16:40 GMT"},
         "API rate limit exceeded for user ID 1.", HostLimited, 11.0),
        (403, {"Retry-After": "7"}, "You have exceeded a secondary rate limit.", HostLimited, 7.0),
        (403, {}, "You have exceeded a secondary rate limit. Please wait a few minutes.", HostLimited, None),
        (429, {"RateLimit-Reset": "1030", "RateLimit-Remaining": "0", "Date": "Thu, 01 Jan 1970 00:16:40 GMT"},
         "", HostLimited, 31.0),
        (403, {"X-RateLimit-Remaining": "4999"}, "Resource not accessible by personal access token", HostRefused, None),
        (401, {}, "Bad credentials", HostRefused, None),
        (502, {}, "Bad Gateway", HostUnavailable, None),
        (422, {}, "Validation Failed", HostRefused, None),
    ],
)  # fmt: skip
def test_answers_are_understood(
    status: int, headers: dict[str, str], text: str, kind: type[Exception], wait: float | None
) -> None:
    error = trouble("git.example.com", status, headers, text)

    assert type(error) is kind
    assert pickle.loads(pickle.dumps(error)).args == error.args
    if isinstance(error, HostLimited):
        assert error.retry_after_seconds == wait


def test_a_wait_that_is_too_long_is_told_instead() -> None:
    asked = []

    def limited() -> None:
        asked.append(1)
        raise HostLimited("git.example.com", "too fast", 3600.0)

    with pytest.raises(HostLimited):
        Pace("git.example.com", patience_seconds=10.0).ask(limited)
    assert len(asked) == 1


def test_whoever_waited_for_a_slot_obeys_the_limit_that_was_told_meanwhile() -> None:
    pace, asked, begun, comes = Pace("h", at_once=1), list[float](), Event(), Event()

    def verb() -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            begun.set()
            assert comes.wait(60)
            time.sleep(0.1)  # the other one waits for the slot now
            raise HostLimited("h", "slow down", 0.5)

    def other() -> None:
        assert begun.wait(60)
        comes.set()
        pace.ask(verb)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(pace.ask, verb), pool.submit(other)]
    assert [each.result() for each in both] == [None, None]
    assert min(asked[1:]) - asked[0] >= 0.5


def test_unsaid_limits_are_waited_for_longer_each_time() -> None:
    answers = [HostLimited("h", "slow down", None), HostLimited("h", "slow down", None)]
    asked: list[float] = []

    def verb() -> str:
        asked.append(time.monotonic())
        if answers:
            raise answers.pop()
        return "done"

    assert Pace("h", unsaid_limit_seconds=0.2).ask(verb) == "done"
    first, second = asked[1] - asked[0], asked[2] - asked[1]
    assert first >= 0.2
    assert second >= 0.4


@pytest.mark.parametrize(
    "name",
    [
        *("", "@", "HEAD", "-x", "/x", "x/", "x.", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b"),
        *("a@{b", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a\x7f", "a\n", "x" * 241),
    ],
)
def test_bad_branch_names_are_refused_as_git_does(name: str) -> None:
    assert fault_of_branch(name)
    done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
    assert done.returncode != 0 or name in ("@", "HEAD", "-x") or len(name) > 240


def test_a_tracked_changeset_of_today_can_be_read_tomorrow() -> None:
    raw = (Path(__file__).parent / "batches" / "records" / "tracked_changeset_1.json").read_bytes()

    tracked = read_tracked_changeset(raw)

    assert tracked == TrackedChangeset.model_validate(json.loads(tracked.encode()))
    assert (tracked.state, tracked.external_id, tracked.people.labels) == ("open", "7", ("mirror",))
    assert (
        read_tracked_changeset(b'{"schema_version": 1, "batch_change": "n", "repository": "r"}').state == "unpublished"
    )
    with pytest.raises(PermanentError, match="upgrade it"):
        read_tracked_changeset(b'{"schema_version": 99}')


class TestStory:
    """A hundred changesets, on a host of our own, with the publisher killed again and again."""

    def test_nothing_is_lost_and_nothing_is_there_twice(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        bases = {f"acme/many{number}": repository_on(root, f"acme/many{number}") for number in range(SPREAD)}
        chance = random.Random(8)
        with running("gitea", root) as host:
            office = Office(tmp_path, root, host.names, [gitea(host)])
            first = self._changes(bases, "one\n")

            kills = self._publish_with_kills(host, office, self._run(office, first), chance)
            self._check(host, first, "one")
            opened = {(each["repository"], each["head"]): each["number"] for each in host.changes()}

            second = [changed(each, title="Newer") for each in self._changes(bases, "two\n")]
            kills += self._publish_with_kills(host, office, self._run(office, second), chance)
            self._check(host, second, "two")
            assert {(each["repository"], each["head"]): each["number"] for each in host.changes()} == opened

            outcomes = office.publish(self._run(office, second[:10]), removed="close")
            assert Counter(done(outcomes)) == {"left": 10, "closed": MANY - 10}
            assert len(host.changes(state="open")) == 10
            assert len(host.changes(state="closed")) == MANY - 10
            office.hosts[0].disconnect()
            assert kills >= 2
            assert host.state()["problems"] == []
        assert list((office.home / "publishing").glob("new-*")) == []

    def _changes(self, bases: dict[str, str], content: str) -> list[Change]:
        return [
            Change(path, base, branch=f"batch/{number}", files={"README.md": content})
            for path, base in bases.items()
            for number in range(MANY // SPREAD)
        ]

    def _run(self, office: Office, changes: list[Change]) -> str:
        diffs = {
            each.path: diff_of(office.root, each.path, each.base, each.files) for each in changes[:: MANY // SPREAD]
        }
        return office.run(*changes, diffs=diffs)

    def _publish_with_kills(self, host: RunningHost, office: Office, run: str, chance: random.Random) -> int:
        """Begin, be killed after some requests, begin again; two or three times. Then let it end."""
        kills = 0
        for _ in range(2):
            goal = len(host.state()["log"]) + chance.randint(5, 250)
            process = self._start(host, office, run)
            while process.poll() is None and len(host.state()["log"]) < goal:
                time.sleep(0.02)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.communicate()
        process = self._start(host, office, run)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return kills

    def _start(self, host: RunningHost, office: Office, run: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [COMMAND, "publish", run, "--host", f"gitea={host.url}", "--store", office.folder / "store", "--json"],
            env={**os.environ, "GITEA_TOKEN": TOKEN, "BATCHWRIGHT_HOME": str(office.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _check(self, host: RunningHost, changes: list[Change], content: str) -> None:
        """One open review request per changeset, on its commit, with its title."""
        found = {(each["repository"], each["head"]): each for each in host.changes(state="open")}
        assert len(host.changes()) == len(found) == MANY
        for each in changes:
            request = found[each.path, each.branch]
            assert request["title"] == each.title
            bare = host.repository(each.path)
            assert request["head_commit"] == run_git(bare, "rev-parse", each.branch)
        for path in {each.path for each in changes}:
            branches = run_git(host.repository(path), "for-each-ref", "--format=%(refname:short)", "refs/heads")
            assert len(branches.split()) == MANY // SPREAD + 1
        sample = changes[7]
        assert run_git(host.repository(sample.path), "show", f"{sample.branch}:README.md") == content


def test_a_push_costs_the_change_also_where_the_base_has_moved_on(host: RunningHost, office: Office) -> None:
    """Git would send the whole base, if it did not ask what the server has."""
    path = "acme/app0"
    base = move_base(host.root, path, {"large": os.urandom(500_000)})
    move_base(host.root, path, {"next": "x\n"})

    (outcome,) = office.publish(office.run(Change(path, base, branch="on-an-older-base")))

    sent = [
        int(line.rsplit(" ", 1)[1])
        for line in host.state()["log"]
        if path in line and "POST" in line and "receive" in line
    ]
    assert outcome.done == "opened"
    assert 0 < max(sent) < 10_000


def test_names_are_told_apart_by_host() -> None:
    hub, lab = (
        PlainGit(url="/a", names="git.example.com").connect(),
        PlainGit(url="/b", names="git.example.com/x").connect(),
    )

    assert Hosts([hub, lab]).place("git.example.com/x/app").path == "app"
    assert Hosts([hub, lab]).place("git.example.com/y/app").path == "y/app"
    assert NAME
