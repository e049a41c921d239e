"""What dead processes left in an engine goes; what anybody may still need stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import docker
import pytest

from blocks import owners
from blocks.docker_labels import DEADLINE, OWNER, is_abandoned, our_labels
from blocks.docker_reaper import Reaped
from blocks.docker_runtime import DockerRuntime
from blocks.owners import Owner, certainly_dead, current_owner, parse_owner
from blocks.removal import remove_tree
from blocks.runtime import ContainerRefused
from tests import images
from tests.engines import PrivateEngine
from tests.rooms import BUSYBOX, Rig, left_over

ROOT = Path(__file__).parent.parent


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    with closing(docker.APIClient()) as client:
        images.ensure_busybox(client)
        yield client


def dead_process() -> Owner:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        owner = Owner(*_place(), child.pid, owners._started(child.pid))
        child.kill()
    return owner


def _place() -> tuple[str, str, str]:
    me = current_owner()
    return me.host, me.boot, me.namespace


# Whose process is dead


def test_an_owner_survives_its_label() -> None:
    assert parse_owner(str(current_owner())) == current_owner()


@pytest.mark.parametrize("text", ["", "a/b/c/d/e", "a/b/c/1", "a/b/c/1/2/3", "x"])
def test_other_texts_are_nobody(text: str) -> None:
    assert parse_owner(text) is None


def test_this_process_lives_and_a_killed_one_does_not() -> None:
    assert certainly_dead(current_owner()) is False
    assert certainly_dead(dead_process()) is True


def test_a_process_that_waits_to_be_buried_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner(*_place(), child.pid, owners._started(child.pid))
    assert certainly_dead(owner) is False

    child.kill()
    deadline = time.monotonic() + 10
    while not certainly_dead(owner) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert certainly_dead(owner) is True
    child.communicate()


def test_a_pid_that_another_process_has_now_says_nothing() -> None:
    me = current_owner()

    assert certainly_dead(Owner(me.host, me.boot, me.namespace, me.pid, "1")) is True


def test_of_a_process_that_the_system_hides_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with /proc mounted hidepid=2: the id is in use, and nobody may see by whom."""
    monkeypatch.setattr(owners, "_status", lambda _pid: [])

    assert certainly_dead(Owner(*_place(), 1, "1")) is None


def test_before_the_last_boot_everybody_is_dead() -> None:
    me = current_owner()

    assert certainly_dead(Owner(me.host, "another-boot", me.namespace, me.pid, me.started)) is True


def test_of_other_hosts_and_containers_nothing_is_known() -> None:
    me = current_owner()

    assert certainly_dead(Owner("another-host", me.boot, me.namespace, 1, "1")) is None
    assert certainly_dead(Owner(me.host, me.boot, "4026530000", 1, "1")) is None


@pytest.mark.parametrize(
    ("owner", "hours", "abandoned"),
    [
        ("me", 1, False),
        ("me", -1, False),
        ("dead", 1, True),
        ("stranger", 1, False),
        ("stranger", -1, True),
        ("nonsense", 1, False),
        ("nonsense", -1, True),
    ],
)
def test_strangers_have_until_their_deadline(owner: str, hours: float, abandoned: bool) -> None:
    me = current_owner()
    known = {
        "me": str(me),
        "dead": str(dead_process()),
        "stranger": str(Owner("another-host", "boot", "1", 1, "1")),
        "nonsense": "nonsense",
    }
    labels = {OWNER: known[owner], DEADLINE: (datetime.now(UTC) + timedelta(hours=hours)).isoformat()}

    assert is_abandoned(labels) is abandoned


@pytest.mark.parametrize("deadline", ["", "soon", "2020-01-01T00:00:00"])
def test_what_is_not_a_deadline_never_passes(deadline: str) -> None:
    assert not is_abandoned({OWNER: "nonsense", DEADLINE: deadline})


def test_labels_say_whose_and_until_when() -> None:
    labels = our_labels({"run": "r1", "com.example.team": "x"}, 60)

    assert labels["batchwright.run"] == "r1"
    assert labels["com.example.team"] == "x"
    assert labels[OWNER] == str(current_owner())
    assert datetime.fromisoformat(labels[DEADLINE]) > datetime.now(UTC) + timedelta(seconds=50)


# In a real engine

WORKER = """
import sys
from pathlib import Path
from blocks.docker_runtime import DockerRuntime
from tests.rooms import Rig

folder, mode, name = sys.argv[1:]
with Rig(Path(folder), DockerRuntime(workspaces=mode), {"a": "a"}, steps=2) as rig:
    rig.workspace = name
    rig.run("echo first")
    rig.run("sleep 600")
"""


def start_worker(client: docker.APIClient, folder: Path, mode: str, name: str) -> subprocess.Popen[bytes]:
    """A process that runs a step for ten minutes; returned when the step runs."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(folder), mode, name], cwd=ROOT)
    deadline = time.monotonic() + 60
    label = {"label": [f"batchwright.run={name}", "batchwright.step=2"]}
    while not client.containers(filters=label):
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return worker


@pytest.mark.docker
@pytest.mark.parametrize("mode", ["overlay", "copy"])
def test_a_killed_worker_leaves_nothing_after_the_next_reaping(
    tmp_path: Path, client: docker.APIClient, mode: str
) -> None:
    name = f"killed-{uuid4().hex}"
    runtime = DockerRuntime()
    worker = start_worker(client, tmp_path, mode, name)
    runtime.reap()
    assert len(left_over(runtime, name)) >= 3  # step, network, volume: their worker lives

    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert len(left_over(runtime, name)) >= 3
    reaped = runtime.reap()

    assert left_over(runtime, name) == []
    assert len([one for one in reaped.containers if name in one]) == 1  # the step; its network has a name of its own
    assert len([one for one in reaped.volumes if name in one]) == (mode == "copy")  # an overlay goes with its container
    mounted = [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line]
    assert mounted == []


@pytest.mark.docker
def test_the_living_are_not_touched(tmp_path: Path, client: docker.APIClient) -> None:
    """Two workers on one engine: one is killed, the other one's step and its own are none of the reaper's business."""
    dead, alive = f"dead-{uuid4().hex}", f"alive-{uuid4().hex}"
    runtime = DockerRuntime()
    first = start_worker(client, tmp_path / "1", "overlay", dead)
    second = start_worker(client, tmp_path / "2", "overlay", alive)
    with Rig(tmp_path / "3", DockerRuntime(), {"a": "a"}, steps=2) as rig:
        rig.run("true")
        first.kill()
        first.wait()

        runtime.reap()

        assert left_over(runtime, dead) == []
        assert len(left_over(runtime, alive)) == 3
        assert rig.run("echo undisturbed").stdout == b"undisturbed\n"
    second.kill()
    second.wait()
    runtime.reap()
    assert left_over(runtime, alive) == []


@pytest.mark.docker
def test_what_a_dead_worker_in_a_container_left_is_known_by_its_life(client: docker.APIClient) -> None:
    """Its process cannot be seen from here, and its deadline is far; the lock that it held says that it is over."""
    me, over, lives = current_owner(), f"batchwright-over-{uuid4().hex}", f"batchwright-lives-{uuid4().hex}"
    for name in (over, lives):
        labels = {
            **our_labels({"run": name, "life": name}, 3600),
            OWNER: str(Owner(me.host, me.boot, "4026530000", 1, "1")),
        }
        client.create_container(BUSYBOX, ["true"], name=name, labels=labels)
        client.create_volume(name, labels=labels)

    reaped = DockerRuntime().reap({over})

    assert over in reaped.containers
    assert over in reaped.volumes
    assert len(left_over(DockerRuntime(), lives)) == 2
    DockerRuntime().reap(run=lives)


@pytest.mark.docker
def test_a_run_can_be_removed_though_its_worker_lives(tmp_path: Path, client: docker.APIClient) -> None:
    name, other = f"cancelled-{uuid4().hex}", f"other-{uuid4().hex}"
    runtime = DockerRuntime()
    worker = start_worker(client, tmp_path / "1", "overlay", name)
    container = client.create_container(BUSYBOX, ["true"], labels={"batchwright.run": name}, name=other)

    reaped = runtime.reap(run=name)

    assert len(reaped.containers) == 2
    assert left_over(runtime, name) == [f"/{other}"]  # somebody else's: it has no owner of ours
    client.remove_container(container["Id"])
    worker.kill()
    worker.wait()


@pytest.mark.docker
def test_what_is_too_deep_for_the_engine_goes_too() -> None:
    """It holds a file open for every level, and refuses to go further than that; ours goes down without."""
    dig = "mkdir -p /deep; cd {where}; for i in $(seq 1000); do mkdir d; cd d; done"
    with TemporaryDirectory(prefix="bw-", dir="/tmp") as folder, PrivateEngine(Path(folder)) as engine:
        with closing(docker.APIClient(engine.host)) as client:
            images.ensure_busybox(client)
        engine.limit_files(300)
        runtime = DockerRuntime(docker_host=engine.host, network="none", workspaces="copy")
        with Rig(Path(folder) / "outside", runtime) as outside:
            outside.run(dig.format(where="/deep"))
        # Not in one rig: the engine would still hold its files for the first container, which goes in the background.
        too_deep = pytest.raises(ContainerRefused, match="its path has over")
        with Rig(Path(folder) / "inside", runtime) as inside, too_deep:
            inside.run(dig.format(where="/work").replace(" d;", " ddd;"))
        assert left_over(runtime, outside.workspace) + left_over(runtime, inside.workspace) == []
        remove_tree(Path(folder) / "inside")  # Python's own way to remove a tree calls itself for each level


@pytest.mark.docker
def test_what_is_too_deep_in_a_volume_of_the_image_goes_with_the_next_look() -> None:
    """The engine removes the container, and says nothing of the volume that stays."""
    dig = "cat /data/note; cd /data; for i in $(seq 1000); do mkdir d; cd d; done"
    with (
        TemporaryDirectory(prefix="bw-", dir="/tmp") as folder,
        PrivateEngine(Path(folder)) as engine,
        closing(docker.APIClient(engine.host)) as client,
    ):
        images.ensure_busybox(client)
        container = client.create_container(BUSYBOX, ["sh", "-c", "mkdir /data; echo noted > /data/note"])["Id"]
        client.start(container)
        client.wait(container)
        client.commit(container, repository="with", tag="volume", changes=["VOLUME /data"])
        engine.limit_files(300)
        runtime = DockerRuntime(docker_host=engine.host, network="none")
        with Rig(Path(folder) / "1", runtime) as plain:
            assert plain.run("true", image="with:volume").exit.ok
        assert not client.volumes()["Volumes"]
        with Rig(Path(folder) / "2", runtime) as deep:
            assert deep.run(dig, image="with:volume").stdout == b"noted\n"
        assert len(client.volumes()["Volumes"]) == 1

        runtime.reap(run=deep.workspace)

        assert not client.volumes()["Volumes"]


@pytest.mark.docker
def test_things_of_others_stay(client: docker.APIClient) -> None:
    name = f"others-{uuid4().hex}"
    client.create_container(BUSYBOX, ["true"], name=name, labels={"com.example": "x"})
    client.create_volume(name)

    DockerRuntime().reap()

    client.remove_container(name)
    client.remove_volume(name)


@pytest.mark.docker
def test_the_reaper_finds_what_a_process_left_before_it_began(client: docker.APIClient) -> None:
    """A container that was made but never started, and a volume without one."""
    name = f"batchwright-left-{uuid4().hex}"
    labels = {**our_labels({"run": name}, 3600), OWNER: str(dead_process())}
    client.create_container(BUSYBOX, ["true"], name=name, labels=labels)
    client.create_volume(name, labels=labels)

    reaped = DockerRuntime().reap()

    assert name in reaped.containers
    assert name in reaped.volumes
    assert DockerRuntime().reap(run=name) == Reaped()


@pytest.mark.docker
def test_an_image_with_labels_like_ours_makes_no_container_ours(client: docker.APIClient) -> None:
    """Whoever runs it has a container with these labels, which is none of the reaper's business; nor is the image."""
    name = f"somebody-{uuid4().hex}"
    labels = {**our_labels({"run": name}, 3600), OWNER: str(dead_process())}
    container = client.create_container(BUSYBOX, ["true"], name=name, labels=labels)
    client.commit(name, repository="batchwright/imitated", tag=name)

    reaped = DockerRuntime().reap()
    assert name not in reaped.containers
    assert DockerRuntime().reap(run=name) == Reaped()

    client.remove_container(container["Id"])
    client.remove_image(f"batchwright/imitated:{name}")  # it is there
