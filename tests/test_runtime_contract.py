"""What every runtime promises (blocks/runtime.py), against a real engine: workspaces mounted, and workspaces copied."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import pytest

from blocks.docker_engine import Engine
from blocks.docker_runtime import DockerRuntime
from blocks.runtime import ContainerRefused, ContainerRun, Layers, ReadOnlyFile
from tests import images
from tests.engines import wait_until
from tests.rooms import BUSYBOX, CountingSink, Rig, left_over

pytestmark = pytest.mark.docker

FILES = {"README.md": "hello\n", "src/main.py": "print(1)\n", "src/old.py": "old\n", "docs/a/b.md": "b\n"}

Rigs = Callable[..., Rig]


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    client = docker.APIClient()
    images.ensure_busybox(client)
    for variant in ("few-tools", "entrypoint", "user", "workdir", "healthcheck"):
        images.ensure_variant(client, variant)
    client.close()


@pytest.fixture(scope="module", params=["overlay", "copy"])
def runtime(request: pytest.FixtureRequest) -> DockerRuntime:
    return DockerRuntime(workspaces=request.param, network="none")


@pytest.fixture
def rigs(tmp_path: Path, runtime: DockerRuntime) -> Iterator[Rigs]:
    """Makes workspaces, with settings of their own; closes them, and sees that nothing of them is left."""
    made: list[Rig] = []
    with ExitStack() as stack:

        def make(files: dict[str, Any] = FILES, *, steps: int = 1, **settings: Any) -> Rig:
            chosen = runtime.model_copy(update=settings) if settings else runtime
            made.append(stack.enter_context(Rig(tmp_path / str(len(made)), chosen, files, steps=steps)))
            return made[-1]

        yield make
    for rig in made:
        assert left_over(rig.runtime, rig.workspace) == []


@pytest.fixture
def rig(rigs: Rigs) -> Rig:
    return rigs()


# How a container ends


@pytest.mark.parametrize("code", [0, 1, 126, 255])
def test_an_exit_code_is_a_value(rig: Rig, code: int) -> None:
    exit = rig.run(f"exit {code}").exit

    assert (exit.code, exit.ok) == (code, code == 0)
    assert (exit.oom_killed, exit.timed_out, exit.cancelled) == (False, False, False)


def test_a_script_that_kills_itself_failed_by_itself(rig: Rig) -> None:
    exit = rig.run("kill -9 $$").exit

    assert (exit.code, exit.oom_killed, exit.cancelled) == (137, False, False)


def test_a_container_over_its_time_limit_is_killed(rig: Rig) -> None:
    began = time.monotonic()

    exit = rig.run("echo begun; sleep 60", timeout=1.0).exit

    assert (exit.code, exit.timed_out, exit.cancelled, exit.ok) == (137, True, False, False)
    assert time.monotonic() - began < 6


def test_a_cancelled_container_is_killed_though_it_ignores_signals(rig: Rig) -> None:
    ran = rig.run("trap '' TERM INT; echo begun; while :; do sleep 1; done", cancel_when_it_speaks=True)

    assert (ran.exit.code, ran.exit.cancelled, ran.stdout) == (137, True, b"begun\n")


def test_a_cancelled_container_is_killed_while_it_writes_and_writes(rig: Rig) -> None:
    """An engine answers no kill while nobody reads what the container has written."""
    ran = rig.run("echo begun; exec yes", cancel_when_it_speaks=True)

    assert (ran.exit.code, ran.exit.cancelled) == (137, True)
    assert ran.stdout.startswith(b"begun\n")


def test_a_cancelled_run_starts_nothing(rig: Rig) -> None:
    cancel = threading.Event()
    cancel.set()

    ran = rig.run("echo begun", cancel=cancel)

    assert (ran.exit.cancelled, ran.stdout) == (True, b"")


def test_with_a_grace_the_script_can_say_goodbye(rigs: Rigs) -> None:
    rig = rigs(stop_grace_seconds=5)

    ran = rig.run("trap 'echo bye; exit 7' TERM; sleep 60 & wait", timeout=1.0)

    assert (ran.exit.code, ran.exit.timed_out, ran.stdout) == (7, True, b"bye\n")


def test_a_grace_ends(rigs: Rigs) -> None:
    rig = rigs(stop_grace_seconds=1)

    assert rig.run("trap '' TERM; while :; do sleep 1; done", timeout=0.5).exit.code == 137


def test_a_container_that_takes_too_much_memory_is_told_apart(rigs: Rigs) -> None:
    exit = rigs(memory="32m").run("tail /dev/zero").exit

    assert (exit.oom_killed, exit.timed_out, exit.ok) == (True, False, False)


def test_a_fork_bomb_hits_a_limit_and_can_be_killed(rigs: Rigs) -> None:
    exit = rigs(pids_limit=64).run("bomb() { bomb | bomb & }; bomb & exec sleep 60", timeout=2.0).exit

    assert exit.timed_out


# Streams


def test_the_streams_are_apart_and_byte_for_byte(rig: Rig) -> None:
    ran = rig.run(r"printf 'a\0\377\376no newline'; printf 'e\0\200' >&2; printf '\nlast'")

    assert (ran.stdout, ran.stderr) == (b"a\0\xff\xfeno newline\nlast", b"e\0\x80")


def test_much_output_is_complete(rig: Rig) -> None:
    rig.layers.clear()
    image = rig.runtime.resolve_image(BUSYBOX)
    stdout, stderr = CountingSink(), CountingSink()
    script = "yes 0123456789 | head -c 20000000 & yes error | head -c 3000000 >&2; wait"
    layer = rig.folder / "layer"
    layer.mkdir()

    exit = rig.room.run(
        ContainerRun(image, (image.shell, "-c", script), "/work"),
        Layers(rig.base),
        layer,
        stdout=stdout,
        stderr=stderr,
        cancel=threading.Event(),
    )

    assert exit.ok
    assert (stdout.size, stderr.size) == (20_000_000, 3_000_000)
    assert stdout.digest == hashlib.sha256((b"0123456789\n" * 2_000_000)[:20_000_000]).hexdigest()


def test_a_child_in_the_background_does_not_keep_the_step_open(rig: Rig) -> None:
    began = time.monotonic()

    ran = rig.run("sleep 60 & echo done")

    assert (ran.exit.code, ran.stdout) == (0, b"done\n")
    assert time.monotonic() - began < 10


def test_a_script_may_close_its_streams(rig: Rig) -> None:
    ran = rig.run("echo first; exec >&- 2>&-; sleep 1; exit 4")

    assert (ran.exit.code, ran.stdout) == (4, b"first\n")


def test_a_stream_that_cannot_be_written_ends_the_container(rig: Rig) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError("no space left")

    image = rig.runtime.resolve_image(BUSYBOX)
    layer = rig.folder / "layer"
    layer.mkdir()
    with pytest.raises(OSError, match="no space left"):
        rig.room.run(
            ContainerRun(image, (image.shell, "-c", "echo x; sleep 60"), "/work"),
            Layers(rig.base),
            layer,
            stdout=Full(),
            stderr=Full(),
            cancel=threading.Event(),
        )


# Images


@pytest.mark.parametrize("variant", ["few-tools", "entrypoint", "user", "workdir", "healthcheck"])
def test_odd_images_work(rig: Rig, variant: str) -> None:
    tag = f"batchwright/test-{variant}:1"

    ran = rig.run("pwd; echo new > new; echo more >> src/main.py; rm docs/a/b.md", image=tag, directory="/work")

    assert (ran.exit.code, ran.stdout, ran.stderr) == (0, b"/work\n", b"")
    assert rig.changes() == {"new": "new\n", "src/main.py": "print(1)\nmore\n", "docs/a/b.md": "gone"}


def test_environment_and_directory_are_as_asked(rig: Rig) -> None:
    ran = rig.run('pwd; printf "%s|" "$A" "$EMPTY" "$ODD"', directory="/work/src", environment={
        "A": "1 'x'\n2", "EMPTY": "", "ODD": "ü=$HOME"
    })  # fmt: skip

    assert ran.stdout.decode() == "/work/src\n1 'x'\n2||ü=$HOME|"


@pytest.mark.parametrize("value", ["x" * 131_072, "a\0b", "\udcff"], ids=["long", "nul", "not UTF-8"])
def test_an_environment_that_no_program_can_be_given_is_refused(rig: Rig, value: str) -> None:
    with pytest.raises(ContainerRefused, match=r"environment variable BIG.*file"):
        rig.run("true", environment={"BIG": value})


def test_an_environment_just_below_the_limit_arrives(rig: Rig) -> None:
    ran = rig.run("echo ${#BIG}", environment={"BIG": "x" * (131_072 - 5)})

    assert ran.stdout == b"131067\n"


# What a step changes


def test_every_kind_of_change_is_in_the_layer(rig: Rig) -> None:
    rig.write("run.sh", "#!/bin/sh\n", executable=True)
    rig.write("swap", "file")
    rig.write("same", "same")

    ran = rig.run(
        """
        printf changed > README.md; rm src/old.py; rm -r docs; mkdir -p docs/a; echo new > docs/a/c.md
        rm swap; mkdir swap; echo in > swap/in; printf 'a\\0b' > bin; ln -s ../README.md src/link; : > empty
        chmod -x run.sh; chmod +x src/main.py; printf same > same; mkdir hollow
        """
    )

    assert ran.exit.ok
    changes = rig.changes()
    changes.pop("same", None)  # written, not changed
    changes.pop("docs/a/b.md", None)  # hidden by the new folder above it, or listed
    for folder in ("docs", "docs/a"):
        changes.pop(folder, None)
    assert changes == {
        "README.md": "changed",
        "src/old.py": "gone",
        "docs/a/c.md": "new\n",
        "swap": "folder",
        "swap/in": "in\n",
        "bin": "a\0b",
        "src/link": ("link", "../README.md"),
        "empty": "",
        "run.sh": "#!/bin/sh\n",
        "src/main.py": ("777", "print(1)\n"),
        "hollow": "folder",
    }


def test_odd_names_survive(rig: Rig) -> None:
    rig.run(r"""
        echo 1 > 'with space'; echo 2 > "$(printf 'new\nline')"; echo 3 > "$(printf 'not\377utf8')"; echo 4 > -rf
        echo 5 > .wh.README.md; echo 6 > '.wh..wh..opq'; echo 7 > "q'\"\\"; mkdir 'a:b,c'; echo 8 > 'a:b,c/x'
    """)

    ran = rig.run("cat 'with space' not*utf8 ./-rf .wh.README.md .wh..wh..opq q* a:b,c/x README.md")

    assert ran.stdout == b"1\n3\n4\n5\n6\n7\n8\nhello\n"
    assert rig.changes() == {
        "with space": "1\n", "new\nline": "2\n", r"not\xffutf8": "3\n", "-rf": "4\n", ".wh.README.md": "5\n",
        ".wh..wh..opq": "6\n", "q'\"\\": "7\n", "a:b,c": "folder", "a:b,c/x": "8\n",
    }  # fmt: skip


def test_a_step_sees_what_the_steps_before_it_left(rigs: Rigs) -> None:
    rig = rigs(steps=4)

    rig.run("echo 1 > one; rm README.md; rm -r src; mkdir src; echo s > src/new")
    second = rig.run("ls; ls src; echo 2 >> one; echo again > README.md; rm -r src docs")
    third = rig.run("ls; cat one README.md; mkdir -p docs/a; ls docs/a")

    assert second.stdout == b"docs\none\nsrc\nnew\n"
    assert third.stdout == b"README.md\none\n1\n2\nagain\n"
    assert {path: rig.changes()[path] for path in ("one", "README.md", "docs/a")} == {
        "one": "1\n2\n",
        "README.md": "again\n",
        "docs/a": "folder",
    }
    assert not any(path.startswith("src/") and what != "gone" for path, what in rig.changes().items())


def test_a_step_that_is_tried_again_begins_on_a_fresh_layer(rig: Rig) -> None:
    rig.run("echo kept > kept")
    first = rig.run("echo bad > bad; rm README.md; chmod 000 src; mkfifo pipe; exit 1", keep=False)

    second = rig.run("ls; cat README.md src/main.py", layer=first.layer)

    assert second.stdout == b"README.md\ndocs\nkept\nsrc\nhello\nprint(1)\n"
    assert rig.changes() == {"kept": "kept\n"}


def test_a_layer_from_the_store_lists_what_is_deleted(rig: Rig) -> None:
    layer = rig.folder / "stored"
    (layer / "upper/docs").mkdir(parents=True)
    (layer / "upper/docs/new.md").write_text("n")
    (layer / "deleted").write_bytes(b"README.md\0docs\0src/old.py\0")
    rig.layers.append(layer)

    ran = rig.run("find . -type f | sort")

    assert ran.stdout == b"./docs/new.md\n./src/main.py\n"


def test_two_hundred_layers_are_not_too_many(rig: Rig) -> None:
    for number in range(200):
        upper = rig.folder / "a-rather-long-name-of-a-folder-for-layers" / str(number) / "upper"
        upper.mkdir(parents=True)
        (upper / f"file{number}").write_text(str(number))
        (upper / "last").write_text(str(number))
        if number == 100:
            (upper.parent / "deleted").write_bytes(b"file7\0docs\0")
        rig.layers.append(upper.parent)

    ran = rig.run("ls | wc -l; cat last; ls docs file7")

    assert ran.stdout == b"202\n199"
    assert ran.exit.code != 0


def test_hard_links_are_files_of_their_own_to_those_who_read_the_layer(rig: Rig) -> None:
    rig.run("ln README.md second; echo x > one; ln one two; ln one src/three; ln src/main.py src/copy.py")

    changes = rig.changes()
    changes.pop("README.md", None)
    changes.pop("src/main.py", None)
    assert changes == {
        "second": "hello\n", "one": "x\n", "two": "x\n", "src/three": "x\n", "src/copy.py": "print(1)\n"
    }  # fmt: skip


def test_users_may_change_from_step_to_step(rigs: Rigs) -> None:
    """A step's user need not be the one before it: both can read, write and remove everything."""
    rig = rigs(steps=3)
    user = "batchwright/test-user:1"
    files = "find . -mindepth 1 | sort"

    rig.run("umask 077; mkdir secret; echo root > secret/r; chmod 700 src; chmod 400 README.md")
    second = rig.run(
        "id -u; umask 077; cat secret/r; echo 1 >> README.md; rm src/old.py; echo u > secret/u", image=user
    )
    third = rig.run(f"cat secret/u; rm secret/u; {files}", image=user)
    fourth = rig.run("cat secret/r README.md")

    assert second.stdout + second.stderr == b"1000\nroot\n"
    assert (
        third.stdout == b"u\n./README.md\n./docs\n./docs/a\n./docs/a/b.md\n./secret\n./secret/r\n./src\n./src/main.py\n"
    )
    assert fourth.stdout == b"root\nhello\n1\n"


# Files


@pytest.fixture
def shown(tmp_path: Path) -> ReadOnlyFile:
    path = tmp_path / "shown"
    path.write_bytes(b"shown\0\xff")
    path.chmod(0o644)
    return ReadOnlyFile(path, "/anywhere/at/all")


def test_a_file_is_shown_read_only_to_any_user(rig: Rig, shown: ReadOnlyFile) -> None:
    ran = rig.run(
        "cat /anywhere/at/all; echo overwritten > /anywhere/at/all", files=[shown], image="batchwright/test-user:1"
    )

    assert ran.stdout == b"shown\0\xff"
    assert ran.exit.code != 0
    assert shown.source.read_bytes() == b"shown\0\xff"


def test_not_even_root_can_write_to_the_original(rig: Rig, shown: ReadOnlyFile) -> None:
    rig.run("chmod 777 /anywhere/at/all; echo overwritten > /anywhere/at/all", files=[shown])

    assert shown.source.read_bytes() == b"shown\0\xff"
    assert stat.S_IMODE(shown.source.stat().st_mode) == 0o644


@pytest.mark.parametrize("target", ["/work/new", "/work/src/deep/er/new", "/work//docs/./new", "/work/README.md"])
def test_a_file_below_the_workspace_leaves_no_trace(rigs: Rigs, shown: ReadOnlyFile, target: str) -> None:
    rig = rigs(steps=2)

    first = rig.run(f"cat '{target}'; echo mine > mine", files=[ReadOnlyFile(shown.source, target)])
    second = rig.run("find . -type f | sort; cat README.md")

    assert first.stdout == b"shown\0\xff"
    assert second.stdout == b"./README.md\n./docs/a/b.md\n./mine\n./src/main.py\n./src/old.py\nhello\n"
    assert rig.changes() == {"mine": "mine\n"}


def test_beside_a_shown_file_a_step_may_work(rig: Rig, shown: ReadOnlyFile) -> None:
    files = [ReadOnlyFile(shown.source, "/work/tools/x/shown"), ReadOnlyFile(shown.source, "/work/src/shown")]

    ran = rig.run("echo made > tools/made; rm src/old.py; ls tools/x src", files=files, image="batchwright/test-user:1")

    assert ran.exit.ok, ran.stderr
    assert {path: what for path, what in rig.changes().items() if what != "folder"} == {
        "tools/made": "made\n",
        "src/old.py": "gone",
    }


def test_a_folder_is_shown_with_all_that_is_in_it(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "tool").write_text("#!/bin/sh\necho ran\n")
    (folder / "sub" / "tool").chmod(0o755)
    (folder / "link").symlink_to("sub/tool")
    files = [ReadOnlyFile(folder, "/opt/tools"), ReadOnlyFile(folder, "/work/src")]

    ran = rig.run("/opt/tools/link; src/sub/tool; ls src", files=files)

    assert ran.stdout == b"ran\nran\nlink\nsub\n"
    assert rig.changes() == {}


def test_a_target_behind_a_link_of_the_repository_leaves_no_trace(rig: Rig, shown: ReadOnlyFile) -> None:
    (rig.base / "linked").symlink_to("src/inner")
    (rig.base / "absolute").symlink_to("/work/docs")
    (rig.base / "outside").symlink_to("/opt")
    (rig.base / "up").symlink_to("../../../../../etc")
    files = [
        ReadOnlyFile(shown.source, f"/work/{place}")
        for place in ("linked/new", "absolute/new", "outside/new", "up/new")
    ]

    ran = rig.run("cat src/inner/new docs/new /opt/new /etc/new", files=files)

    assert ran.stdout == b"shown\0\xff" * 4
    assert rig.changes() == {}


def test_a_target_below_a_file_is_refused(rig: Rig, shown: ReadOnlyFile) -> None:
    with pytest.raises(ContainerRefused):
        rig.run("true", files=[ReadOnlyFile(shown.source, "/work/README.md/new")])


# Hostile steps


def test_devices_cannot_be_made_and_setuid_has_no_effect(rig: Rig) -> None:
    ran = rig.run(
        "mknod disk b 8 0; mknod mem c 1 1; mkfifo pipe;"
        "cp /bin/busybox su; chmod 6777 su; cp /bin/busybox id; chmod 6755 id"
    )
    second = rig.run("./id -u; ls -l su", image="batchwright/test-user:1")

    assert ran.stderr.count(b"Operation not permitted") == 2
    assert second.stdout.startswith(b"1000\n-rwxrwxrwx")
    upper = ran.layer / "upper"
    assert stat.S_IMODE((upper / "su").stat().st_mode) == 0o777
    assert {name: what for name, what in rig.changes().items() if name not in ("su", "id")} == {}


def test_links_out_of_the_workspace_are_not_followed(rig: Rig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (outside / "precious").chmod(0o600)

    rig.run(
        f"rm -r src; ln -s {outside} src; ln -s {outside}/precious link; ln -s /etc/passwd README.md2; ln -sf . loop"
    )
    rig.run(
        f"mkdir -p {outside}; echo bad > src/precious; echo bad > src/new; rm -f src; mkdir src; echo in > src/precious"
    )

    assert sorted(os.listdir(outside)) == ["precious"]
    assert (outside / "precious").read_text() == "precious"
    assert stat.S_IMODE((outside / "precious").stat().st_mode) == 0o600
    assert rig.changes()["link"] == ("link", f"{outside}/precious")
    assert rig.changes()["src/precious"] == "in\n"


def test_the_container_has_only_the_rights_of_package_managers(rig: Rig) -> None:
    ran = rig.run(
        "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /var/run/docker.sock; mount -t tmpfs x /tmp"
    )

    lines = dict(line.split(":\t") for line in ran.stdout.decode().split("\n") if line)
    assert int(lines["CapEff"], 16) == sum(1 << bit for bit in (0, 1, 3, 4, 6, 7, 18, 31))
    assert lines["NoNewPrivs"] == "1"
    assert ran.exit.code != 0


def test_a_step_may_close_and_hide_what_it_leaves(rig: Rig) -> None:
    """Nothing it leaves blocks the next step or the next attempt."""
    ran = rig.run("mkdir -p closed/a; echo x > closed/a/x; chmod 000 closed/a/x closed/a closed; chmod 555 .")
    again = rig.run("cat closed/a/x; touch here", image="batchwright/test-user:1")

    assert (again.stdout, again.exit.code) == (b"x\n", 0)
    rig.layers = rig.layers[:1]
    assert rig.run("cat closed/a/x", layer=again.layer, keep=False).exit.ok
    assert ran.exit.ok


# Network


def test_without_a_network_there_is_still_a_localhost(rig: Rig) -> None:
    ran = rig.run("ls /sys/class/net; ping -c 1 -W 1 localhost > /dev/null; grep -c localhost /etc/hosts")

    assert ran.stdout == b"lo\n2\n"


def test_steps_share_their_network_and_single_steps_have_one(rigs: Rigs) -> None:
    address = "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'"
    shared = rigs(steps=2, network="bridge")
    single = rigs(steps=1, network="bridge")

    first, second = shared.run(address), shared.run(address)

    assert first.stdout.startswith(b"inet ")
    assert first.stdout == second.stdout
    assert single.run(address).stdout.startswith(b"inet ")


def test_a_step_cannot_tell_the_next_one_where_a_host_is(rigs: Rigs) -> None:
    """What the engine tells of a network is the same file for all who share it, other workspaces' steps among them."""
    files = "/etc/hosts /etc/resolv.conf /etc/hostname"
    rig = rigs(steps=2, network="bridge")

    changed = rig.run(
        f"for file in {files}; do echo 192.0.2.1 code.example >> $file; mv $file /moved; umount $file; done;"
        f"cp {files} /tmp; mount -o remount,rw /etc/hosts; echo 192.0.2.1 code.example > /etc/hosts; true"
    )
    after = rig.run(f"cat {files}")

    assert changed.exit.ok
    assert b"localhost" in after.stdout
    assert b"192.0.2.1" not in after.stdout


def test_nor_where_selinux_wants_its_labels(rigs: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has none: the labels of the mounts are asked for, and mean nothing."""
    monkeypatch.setattr(Engine, "has_selinux", True)

    test_a_step_cannot_tell_the_next_one_where_a_host_is(rigs)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("target", ["/etc/hosts", "/etc//resolv.conf"])
def test_a_file_in_place_of_what_the_engine_tells_is_seen_or_refused(
    rigs: Rigs, tmp_path: Path, target: str, steps: int
) -> None:
    """A file that is sent would be hidden."""
    rig = rigs(network="bridge", steps=steps)
    mine = tmp_path / "mine"
    mine.write_text("192.0.2.1 code.example\n")
    mine.chmod(0o644)
    script = f"echo 192.0.2.2 >> {target}; cat {target}"

    if rig.runtime.workspace_mode(rig.folder)[0] == "overlay":
        assert rig.run(script, files=[ReadOnlyFile(mine, target)]).stdout == mine.read_bytes()
    else:
        with pytest.raises(ContainerRefused, match=r"cannot put anything at /etc/.*, the engine's own mount"):
            rig.run(script, files=[ReadOnlyFile(mine, target)])


def test_a_network_that_is_not_there_is_refused(rigs: Rigs) -> None:
    with pytest.raises(ContainerRefused, match="no-such-network"):
        rigs(network="no-such-network").run("true")


# Nothing stays


def test_everything_of_a_run_can_be_found_and_removed(rigs: Rigs) -> None:
    """Also between its steps, when no container runs: by what a killed worker leaves."""
    rig = rigs(steps=2)
    rig.run("true")
    volumes = 1 if rig.runtime.workspace_mode(rig.folder)[0] == "copy" else 0
    wait_until(lambda: len(left_over(rig.runtime, rig.workspace)) == volumes)  # the container goes in the background

    reaped = rig.runtime.reap(run=rig.workspace)

    assert len(reaped.volumes) == volumes
    assert left_over(rig.runtime, rig.workspace) == []


def test_what_a_failing_room_made_is_gone_after_it(tmp_path: Path, runtime: DockerRuntime) -> None:
    rig = Rig(tmp_path, runtime, FILES, steps=3)
    with rig:
        rig.run("true")
        with pytest.raises(ContainerRefused):
            rig.run("true", files=[ReadOnlyFile(tmp_path / "missing", "/x/\0")])
        assert rig.run("echo still works").stdout == b"still works\n"

    assert left_over(runtime, rig.workspace) == []
