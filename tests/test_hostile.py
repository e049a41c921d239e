"""Steps that attack the host, and steps that change what is hard to change, through the whole execution path.

Where it makes a difference, a test runs with workspaces mounted and with workspaces copied. After each one: no trap of
the host was sprung, nothing outside of the workspace was written, nothing is left in the engine or on the disk.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from tests.hostile_host import Host, PeakMemory, python

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
    machine.unlimit()
    machine.check_unharmed()


EITHER_WAY = pytest.mark.parametrize("mode", ["overlay"], indirect=True)
"""For what has nothing to do with how a workspace comes into its container."""


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


@EITHER_WAY
@pytest.mark.parametrize("name", [".GIT/config", "git~1", "sub/.Git/x", ".git /config", "a\\.git\\x", ".gitmodules"])
def test_names_that_git_refuses_are_refused_in_words(host: Host, name: str) -> None:
    """A `.gitmodules` is refused where it is a link."""
    run = host.run(f"mkdir -p \"$(dirname '{name}')\"; ln -s {host.precious} '{name}'")

    assert run.failure is not None
    assert run.failure.reason == "step_failed"
    assert f"{name!r}" in run.failure.message
    assert "remove or rename it" in run.failure.message


@EITHER_WAY
def test_rules_that_git_cannot_follow_are_the_steps_own_fault(host: Host) -> None:
    """Git dies of a text that is not in the encoding that its attributes claim."""
    run = host.run("echo '*.txt working-tree-encoding=NONE' >> .gitattributes; echo text > a.txt", "echo never")

    assert run.failure is not None
    assert run.failure.reason == "step_failed"
    assert "git does not take it: fatal: failed to encode 'a.txt' from NONE to UTF-8" in run.failure.message
    assert len(run.results) == 1


@EITHER_WAY
def test_a_file_too_large_for_a_patch_is_refused_unless_git_ignores_it(host: Host) -> None:
    """It would take its size in memory, several times, and no git apply would take the patch."""
    memory = PeakMemory()

    steps = ("truncate -s 520M large.log", "truncate -s 600M large", "echo never")
    run = host.run(*steps, image=DEBIAN, layer_bytes=_MEGABYTE)

    assert run.failure is not None
    assert host.changes(run.results[0]) == {}
    assert run.failure.reason == "step_failed"
    assert "'large': a file of 629,145,600 bytes, and 536,870,912 is the most" in run.failure.message
    assert memory.grown_bytes < 300 * _MEGABYTE


@EITHER_WAY
def test_an_index_is_neither_believed_nor_held(host: Host) -> None:
    """A step's own: one with millions of empty parts, and one that is only said to be large."""
    parts = r'open(".git/index", "wb").write(struct.pack(">4sII", b"DIRC", 2, 0) + b"TREE\0\0\0\0" * 1_000_000)'
    memory = PeakMemory()

    run = host.run(python(f"import struct; {parts}"), "truncate -s 500M .git/index; echo x > new", image=DEBIAN)

    assert run.failure is None
    assert host.changes(run.results[1]) == {"new": b"x\n"}
    assert memory.grown_bytes < 300 * _MEGABYTE


# The repository


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[Host]:
    """A host for one test, which may make the repository what it likes."""
    with closing(docker.APIClient()) as client:
        images.ensure_host_image(client)
    with Host(tmp_path, DockerRuntime(network="none")) as host:
        yield host
        host.check_unharmed()


def test_a_hostile_repository_harms_nobody(own_host: Host) -> None:
    """Links that lead out, filters, submodules with commands, names that differ in case; and where it lies, settings
    that run programs when git serves it."""
    host, app = own_host, own_host.bench.folder / "app"
    settings = {
        "core.fsmonitor": host.trap,
        "core.hooksPath": app / "hooks",
        "core.sshCommand": host.trap,
        "core.alternateRefsCommand": host.trap,
        "uploadpack.packObjectsHook": host.trap,
        "uploadpack.allowFilter": "true",
        "filter.trap.smudge": host.trap,
        "filter.trap.clean": host.trap,
        "filter.trap.process": host.trap,
        "extensions.partialClone": "evil",
        "remote.evil.url": f"{host.outside}",
        "remote.evil.uploadpack": host.trap,
        "remote.evil.promisor": "true",
    }
    (app / "attributes").write_text("* filter=trap diff=trap\n*.bin filter=lfs -text\n*.txt ident eol=crlf\n")
    (app / ".gitmodules").write_text(
        f'[submodule "x"]\n\tpath = x\n\turl = ext::{host.trap}\n\tupdate = !{host.trap}\n'
    )
    (app / "big.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    for name, target in {"up": "../../../../..", "way": host.outside, "me": "me", "precious": host.precious}.items():
        (app / name).symlink_to(target)
    for name in ("case", "CASE", "Case/x", "\udcff", "-rf", ".wh.README.md"):
        (app / name).parent.mkdir(exist_ok=True)
        (app / name).write_text(f"{name!r}\n")
    (app / "attributes").rename(app / ".gitattributes")
    run_git(app, "add", "--all")
    run_git(app, "update-index", "--add", "--cacheinfo", f"160000,{host.bench.commit},x")
    run_git(app, "commit", "--quiet", "-m", "hostile")
    for name, value in settings.items():
        run_git(app, "config", name, str(value))
    (app / "hooks").mkdir()
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"):
        (app / "hooks" / hook).write_text(f"#!/bin/sh\n{host.trap}\n")
        (app / "hooks" / hook).chmod(0o755)
    assert not host.sprung.exists()
    host.bench.commit = (app / ".git/refs/heads/main").read_text().strip()
    host.bench._mirror.fetch(host.bench.commit)
    host.bench.run(host.spec("true"))
    host.hold()

    run = host.run(
        "cat precious way/precious big.bin 2>&1; echo new > way/new; echo x > case; rm -r Case; echo y > big.bin",
        "git submodule update --init 2>&1; git status --short; ls x",
        image=DEBIAN,
    )

    assert run.failure is None, run.failure
    assert b"precious of the host" not in host.output(run.results[0])
    assert b"oid sha256:00" in host.output(run.results[0])
    assert not host.sprung.exists()
    for name in settings:  # the git of this test is less careful
        run_git(app, "-c", "core.fsmonitor=false", "config", "--unset", name)
    changes = host.changes(run.results[1])
    host.sprung.unlink(missing_ok=True)
    assert changes == {"Case/x": None, "big.bin": b"y\n", "case": b"x\n"}


# Links


def test_links_show_in_the_diff_and_lead_the_host_nowhere(host: Host) -> None:
    run = host.run(
        f"ln -s {host.precious} absolute; ln -s ../../../../../../../..{host.precious} relative; ln -sfn / folder;"
        f"ln -sf {host.precious} README.md; rm -r src; ln -s {host.outside} src; ln -sf {host.precious} .gitattributes;"
        f"ln -s {host.precious} docs/.gitignore; ln -s loop loop; ln -s '' none 2>/dev/null; ln -s {'x' * 4000} long",
        f"echo bad > src 2>/dev/null; mkdir -p {host.outside}; echo bad > src/new; echo bad > absolute; ls -l > listed",
    )

    assert run.failure is None, run.failure
    changes = host.changes(run.results[1])
    assert b"new" not in changes.pop("listed")
    precious, outside = str(host.precious).encode(), str(host.outside).encode()
    assert changes == {
        ".gitattributes": ("link", precious),
        "README.md": ("link", precious),
        "absolute": ("link", precious),
        "docs/.gitignore": ("link", precious),
        "folder": ("link", b"/"),
        "long": ("link", b"x" * 4000),
        "loop": ("link", b"loop"),
        "relative": ("link", b"../../../../../../../.." + precious),
        "src": ("link", outside),
        "src/main.py": None,
        "src/old.py": None,
    }


def test_a_link_that_becomes_a_folder_again_is_written_through_by_nobody(host: Host) -> None:
    """Neither by the next step's layer, nor by one that comes from the store."""
    plant = f"rm -r src; ln -s {host.outside} src; rm README.md; ln -s {host.precious} README.md"
    follow = "rm src README.md; mkdir src; echo bad > src/precious; echo bad > README.md"
    changes = {"README.md": b"bad\n", "src/main.py": None, "src/old.py": None, "src/precious": b"bad\n"}

    run = host.run(plant, follow, "exit 1", use_cache=True)
    again = host.run(plant, follow, "cat README.md", use_cache=True)

    assert host.changes(run.results[1]) == changes
    assert again.cached == {0, 1}
    assert again.failure is None
    assert host.changes(again.results[2]) == changes


def test_hard_links_reach_nothing_outside_of_the_workspace(host: Host) -> None:
    """Links to links, pipes and sockets among them."""
    odd = """
        import os, socket
        os.symlink("/etc/passwd", "points"); os.link("points", "second points", follow_symlinks=False)
        os.mkfifo("pipe"); os.link("pipe", "second pipe")
        socket.socket(socket.AF_UNIX).bind("socket"); os.link("socket", "second socket")
        """
    run = host.run(
        "ln /bin/busybox stolen; ln /.batchwright/step script; ln /etc/passwd passwd; ln README.md second;"
        "echo two > one; ln one src/two; ln src/main.py src/copy.py; echo changed >> second; ls\n" + python(odd),
        "echo more >> one; cat src/two second",
        image=DEBIAN,
    )

    assert run.failure is None
    changes = host.changes(run.results[1])
    assert not changes.keys() & {"stolen", "script", "passwd", "second pipe", "second socket"}
    assert changes["second points"] == ("link", b"/etc/passwd")
    assert changes["one"] == b"two\nmore\n"
    assert changes["second"] == b"hello\nchanged\n"
    assert changes["src/copy.py"] == b"print(1)\n"
    assert host.output(run.results[1]).endswith(b"hello\nchanged\n")


def test_a_file_that_is_shown_is_not_stolen_by_a_link(host: Host) -> None:
    """A mount cannot be linked to; in a copy it can, and that is refused in words."""
    step = {"run": "ln shown zlink || echo refused", "files": {"/work/shown": "x"}}

    run = host.run(step)

    if run.failure is None:
        assert host.output(run.results[0]) == b"refused\n"
    else:
        assert run.failure.reason == "step_failed"
        assert "'zlink' is a hard link to 'shown', which the step is only shown" in run.failure.message


def test_the_root_of_the_workspace_cannot_be_replaced(host: Host) -> None:
    """Removed, renamed, mounted over, unmounted, closed, given away; what it holds is the step's own affair."""
    attack = "; ".join(
        f"{command} 2> /dev/null && echo '{command}'"
        for command in (
            *("rm -r /work", "mv /work /gone", "mount -t tmpfs none /work", "mount --bind / /work", "umount /work"),
            *("umount -l /work", "mount -o remount,ro /work", "rmdir /work", f"ln -sfn {host.outside} /work/"),
        )
    )

    run = host.run(f"cd /; {attack}; chown 7:7 /work; chmod 0 /work", "cat link; ls -a; echo back > README.md")

    assert run.failure is None
    assert host.output(run.results[0]) == f"ln -sfn {host.outside} /work/\n".encode()
    assert host.output(run.results[1]) == b".\n..\noutside\n"
    changes = host.changes(run.results[1])
    assert changes.pop("outside") == ("link", str(host.outside).encode())
    assert changes.pop("README.md") == b"back\n"
    assert set(changes.values()) == {None}


# What is no file, and what has rights


def test_what_git_cannot_hold_is_not_there(host: Host) -> None:
    """Pipes and sockets; devices cannot be made at all, nor what an overlay takes for a mark of its own."""
    run = host.run(
        python("""
import os, socket
for kind, major, minor in ((0o60000, 8, 0), (0o20000, 1, 1), (0o20000, 1, 3)):
    try:
        os.mknod("device", kind | 0o666, os.makedev(major, minor))
    except PermissionError:
        print("refused", flush=True)
os.mkfifo("pipe")
os.remove("README.md")
os.mkfifo("README.md")
socket.socket(socket.AF_UNIX).bind("socket")
os.remove("src/old.py")
try:
    os.mknod("src/old.py", 0o20000, os.makedev(0, 0))
except PermissionError:
    pass
for name in ("user.overlay.opaque", "trusted.overlay.opaque", "user.overlay.whiteout", "user.overlay.redirect"):
    try:
        os.setxattr("docs", name, b"y")
        os.setxattr("src/main.py", name, b"/etc")
    except OSError:
        pass
open("docs/new", "w").write("new")
"""),
        "cat docs/a/b.md src/main.py; ls src; rm -f README.md; [ -e README.md ] || echo back > README.md",
        image=DEBIAN,
    )

    assert run.failure is None
    assert host.output(run.results[0]) == b"refused\n" * 3
    assert host.changes(run.results[0]) == {"README.md": None, "docs/new": b"new", "src/old.py": None}
    assert host.output(run.results[1]).startswith(b"b\nprint(1)\nmain.py\n")
    assert host.changes(run.results[1]) == {"README.md": b"back\n", "docs/new": b"new", "src/old.py": None}


def test_what_else_a_file_may_carry_is_harmless(host: Host) -> None:
    """Access lists, capabilities, marks of an overlay, times before and after time, owners that nobody has."""
    run = host.run(
        python("""
            import os
            closed = bytes.fromhex("0200000001000000ffffffff04000000ffffffff10000000ffffffff20000000ffffffff")
            marks = {f"{kind}.overlay.{mark}": b"y" for kind in ("user", "trusted") for mark in ("opaque", "redirect")}
            capable = bytes.fromhex("0100000200200000000000000000000000000000")
            more = {"system.posix_acl_default": closed, "security.capability": capable, "user.note": b"x" * 1000}
            open("capable", "w").write("x")
            os.chmod("capable", 0o755)
            for name, value in {**marks, **more}.items():
                for path in (".", "docs", "src/main.py", "capable"):
                    try:
                        os.setxattr(path, name, value)
                    except OSError:
                        pass
            for name, seconds in (("old", -99999999), ("new", 99999999999), ("capable", 2**33)):
                open(name, "a").close()
                os.utime(name, (seconds, seconds))
                os.chown(name, 4294967294, 4294967294)
            """),
        {
            "run": "ls docs src; echo y > docs/y; echo z >> src/main.py; echo w > w",
            "container": "batchwright/test-user:1",
        },
        image=DEBIAN,
    )

    assert run.failure is None
    assert host.output(run.results[1]) == b"docs:\na\n\nsrc:\nmain.py\nold.py\n"
    assert host.changes(run.results[1]) == {
        "capable": ("executable", b"x"),
        "docs/y": b"y\n",
        "new": b"",
        "old": b"",
        "src/main.py": b"print(1)\nz\n",
        "w": b"w\n",
    }


def test_setuid_files_give_nobody_rights(host: Host) -> None:
    """Neither a later step's user, nor anybody else on the host, who cannot reach what a running step makes."""
    run = host.bench.open(
        host.spec(
            "cp /bin/busybox id; chmod 6755 id; mkdir s; chmod 6777 s; cp id s; chmod 6777 s/id",
            {"run": "./id -u; s/id -g; ls -l id | cut -c 1-10", "container": "batchwright/test-user:1"},
        ),
        use_cache=False,
    )
    with closing(run):
        run.set_up()
        run.run_step(0)
        second = run.run_step(1)
        (layer,) = host.bench.home.glob("workspaces/*/layers/0/upper")
        (tree,) = host.bench.home.glob("checkouts/*/tree")

        for place in (layer, tree):
            closed = [folder for folder in place.parents if folder.stat().st_mode & 0o077 == 0]
            assert any(folder.is_relative_to(host.bench.home) for folder in closed)
        assert not any(path.lstat().st_mode & 0o6000 for path in layer.rglob("*"))

    assert host.output(second) == b"1000\n1000\n-rwxrwxrwx\n"
    assert second.changes.added == ("id", "s/id")


def test_immutable_and_closed_leftovers_are_no_hindrance(host: Host) -> None:
    """A step cannot make files immutable; if somebody else does, and whatever it closes, the folder goes."""
    close = python("""
        import fcntl, os, struct
        os.makedirs("a/b")
        open("a/b/x", "w").write("x\\n")
        for path, flag in (("a/b/x", 0x10), ("a", 0x20)):
            try:
                fcntl.ioctl(os.open(path, os.O_RDONLY), 0x40086602, struct.pack("l", flag))
            except PermissionError:
                print("refused")
        for path in ("a/b/x", "a/b", "a", "."):
            os.chmod(path, 0)
        """)
    run = host.bench.open(host.spec(close, "cat a/b/x; rm -r a/b; mkdir a/c; chmod 0 a", image=DEBIAN), use_cache=False)
    run.set_up()
    first, second = run.run_step(0), run.run_step(1)
    immutable = next(host.bench.home.glob("workspaces/*/layers/0/upper/a/b/x"))
    subprocess.run(["chattr", "+i", immutable, immutable.parent], check=True)
    run.close()

    assert host.output(first) == b"refused\n" * 2
    assert host.output(second) == b"x\n"
    assert host.changes(second) == {}


# Names


NAMES = [
    *("-rf", "--upload-pack=x", "-", "--", "--help", "-o ProxyCommand=x"),
    *(".wh.README.md", ".wh..wh..opq", ".wh..wh.plnk", "src/.wh.old.py", ".wh..opq"),
    *("with space", " leading", "trailing ", "new\nline", "tab\t", "back\\slash", "q'uote", 'dou"ble', "a\rb"),
    *("\udcff\udcfe", "é", "\u202e", ":(top)", "*", "?", "[a]", "$HOME", "$(true)", "`true`", "%s", "#x", "!x", "~"),
    *("x" * 255, "a:b,c", "CON", "aux.txt", "...", "dev/null", "\x01\x1b[31m", "=", "@{u}", "HEAD", "a;b&c|d"),
]


def test_any_name_is_just_a_name(host: Host) -> None:
    listed = "\0".join(NAMES)
    write = python(f"""
import os
names = {listed.encode(errors="surrogateescape")!r}.split(b"\\0")
for number, name in enumerate(names):
    os.makedirs(os.path.dirname(name) or b".", exist_ok=True)
    open(name, "a").write(f"{{number}}\\n")
print(sum(map(os.path.isfile, names)))
""")

    run = host.run(write, write, image=DEBIAN)

    assert run.failure is None
    assert host.output(run.results[1]) == b"%d\n" % len(NAMES)
    assert host.changes(run.results[1]) == {name: f"{number}\n".encode() * 2 for number, name in enumerate(NAMES)}
    assert sorted(run.results[1].changes.added) == sorted(NAMES)


def test_a_path_that_no_tool_can_read_is_refused_in_words(host: Host) -> None:
    """Deeper than the system's limit. Nothing of it hinders the clean-up."""
    dig = "name=$(printf %0250d 0); for i in $(seq {depth}); do mkdir $name; cd $name; done; echo x > deep"

    deep = host.run(dig.format(depth=14))
    too_deep = host.run(dig.format(depth=40))

    assert deep.failure is None
    assert [len(path) for path in deep.results[0].changes.added] == [14 * 251 + 4]
    assert too_deep.failure is not None
    assert too_deep.failure.reason == "step_failed"
    assert re.search(r"path has over \d+ bytes; remove it at the end of the step", too_deep.failure.message)


@EITHER_WAY
def test_more_paths_than_a_worker_should_hold_are_refused_in_words(host: Host) -> None:
    """Links to one file, each a few thousand bytes of path for nothing."""
    memory = PeakMemory()

    run = host.run(
        python("""
            import os
            for _ in range(14):
                os.mkdir("n" * 250)
                os.chdir("n" * 250)
            for group in range(2):
                open(str(group), "w").close()
                for number in range(45_000):
                    os.link(str(group), f"{group}-{number}")
        """),
        image=DEBIAN,
    )

    assert run.failure is not None
    assert run.failure.reason == "step_failed"
    assert "the paths of what it left changed have more than 268,435,456 bytes together" in run.failure.message
    assert memory.grown_bytes < 600 * _MEGABYTE


def test_an_archive_that_a_step_unpacks_writes_nothing_outside(host: Host) -> None:
    run = host.run(
        python(f"""
import io, tarfile
names = ["../up", "../../../../../../../..{host.precious}", "{host.precious}", "fine"]
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name in names:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"bad"))
    link = tarfile.TarInfo("way")
    link.type, link.linkname = tarfile.SYMTYPE, "{host.outside}"
    tar.addfile(link)
    info = tarfile.TarInfo("way/precious")
    info.size = 3
    tar.addfile(info, io.BytesIO(b"bad"))
open("evil.tar", "wb").write(buffer.getvalue())
buffer.seek(0)
tarfile.open(fileobj=buffer).extractall(".")
"""),
        image=DEBIAN,
    )

    assert run.failure is None
    changes = host.changes(run.results[0])
    assert changes.keys() == {"evil.tar", "fine", "way"}


# Complete


EDITS = r"""
printf 'more\n' >> README.md
mv moved.txt src/renamed.txt; printf 'last\n' >> src/renamed.txt
rm src/old.py; cp src/main.py src/copy.py; chmod +x src/main.py
rm -r docs; echo file > docs
rm tool.sh; mkdir tool.sh; echo in > tool.sh/in
rm link; ln -s src/main.py link; ln -s ../README.md src/link
printf 'echo 2\r\n' >> run.bat; printf 'a\r\nb\n' > mixed.bat; printf 'dos\r\n' > dos.txt
printf 'a\0b\377' > data.bin; : > nothing; printf 'no end' > end
mkdir -p empty/deeper ignored/deep; echo x > ignored/x; echo y > ignored/deep/y; echo log > src/a.log
echo 'late/' > src/.gitignore; mkdir src/late; echo z > src/late/z
echo '*.txt -diff' >> .gitattributes; printf 'shown as binary\n' > note.txt
"""


def test_the_diff_is_the_one_that_git_makes_of_a_full_checkout(host: Host, tmp_path: Path) -> None:
    app, clone = host.bench.folder / "app", tmp_path / "clone"
    run_git(tmp_path, "clone", "--quiet", str(app), str(clone))
    subprocess.run(["sh", "-ec", EDITS], cwd=clone, check=True)
    run_git(clone, "add", "--all")
    wanted = subprocess.run(
        ["git", "diff", "--cached", "--no-prefix", "--binary"], cwd=clone, capture_output=True, check=True
    ).stdout

    look = "cat ignored/x ignored/deep/y src/a.log src/late/z; ls -d empty/deeper; rm -r .git"
    run = host.run("set -e\n" + EDITS, look)

    assert run.failure is None
    assert host.diff(run.results[0]) == wanted
    assert host.diff(run.results[1]) == wanted
    assert host.output(run.results[1]) == b"x\ny\nlog\nz\nempty/deeper\n"
    assert "src/renamed.txt" in run.results[0].changes.renamed


def test_a_workspace_may_be_emptied_and_filled_again(host: Host) -> None:
    run = host.run("rm -rf /work/* /work/.[!.]*; ls -A", "ls -A; mkdir src; echo 'print(1)' > src/main.py")

    assert [host.output(result) for result in run.results] == [b"", b""]
    assert not any(host.changes(run.results[0]).values())
    assert "src/main.py" not in host.changes(run.results[1])
    assert "README.md" in host.changes(run.results[1])


def test_a_large_file_is_complete_at_flat_memory(host: Host) -> None:
    """100 MB that cannot be compressed; the next step changes the end of it."""
    memory = PeakMemory()

    run = host.run("head -c 100000000 /dev/urandom > large; sha256sum large; cp large large.log")

    assert run.failure is None
    assert memory.grown_bytes < 200 * _MEGABYTE
    assert run.results[0].changes.added == ("large",)
    assert run.results[0].diff is not None
    assert run.results[0].diff.size_bytes > 100_000_000


def test_fifty_thousand_files_are_complete_in_bounded_memory(host: Host, mode: str) -> None:
    """A fifth of them where every step copies the whole workspace, in and out."""
    folders = 250 if mode == "overlay" else 50
    fill = "for j in $(seq 200); do echo $i.$j > f$j; done"
    script = f"for i in $(seq {folders}); do mkdir d$i; cd d$i; {fill}; cd ..; done"
    memory = PeakMemory()

    run = host.run(script)

    assert run.failure is None
    assert memory.grown_bytes < 300 * _MEGABYTE
    assert len(run.results[0].changes.added) == folders * 200


# The step cache


@pytest.mark.parametrize(
    ("left", "other", "look"),
    [
        ("mkfifo pipe", "true", "test -p pipe"),
        ("touch README.md", "true", "find README.md -newer src/main.py | grep ."),
        (
            "echo x > README.md; touch -r src/main.py README.md",
            "echo x > README.md",
            "! find README.md -newer src/main.py | grep .",
        ),
    ],
)
def test_no_step_leads_the_cache_astray(host: Host, left: str, other: str, look: str) -> None:
    """What a step leaves that no digest tells: a later step that saw it is not taken for one that did not.

    More of it is in test_layers.
    """
    look = f"if {look}; then echo seen; else echo not; fi > result"
    fresh = host.run(other, look)
    host.run(left, look, use_cache=True)

    led = host.run(other, look, use_cache=True)

    assert host.changes(led.results[1]) == host.changes(fresh.results[1])


@EITHER_WAY
def test_what_led_the_cache_astray_is_gone_when_a_step_removes_it(host: Host) -> None:
    """And the step that does so is one that changed something."""
    steps = "mkfifo pipe", "rm pipe", "test ! -p pipe && echo gone > result"

    host.run(*steps[:2], use_cache=True)
    resumed = host.run(*steps, use_cache=True)
    host.run("mkfifo pipe", "rm pipe; echo x > f", "if test -p pipe; then echo seen; fi > result", use_cache=True)
    other = host.run("mkfifo pipe", "echo x > f", "if test -p pipe; then echo seen; fi > result", use_cache=True)

    assert resumed.failure is None
    assert host.changes(resumed.results[2])["result"] == b"gone\n"
    assert other.cached == {0}
    assert host.changes(other.results[2])["result"] == b"seen\n"


@EITHER_WAY
def test_a_step_is_run_again_rather_than_resumed_without_what_it_left(host: Host) -> None:
    """No packed layer keeps extended attributes."""
    mark = python("import os; open('new', 'w').close(); os.setxattr('new', 'user.x', b'y')")
    look = python("import os; open('result', 'w').write(str(os.listxattr('new')))")
    host.run(mark, "exit 1", image=DEBIAN, use_cache=True)

    again = host.run(mark, look, image=DEBIAN, use_cache=True)

    assert again.cached == set()
    assert host.changes(again.results[1])["result"] == b"['user.x']"


@EITHER_WAY
def test_an_edited_step_that_leaves_the_same_lets_later_ones_be(host: Host) -> None:
    host.run(
        "mkdir new; echo x > new/file; chmod +x README.md", "echo y > new/other; echo y >> src/main.py", use_cache=True
    )

    edited = host.run(
        "echo edited; mkdir new; chmod +x README.md; echo x > new/file",
        "echo y > new/other; echo y >> src/main.py",
        use_cache=True,
    )

    assert edited.cached == {1}


# Files and mounts


def test_what_is_shown_below_the_workspace_leaves_no_trace(host: Host, tmp_path: Path) -> None:
    """Whatever the step does with it: list, copy, link, add to git. Copies are the step's own files."""
    folder = tmp_path / "tools"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/tool").write_bytes(b"#!/bin/sh\necho ran\n\0\377")
    (folder / "sub/tool").chmod(0o755)
    step = {
        "run": "ls -R > /dev/null; tools/sub/tool; cat note README.md deep/er/note > copies; cp -r tools own;"
        " git add -A;"
        " ln note linked 2> /dev/null; mv note gone 2> /dev/null; git commit -qm x 2> /dev/null; echo x > README.md;"
        " rm -rf src/main.py; true",
        "files": {"/work/note": "note\n", "/work/README.md": "other\n", "/work/deep/er/note": "deep\n"},
        "mount": [{"path": "tools", "mountpoint": "/work/tools"}, {"path": "tools", "mountpoint": "/work/src"}],
    }
    mounts = host.staged({"tools": folder})

    look = "find . -name .git -prune -o -type f -print | sort; cat README.md"
    run = host.run(step, look, image=DEBIAN, mounts=mounts)

    assert run.failure is None
    changes = host.changes(run.results[1])
    assert changes.pop("own/sub/tool") == ("executable", b"#!/bin/sh\necho ran\n\0\377")
    assert changes.pop("copies") == b"note\nother\ndeep\n"
    assert changes.keys() <= {"linked", "gone"}  # where files are copied in, the step may copy them on
    listed = host.output(run.results[1]).decode().split("\n")
    assert "./src/old.py" in listed
    assert not {"./note", "./deep/er/note", "./tools/sub/tool", "./src/sub/tool"} & set(listed)
    assert listed[-2] == "hello"


def test_mounts_may_be_nested(host: Host, tmp_path: Path) -> None:
    """In any order, in the workspace and beside it."""
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(f"{name}\n")
    (tmp_path / "outer/sub").mkdir()
    (tmp_path / "outer/sub/hidden").write_text("hidden\n")
    mounts = [
        {"path": path, "mountpoint": f"{place}{target}"}
        for place in ("/work/tools", "/opt/tools")
        for path, target in (("inner", "/new/inner"), ("inner", "/sub"), ("outer", ""))
    ]

    run = host.run(
        {"run": "cat {/work,/opt}/tools/{outer,new/inner/inner,sub/inner}; ls /opt/tools/sub; cat /opt/tools/file",
         "mount": mounts, "files": {"/opt/tools/file": "file\n"}},
        image=DEBIAN,
        mounts=host.staged({"outer": tmp_path / "outer", "inner": tmp_path / "inner"}),
    )  # fmt: skip

    assert run.failure is None, run.failure
    assert host.output(run.results[0]) == b"outer\ninner\ninner\n" * 2 + b"inner\nfile\n"
    assert host.changes(run.results[0]) == {}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/proc/self/environ", "/proc is the system's own"),
        ("/sys/x", "/sys is the system's own"),
        ("/work/", "/work is the workspace itself"),
        ("/work/README.md/x", "'README.md' is a file of the workspace"),
    ],
)
def test_places_where_nothing_can_be_shown_are_refused_in_words(host: Host, target: str, reason: str) -> None:
    run = host.run({"run": "true", "files": {target: "x"}})

    assert run.failure is not None
    assert f"cannot mount at {target}" in run.failure.message
    assert reason in run.failure.message


# Limits


@EITHER_WAY
def test_a_fork_bomb_ends(host: Host) -> None:
    host.limit(pids_limit=64)
    bomb = "bomb() { bomb | bomb & }; (bomb 2> /dev/null) & "

    left_alone = host.run(bomb + "sleep 1; echo survived")
    endless = host.run(bomb + "while :; do :; done", limits=Limits(step_seconds=2))  # no process left for a sleep

    assert left_alone.failure is None or left_alone.failure.reason == "step_failed"
    assert endless.failure is not None
    assert endless.failure.reason == "timed_out"


@EITHER_WAY
def test_a_step_that_ignores_every_signal_is_ended(host: Host) -> None:
    host.limit(stop_grace_seconds=1)
    deaf = "for s in $(seq 64); do trap '' $s 2> /dev/null; done; echo x > new; while :; do sleep 1; done"

    run = host.run(deaf, limits=Limits(step_seconds=1))

    assert run.failure is not None
    assert run.failure.reason == "timed_out"
    assert "Execution took longer than 1s." in run.failure.message


@EITHER_WAY
def test_what_runs_on_in_the_background_ends_with_the_step(host: Host) -> None:
    """Though it holds the pipes, left its session, and was not asked."""
    run = host.run(
        "(sleep 600; echo late) & setsid sleep 600 & nohup sleep 600 & (trap '' TERM HUP; exec sleep 600) & echo x > y",
        "kill -9 1; kill -9 -1; echo alive",
    )

    assert run.failure is None
    assert host.output(run.results[1]) == b"alive\n"
    assert host.changes(run.results[0]) == {"y": b"x\n"}


@EITHER_WAY
def test_a_cancelled_step_is_ended_and_told_apart(host: Host) -> None:
    timer = threading.Timer(1.0, host.bench.cancel.set)
    timer.start()
    try:
        run = host.run("trap '' TERM INT HUP; (sleep 50 &); while :; do sleep 1; done", "echo never")
    finally:
        timer.join()
        host.bench.cancel.clear()

    assert run.failure is not None
    assert run.failure.reason == "cancelled"
    assert len(run.results) == 1


@EITHER_WAY
def test_memory_and_processors_are_limited(host: Host) -> None:
    host.limit(memory="48m", cpus=0.5)

    run = host.run(
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2> /dev/null || cat /sys/fs/cgroup/cpu.max",
        "tail /dev/zero",
        "echo never",
    )

    assert host.output(run.results[0]).split()[0] == b"50000"
    assert run.failure is not None
    assert run.failure.reason == "out_of_memory"
    assert "Out of memory" in run.failure.message
    assert len(run.results) == 2


@pytest.fixture
def small(tmp_path: Path, mode: str) -> Iterator[Host]:
    """A host whose disk has 64 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
    try:
        (disk / "host").mkdir()
        with Host(disk / "host", DockerRuntime(workspaces=mode, network="none")) as host:
            yield host
            host.check_unharmed()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    "script",
    [
        "head -c 100000000 /dev/urandom > ignored.log",
        "head -c 100000000 /dev/urandom > ignored.log 2> /dev/null; true",
        "head -c 25000000 /dev/urandom > new",
        "head -c 100000000 /dev/urandom",
        "dd if=/dev/zero of=/dev/shm/full bs=1M",
    ],
    ids=["fails", "goes on", "diff", "output", "of the container"],
)
def test_a_full_disk_is_said_so_and_free_again_afterwards(small: Host, script: str) -> None:
    free = shutil.disk_usage(small.bench.home).free

    run = small.run(script, "echo never")

    assert run.failure is not None
    assert run.failure.reason == "disk_full", run.failure
    assert "free some" in run.failure.message
    assert len(run.results) == 1
    assert shutil.disk_usage(small.bench.home).free > free - _MEGABYTE
    assert small.run("echo x > x").failure is None


@EITHER_WAY
@pytest.mark.parametrize(
    "greedy",
    [
        "echo x > x; head -c 100000000 /dev/urandom > ignored.log 2> /dev/null; sleep 60",
        "exec 3> big; rm big; head -c 100000000 /dev/urandom >&3 2> /dev/null; sleep 60",
    ],
    ids=["named", "hidden"],
)
def test_who_fills_a_disk_ends_and_nobody_else(small: Host, greedy: str) -> None:
    """Of several steps: by what their workspaces, outputs and containers have come to, named or not."""
    loud = "head -c 20000000 /dev/urandom; sleep 5"
    modest = "head -c 1000000 /dev/urandom > new.log; sleep 5; echo x > x"

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(small.run, script) for script in (modest, loud)]
        time.sleep(1.5)
        ended = small.run(greedy)

    assert ended.failure is not None
    assert ended.failure.reason == "disk_full"
    assert "The worker's disk is nearly full" in ended.failure.message
    assert [other.result().failure for other in others] == [None, None]


def test_a_file_that_is_only_said_to_be_huge_costs_nothing(host: Host) -> None:
    """A sparse file takes no disk, and those who would read it hours."""
    run = host.run("truncate -s 1T sparse.log; echo x > new", "echo never", image=DEBIAN)

    assert run.failure is not None
    assert run.failure.reason == "step_failed"
    assert re.search(r"1,099,511,627,77[68] bytes of changed files", run.failure.message)


# Rights


@EITHER_WAY
def test_package_managers_can_do_their_work(host: Host) -> None:
    """What apt, dpkg and apk do as root: any owner, any mode, other users, a chroot."""
    run = host.run(
        "set -e; mkdir -p root/bin /var/cache/x; cp /bin/busybox root/bin; echo x > owned; chown 33:33 owned;"
        " chmod 4755 owned;"
        "chgrp 42 owned; stat -c '%u:%g' owned; chroot root /bin/busybox echo chrooted;"
        "chown 65534 /var/cache/x; su -s /bin/sh nobody -c 'touch /var/cache/x/y; id -un';"
        "chmod 000 owned; cat owned; setpriv --nnp true; rm -r root owned"
    )

    assert run.failure is None, run.failure
    assert host.output(run.results[0]) == b"33:42\nchrooted\nnobody\nx\n"
    assert host.changes(run.results[0]) == {}


ESCAPES = """
import ctypes, os, socket, subprocess

libc = ctypes.CDLL(None, use_errno=True)


def refused(what, call):
    try:
        call()
    except OSError as error:
        return print(f"{what}: refused")
    print(f"{what}: DONE")


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def escape():
    os.mkdir("/tmp/jail")
    down = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/jail")
    os.fchdir(down)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    os.stat("@OUTSIDE@")


refused("mount", lambda: check(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)))
refused("bind", lambda: check(libc.mount(b"/proc", b"/tmp", None, 4096, None)))
refused("remount", lambda: check(libc.mount(None, b"/proc/sys", None, 32 | 4096, None)))
refused("umount", lambda: check(libc.umount2(b"/proc/sys", 2)))
refused("unshare user", lambda: check(libc.unshare(0x10000000)))
refused("unshare mount", lambda: check(libc.unshare(0x00020000)))
refused("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
refused("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused("device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)))
refused("kernel memory", lambda: open("/dev/mem"))
refused("kernel log", lambda: check(libc.klogctl(3, ctypes.create_string_buffer(64), 64)))
refused("sysrq", lambda: open("/proc/sysrq-trigger", "w"))
refused("core pattern", lambda: open("/proc/sys/kernel/core_pattern", "w"))
refused("cgroup", lambda: os.mkdir("/sys/fs/cgroup/memory/mine") if os.path.exists("/sys/fs/cgroup/memory")
    else os.mkdir("/sys/fs/cgroup/mine"))
refused("host name", lambda: check(libc.sethostname(b"mine", 4)))
refused("clock", lambda: __import__("time").clock_settime(0, 0))
refused("module", lambda: check(libc.syscall(313, -1, b"", 0)))
refused("reboot", lambda: check(libc.reboot(0x1234567)))
refused("engine", lambda: [os.stat(path) for path in ("/var/run/docker.sock", "/run/docker.sock")])
refused("network", lambda: socket.create_connection(("192.0.2.1", 80), 2))
refused("metadata", lambda: socket.create_connection(("169.254.169.254", 80), 2))
refused("names", lambda: socket.getaddrinfo("host.docker.internal", 80))
os.setgid(1000); os.setuid(1000)
refused("become root", lambda: os.setuid(0))
refused("trace root", lambda: check(libc.ptrace(16, 1, 0, 0)))
"""


@EITHER_WAY
def test_what_no_package_manager_needs_is_refused(host: Host) -> None:
    program = ESCAPES.replace("@OUTSIDE@", str(host.precious))

    run = host.run(
        python(program),
        python(program.partition('refused("mount"')[0] + "refused('chroot', escape)\n"),
        "ls /sys/class/net; ls -A /.batchwright; env | grep -v GIT_CONFIG | cut -d = -f 1 | sort | xargs;"
        " echo /proc/[0-9]*",
        image=DEBIAN,
    )

    assert run.failure is None, run.failure
    tried = host.output(run.results[0]).decode().splitlines()
    assert [line for line in tried if not line.endswith(": refused")] == []
    assert len(tried) == 24
    assert host.output(run.results[1]) == b"chroot: refused\n"
    network, scripts, variables, processes = host.output(run.results[2]).decode().splitlines()
    assert (network, scripts) == ("lo", "step")
    assert set(variables.split()) <= {"HOME", "HOSTNAME", "OLDPWD", "PATH", "PWD", "SHLVL", "_"}
    assert len(processes.split()) < 10


# Secrets


SECRET, NAME, OTHER = 's3cret/"välue"+more', 'na"me of a sécret', "unasked-value"
KEY = "-----BEGIN\nfirst line\nsecond line\n"
OUTSIDE = Outside.of(secrets={"TOKEN": SECRET, "NAME": NAME, "OTHER": OTHER, "KEY": KEY}, variables={})


def _with_secrets(script: str, *names: str) -> dict[str, object]:
    return {"run": script, "env": list(names or ("TOKEN",))}


def _assert_hidden(host: Host, *more: str) -> None:
    values = [value.encode() for value in (SECRET, NAME, OTHER, *more)]
    shown = "\n".join(host.bench.shown).encode()
    assert not host.stores(b"precious of the host", *values)
    assert not any(value in shown for value in values)


@EITHER_WAY
def test_a_step_sees_the_secrets_that_it_asks_for_and_nobody_else_does(host: Host) -> None:
    """In every form that they usually take, in both streams, also when they come in pieces."""
    program = """
        import base64, json, os, sys, time, urllib.parse
        secret = os.environ["TOKEN"]
        print("asked", len(secret), "OTHER" in os.environ)
        forms = [secret, json.dumps({"a": secret}), json.dumps(secret, ensure_ascii=False), urllib.parse.quote(secret)]
        forms += [urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)]
        for before in ("", "u", "us", "user:"):
            encoded = base64.b64encode((before + secret).encode())
            forms += [encoded.decode(), base64.urlsafe_b64encode((before + secret + "!").encode()).decode()]
        for form in forms + os.environ["KEY"].split("\\n"):
            print(form, flush=True)
            print(form, file=sys.stderr, flush=True)
        for letter in secret * 2:
            sys.stdout.write(letter)
            sys.stdout.flush()
            time.sleep(0.01)
        os.write(1, b"\\n" * 70000 + secret.encode())
        """

    run = host.run(_with_secrets(python(program), "TOKEN", "KEY"), image=DEBIAN, outside=OUTSIDE)

    assert run.failure is None, run.failure
    assert host.output(run.results[0]).startswith(b"asked 19 False\n")
    assert host.output(run.results[0]).endswith(b"\n\n${{ secrets.TOKEN }}")
    assert b"\n${{ secrets.TOKEN }}${{ secrets.TOKEN }}\n" in host.output(run.results[0])
    assert run.results[0].rendered is not None
    assert run.results[0].rendered.environment == {"TOKEN": "${{ secrets.TOKEN }}", "KEY": "${{ secrets.KEY }}"}
    _assert_hidden(host, "first line", "second line", SECRET[3:-3], "c2VjcmV0", "czNjcmV0", "MzY3JldC", "zM2NyZXQ")


@EITHER_WAY
def test_an_error_does_not_show_a_secret(host: Host) -> None:
    run = host.run(_with_secrets('echo "password: $TOKEN" >&2; echo "$TOKEN"; exit 3'), outside=OUTSIDE)

    assert run.failure is not None
    assert "password: ${{ secrets.TOKEN }}" in run.failure.message
    assert SECRET not in run.failure.message
    _assert_hidden(host)


@EITHER_WAY
@pytest.mark.parametrize(
    "leak",
    [
        'echo "token=$TOKEN" > config',
        'head -c 100000 /dev/zero > binary; echo "$TOKEN" >> binary',
        'echo "$TOKEN" | base64 -w 0 > config',
        'mkdir "$NAME"; touch "$NAME/x"',
        'ln -s "$TOKEN" leak',
    ],
    ids=["text", "binary", "base64", "name", "link"],
)
def test_a_secret_in_the_diff_stops_the_workspace(host: Host, leak: str) -> None:
    run = host.run(_with_secrets(leak, "TOKEN", "NAME"), "echo never", outside=OUTSIDE)

    assert run.failure is not None
    assert run.failure.reason == "secret_in_diff"
    assert "the secret" in run.failure.message
    assert len(run.results) == 1
    _assert_hidden(host)


@EITHER_WAY
@pytest.mark.parametrize(
    "hide",
    [
        'mkdir ignored; echo "$TOKEN" > ignored/x',
        'mkdir ignored; touch "ignored/$NAME"',
        'mkdir ignored; ln -s "$TOKEN" ignored/link',
        'git config user.password "$TOKEN"',
        'mkdir -p ignored; mkfifo "ignored/$NAME"',
        'echo "$TOKEN" > f; git hash-object -w f; rm f',
        'mkdir -p .git/objects/aa; echo "$TOKEN" > .git/objects/aa/$(printf %038d 0)',
        'echo "$TOKEN" > .git/objects/pack/x',
        'git config user.email a; git config user.name a; echo "$TOKEN" > f; git add f; git commit -qm x;'
        " seq 9999 > g; cat f >> g; git add g; git commit -qm y; git rm -q f g; git commit -qm z; git repack -adq",
    ],
    ids=["file", "name", "link", "git", "pipe", "object", "no object", "no pack", "pack"],
)
def test_a_secret_in_what_is_not_published_is_not_kept_either(host: Host, hide: str) -> None:
    run = host.run(
        _with_secrets(hide, "TOKEN", "NAME"),
        "ls ignored; git config user.password || true",
        image=DEBIAN,
        outside=OUTSIDE,
    )

    assert run.failure is None
    assert run.results[0].layer is None
    _assert_hidden(host)


def test_the_name_of_what_a_step_removes_is_not_kept_if_it_is_a_secret(host: Host) -> None:
    run = host.run(
        _with_secrets('mkdir ignored; echo x > "ignored/$NAME"; echo y > new', "NAME"),
        _with_secrets('rm "ignored/$NAME"; echo z > new2', "NAME"),
        image=DEBIAN,
        outside=OUTSIDE,
    )

    assert run.failure is None
    assert [result.layer for result in run.results] == [None, None]
    _assert_hidden(host)
