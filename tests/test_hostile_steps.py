"""Steps that attack the host, and steps that change what is hard to change, through the whole execution path.

Each test runs with workspaces mounted and with workspaces copied. After each one: no trap of the host was sprung,
nothing outside of the workspace was written, nothing is left in the engine or on the disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from blocks.docker_runtime import DockerRuntime
from flows.batches.steps import Outside
from flows.execution import Limits
from infra.images import HOST as DEBIAN
from tests import images
from tests.gitrepos import run_git
from tests.hostile import Host, PeakMemory

pytestmark = pytest.mark.docker

_MEGABYTE = 1 << 20


@pytest.fixture(scope="module", params=["overlay", "copy"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def machine(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with closing(docker.APIClient()) as client:
        images.ensure_busybox(client)
        images.ensure_host_image(client)
        images.ensure_variant(client, "user")
    with Host(tmp_path_factory.mktemp("host"), DockerRuntime(workspaces=mode, network="none")) as host:
        yield host


@pytest.fixture
def host(machine: Host) -> Iterator[Host]:
    yield machine
    machine.check_unharmed()


# The steps' own .git


def test_a_hostile_git_folder_runs_nothing_on_the_host(host: Host) -> None:
    """Whatever git would run for it: hooks, filters, monitors, pagers, diff tools, other work trees, other objects."""
    plant = f"""
        cat > .git/config <<END
        [core]
            fsmonitor = {host.trap}
            hooksPath = /work/.git/hooks
            sshCommand = {host.trap}
            worktree = {host.outside}
            pager = {host.trap}
            editor = {host.trap}
            attributesFile = /work/.gitattributes
            gitProxy = {host.trap}
            alternateRefsCommand = {host.trap}
        [include]
            path = {host.precious}
        [filter "trap"]
            clean = {host.trap}
            smudge = {host.trap}
            process = {host.trap}
            required = true
        [diff]
            external = {host.trap}
        [diff "trap"]
            command = {host.trap}
            textconv = {host.trap}
        [extensions]
            partialClone = evil
        [remote "evil"]
            url = ext::{host.trap}
            promisor = true
END
        for hook in pre-commit post-index-change post-checkout reference-transaction fsmonitor-watchman; do
            printf '#!/bin/sh\\n{host.trap}\\n' > .git/hooks/$hook 2>/dev/null ||
                {{ mkdir -p .git/hooks; printf '#!/bin/sh\\n{host.trap}\\n' > .git/hooks/$hook; }}
            chmod 755 .git/hooks/$hook
        done
        echo '* filter=trap diff=trap merge=trap' | tee .gitattributes > .git/info/attributes
        printf '[submodule "s"]\\n\\tpath = src\\n\\turl = ext::{host.trap}\\n\\tupdate = !{host.trap}\\n' > .gitmodules
        echo {host.outside} > .git/objects/info/alternates
        echo '*.md' > .git/info/exclude
        echo garbage > .git/index
        echo 'ref: refs/heads/../../../etc/passwd' > .git/HEAD
        chmod -R u+w .git/objects
        for file in .git/objects/pack/* .git/objects/??/*; do [ -f "$file" ] && echo garbage > "$file"; done
        echo one >> README.md
        """

    run = host.run(re.sub(r"(?m)^        ", "", plant), "echo two >> README.md; rm src/old.py")

    assert run.failure is None
    changes = host.changes(run.results[1])
    changes.pop(".gitmodules")
    assert changes == {
        ".gitattributes": b"* filter=trap diff=trap merge=trap\n",
        "README.md": b"hello\none\ntwo\n",
        "src/old.py": None,
    }


@pytest.mark.parametrize(
    "replace",
    [
        "ln -s {outside} .git",
        "ln -s ../../../../../../../../.. .git",
        "echo 'gitdir: {outside}' > .git",
        "mkdir .git; ln -s {outside} .git/objects; ln -s {precious} .git/config; ln -s {precious} .git/index",
        "mkfifo .git",
        ":",
    ],
)
def test_a_git_folder_that_leads_elsewhere_is_not_followed(host: Host, replace: str) -> None:
    replace = replace.format(outside=host.outside, precious=host.precious)

    run = host.run(f"rm -rf .git; {replace}; mkdir sub; cd sub; {replace}; echo new > new; echo x >> ../README.md")

    assert run.failure is None
    assert host.changes(run.results[0]) == {"README.md": b"hello\nx\n", "sub/new": b"new\n"}


def test_what_a_step_commits_is_still_in_the_diff(host: Host) -> None:
    """Also what it adds, stashes, hides from its index, or does on another branch."""
    setup = "git config user.name a; git config user.email a@b; "
    run = host.run(
        setup + "echo one > one; git add one; git commit -qm one; git checkout -qb other; echo two > two; git add two",
        setup + "git commit -qm two; git rm -q src/old.py; git commit -qm three; git log --format=%s | head -3",
        "git update-index --assume-unchanged README.md; echo x >> README.md; git mv moved.txt src; rm -rf .git/index",
        "git reset -q; git checkout -q main -- two 2>/dev/null; git status --short > /dev/null; git gc -q; echo 3 > 3",
        image=DEBIAN,
    )

    assert run.failure is None
    assert host.output(run.results[1]) == b"three\ntwo\none\n"
    assert host.changes(run.results[0]) == {"one": b"one\n", "two": b"two\n"}
    moved = (host.bench.folder / "app/moved.txt").read_bytes()
    assert host.changes(run.results[3]) == {
        "3": b"3\n",
        "README.md": b"hello\nx\n",
        "moved.txt": None,
        "one": b"one\n",
        "src/moved.txt": moved,
        "src/old.py": None,
        "two": b"two\n",
    }


def test_nested_repositories_are_plain_files(host: Host) -> None:
    """Their .git is not published, nor does it hide what lies beside it."""
    run = host.run(
        "git init -q nested; cd nested; echo in > in; git add in; git -c user.name=a -c user.email=b commit -qm x;"
        "cd ..; git init -q --bare bare; git init -q src; echo 'gitdir: ../nested/.git' > docs/.git; echo d > docs/d",
        "cd nested; echo more >> in; git log --format=%s",
        image=DEBIAN,
    )

    assert host.output(run.results[1]) == b"x\n"
    changes = host.changes(run.results[1])
    assert not any(".git" in path.split("/") for path in changes)
    plain = {path: content for path, content in changes.items() if not path.startswith("bare/")}
    assert plain == {"docs/d": b"d\n", "nested/in": b"in\nmore\n"}
    assert "bare/HEAD" in changes


@pytest.mark.parametrize("name", [".GIT/config", "git~1", "sub/.Git/x"])
def test_names_that_git_refuses_are_refused_in_words(host: Host, name: str) -> None:
    run = host.run(f"mkdir -p $(dirname {name}); echo x > {name}")

    assert run.failure is not None
    assert run.failure.reason == "step_failed"
    assert name in run.failure.message
    assert "remove or rename it" in run.failure.message
