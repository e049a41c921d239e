"""A part of what every runtime promises, on other engines than this machine's own: the same tests as on that one.

Podman mounts and copies workspaces, a rootless engine copies them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import docker
import pytest

from blocks.docker_runtime import DockerRuntime
from tests import images
from tests.podman import Podman
from tests.rooms import Rig
from tests.rootless import RootlessEngine
from tests.test_runtime_contract import (
    rig,
    rigs,
    shown,
    test_a_cancelled_container_is_killed_though_it_ignores_signals,
    test_a_file_is_shown_read_only_to_any_user,
    test_a_folder_is_shown_with_all_that_is_in_it,
    test_a_step_cannot_tell_the_next_one_where_a_host_is,
    test_a_step_may_close_and_hide_what_it_leaves,
    test_a_step_sees_what_the_steps_before_it_left,
    test_beside_a_shown_file_a_step_may_work,
    test_devices_cannot_be_made_and_setuid_has_no_effect,
    test_every_kind_of_change_is_in_the_layer,
    test_everything_of_a_run_can_be_found_and_removed,
    test_odd_names_survive,
    test_the_container_has_only_the_rights_of_package_managers,
    test_the_streams_are_apart_and_byte_for_byte,
    test_what_a_failing_room_made_is_gone_after_it,
)

pytestmark = pytest.mark.docker

__all__ = [
    "rig",
    "rigs",
    "shown",
    "test_a_cancelled_container_is_killed_though_it_ignores_signals",
    "test_a_file_is_shown_read_only_to_any_user",
    "test_a_folder_is_shown_with_all_that_is_in_it",
    "test_a_step_cannot_tell_the_next_one_where_a_host_is",
    "test_a_step_may_close_and_hide_what_it_leaves",
    "test_a_step_sees_what_the_steps_before_it_left",
    "test_beside_a_shown_file_a_step_may_work",
    "test_devices_cannot_be_made_and_setuid_has_no_effect",
    "test_every_kind_of_change_is_in_the_layer",
    "test_everything_of_a_run_can_be_found_and_removed",
    "test_odd_names_survive",
    "test_the_container_has_only_the_rights_of_package_managers",
    "test_the_streams_are_apart_and_byte_for_byte",
    "test_what_a_failing_room_made_is_gone_after_it",
]


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[str], str]]:
    """Starts an engine, once; gives its address."""
    started: dict[str, str] = {}
    with ExitStack() as stack:

        def start(kind: str) -> str:
            if kind not in started:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="bw-")))
                started[kind] = _started(kind, folder, stack)
            return started[kind]

        yield start


def _started(kind: str, folder: Path, stack: ExitStack) -> str:
    if not shutil.which("podman" if kind == "podman" else "rootlesskit"):
        pytest.skip(f"no {kind} engine is installed; infra/test does that as root on Debian and Ubuntu")
    engine = stack.enter_context(Podman(folder) if kind == "podman" else RootlessEngine(folder))
    with closing(docker.APIClient(engine.host)) as client:
        images.ensure_busybox(client)
        images.ensure_variant(client, "user")
    return engine.host


@pytest.fixture(scope="module", params=["podman overlay", "podman copy", "rootless auto"])
def runtime(request: pytest.FixtureRequest, start: Callable[[str], str]) -> DockerRuntime:
    kind, mode = request.param.split()
    return DockerRuntime(docker_host=start(kind), workspaces=mode, network="none")


def test_an_engine_without_limits_is_told(
    tmp_path: Path, start: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """A rootless one without control groups of its own takes every setting and keeps none."""
    runtime = DockerRuntime(docker_host=start("rootless"), network="none")
    for number in (1, 2):
        with Rig(tmp_path / str(number), runtime) as rig:
            rig.run("true")

    assert [record.message for record in caplog.records if "keeps no limits of memory and processes" in record.message]
    assert "without limits of memory and processes" in runtime.describe()
