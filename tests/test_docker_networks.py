"""Networks that one workspace leaves and the next one takes, in a real engine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import docker
import pytest

from blocks.docker_runtime import DockerRuntime
from infra.images import HOST
from tests import images
from tests.hostile_host import python
from tests.rooms import BUSYBOX, Rig, left_over

pytestmark = pytest.mark.docker

NETWORK = "readlink /proc/self/ns/net"


@pytest.fixture
def runtime() -> DockerRuntime:
    client = docker.APIClient()
    images.ensure_busybox(client)
    client.close()
    return DockerRuntime()


def test_the_next_workspace_takes_the_network_of_the_one_before(runtime: DockerRuntime, tmp_path: Path) -> None:
    with runtime.sharing(rooms=3, at_once=1):
        with Rig(tmp_path / "1", runtime) as first:
            one = first.run(NETWORK).stdout
            assert left_over(runtime, first.workspace)
        # The second one has a step to go when the third one begins.
        with Rig(tmp_path / "2", runtime, steps=2) as second, Rig(tmp_path / "3", runtime) as third:
            two, other = second.run(NETWORK).stdout, third.run(NETWORK).stdout

    assert one == two != other
    assert [left_over(runtime, rig.workspace) for rig in (first, second, third)] == [[], [], []]


def test_a_network_is_never_that_of_another_image(runtime: DockerRuntime, tmp_path: Path) -> None:
    """A shell of the image holds it, and may listen there, whatever it is asked to do."""
    client = docker.APIClient()
    images.ensure_variant(client, "user")
    client.close()
    other = runtime.resolve_image("batchwright/test-user:1")
    own = runtime.resolve_image(BUSYBOX)
    with runtime.sharing(rooms=4, at_once=1):
        networks = runtime._connected().networks
        first, again = networks.take(own, {}, 600), networks.take(own, {}, 600)
        assert networks.give_back(first) == []
        theirs = networks.take(other, {}, 600)
        assert theirs is not first
        assert networks.take(own, {}, 600) is first
        for network in (first, again, theirs):
            network.remove().finish()


def test_no_port_is_taken_by_who_was_there_before(runtime: DockerRuntime, tmp_path: Path) -> None:
    """A connection that was closed holds its port for a minute."""
    with closing(docker.APIClient()) as client:
        images.ensure_host_image(client)
    serve = python("""
        import socket
        with socket.socket() as server:
            server.bind(("127.0.0.1", 7777))
            server.listen()
            client = socket.create_connection(("127.0.0.1", 7777))
            server.accept()[0].close()
            client.recv(1)
            client.close()
    """)
    with runtime.sharing(rooms=3, at_once=1):
        with Rig(tmp_path / "1", runtime) as first:
            assert first.run(serve, image=HOST).exit.ok
        with Rig(tmp_path / "2", runtime) as second:
            ended = second.run(serve, image=HOST)

    assert ended.exit.ok, ended.stderr
    assert [left_over(runtime, rig.workspace) for rig in (first, second)] == [[], []]


def test_a_network_that_may_be_broken_is_not_kept(runtime: DockerRuntime, tmp_path: Path) -> None:
    with runtime.sharing(rooms=3, at_once=1):
        with Rig(tmp_path / "1", runtime) as first:
            first.run("true")
            for name in left_over(runtime, first.workspace):
                if "network" in name:
                    runtime._connected().engine.remove(name, None)
        with Rig(tmp_path / "2", runtime) as second:
            with pytest.raises(Exception, match="network"):
                second.run("true")
            assert second.run("echo again").stdout == b"again\n"

    assert left_over(runtime, second.workspace) == []


def test_a_single_container_has_its_own(runtime: DockerRuntime, tmp_path: Path) -> None:
    with Rig(tmp_path / "1", runtime) as rig:
        rig.run("true")
        assert not [name for name in left_over(runtime, rig.workspace) if "network" in name]
