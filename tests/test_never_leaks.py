"""However a run ends, nothing of it stays: at once, or after the next start."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import docker
import pytest

from blocks.docker_labels import OWNER, RUN
from blocks.docker_runtime import DockerRuntime
from blocks.folder import FolderStore
from blocks.owners import parse_owner
from blocks.runtime import PullStopped
from blocks.store import StoreUnavailable
from flows.batches.results import RunManifest
from flows.ledger import Ledger
from flows.server import LocalServer
from flows.shares import Options
from infra.demo_repositories import make_repositories
from tests.engines import PrivateEngine
from tests.harness import Api, Installation, eventually
from tests.images import ensure_busybox
from tests.leaks import in_the_engine, on_the_host, processes, run, seconds_until
from tests.rooms import BUSYBOX

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parent.parent
SHOP, BILLING, PLATFORM, HANDBOOK = (f"github.com/acme/{name}" for name in ("shop", "billing", "platform", "handbook"))


def spec_of(name: str, *scripts: str, on: tuple[str, ...] = (SHOP,)) -> str:
    """A batch spec whose steps run these scripts, each one line."""
    return "\n".join(
        (
            f"name: {name}",
            "on:",
            *(f"  - repository: {repository}" for repository in on),
            "steps:",
            *(f"  - {{container: {BUSYBOX}, run: {json.dumps(script)}}}" for script in scripts),
            "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}",
        )
    )


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    with closing(docker.APIClient()) as client:
        ensure_busybox(client)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with repositories, and room for the state of many machines beside them."""
    folder = tmp_path_factory.mktemp("leaks")
    make_repositories(folder / "repositories")
    return folder


@pytest.fixture
def folder(place: Path) -> Path:
    """The state of one machine on which nothing has run yet."""
    folder = place / uuid4().hex[:8]
    folder.mkdir()
    return folder


@pytest.fixture
def name() -> str:
    """What no other run's id begins with."""
    return f"leaks-{uuid4().hex[:8]}"


@contextmanager
def begun(folder: Path, text: str, run_id: str, mode: str = "auto") -> Iterator[subprocess.Popen[str]]:
    """A run in a process group of its own, at its very beginning."""
    spec = folder / f"{run_id}.yaml"
    spec.write_text(text)
    program = [sys.executable, "-m", "tests.leaks", folder, spec, run_id, mode]
    process = subprocess.Popen(program, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, text=True)
    with ended_in_the_end(process):
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        yield process


@contextmanager
def ended_in_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that leads its group, gone when the test is, whatever happens."""
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def changesets(folder: Path, run_id: str) -> list[bytes]:
    """The patches of a run."""
    ledger = Ledger(FolderStore(folder / "store"), run_id)
    keys = ledger.changeset_keys(ledger.manifest())
    return [ledger.store.get(key) for key in keys if key.endswith(".patch")]


def step_of(run: str) -> str:
    """The id of the container that runs a step of a run."""
    with closing(docker.APIClient()) as client:
        (found,) = client.containers(filters={"label": [f"{RUN}={run}", "batchwright.step"]})
    return str(found["Id"])


def steps_in_cache(folder: Path) -> int:
    return len(list(FolderStore(folder / "store").list_keys("steps/")))


# SIGKILL

MOMENTS = 8
WORK = ("echo a >> README.md; sleep 0.3", "echo b >> README.md; echo c > new; sleep 0.3")
EVERYWHERE = (SHOP, BILLING)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed."""

    seconds: float
    changesets: list[bytes]


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> Undisturbed:
    folder = place / "undisturbed"
    folder.mkdir()
    with begun(folder, spec_of("change", *WORK, on=EVERYWHERE), "undisturbed") as process:
        began = time.monotonic()
        assert process.wait() == 0
    return Undisturbed(time.monotonic() - began, changesets(folder, "undisturbed"))


@pytest.mark.parametrize("part", range(MOMENTS))
def test_killed_at_any_moment_it_leaves_nothing_after_the_next_start_and_can_be_run_again(
    folder: Path, name: str, undisturbed: Undisturbed, part: int
) -> None:
    """Even parts kill the process, odd ones its group; two of four with copies. A git that runs outlives both."""
    text, mode = spec_of("change", *WORK, on=EVERYWHERE), ("auto", "copy")[part // 2 % 2]
    with begun(folder, text, f"{name}-killed", mode) as process:
        time.sleep((part + random.Random(part).random()) / MOMENTS * undisturbed.seconds)
        (os.killpg if part % 2 else os.kill)(process.pid, signal.SIGKILL)
    done = steps_in_cache(folder)
    eventually(lambda: processes(folder), [])

    run(folder, spec_of("other", "true"), f"{name}-next")
    if in_the_engine(name, process.pid):  # what the engine was still at when that one began goes with the next
        run(folder, spec_of("other", "true"), f"{name}-then")

    assert in_the_engine(name, process.pid) == []
    assert on_the_host(folder) == []
    again = run(folder, text, f"{name}-again", mode=mode)
    assert again.state == "completed"
    assert (again.step_counts.cached, again.step_counts.executed) == (done, len(WORK) * len(EVERYWHERE) - done)
    assert changesets(folder, f"{name}-again") == undisturbed.changesets
    assert on_the_host(folder) == []


def test_the_reaper_of_one_run_leaves_the_others_alone(folder: Path, name: str) -> None:
    """Three on one machine: one is killed, one begins, and one works on as if nothing had happened."""
    stays = spec_of("alive", "echo a > new; until [ -f /tmp/go ]; do sleep 0.1; done", "echo b >> new")
    with begun(folder, stays, f"{name}-alive") as alive:
        with begun(folder, spec_of("dead", "sleep 60"), f"{name}-dead") as dead:
            seconds_until(lambda: len(in_the_engine(f"{name}-dead")) == 2, within=30)  # its step, its volume
            seconds_until(lambda: len(in_the_engine(f"{name}-alive")) == 3, within=30)  # and a network
            os.killpg(dead.pid, signal.SIGKILL)

        run(folder, spec_of("next", "true"), f"{name}-next")

        assert in_the_engine(f"{name}-dead", dead.pid) == []
        assert len(in_the_engine(f"{name}-alive")) == 3
        assert {path.partition("-alive-")[1] for path in on_the_host(folder)} == {"-alive-"}
        with closing(docker.APIClient()) as client:
            client.exec_start(client.exec_create(step_of(f"{name}-alive"), ["touch", "/tmp/go"])["Id"])
        assert alive.wait() == 0
    assert [b"+a\n+b\n" in patch for patch in changesets(folder, f"{name}-alive")] == [True]
    assert in_the_engine(name, alive.pid) == []
    assert on_the_host(folder) == []


def test_the_next_start_removes_what_a_power_cut_left(folder: Path, name: str) -> None:
    home = folder / "home"
    for left in ("workspaces/dead/layers/0", "checkouts/a.building/tree", "mirrors/new-a/refs", "mounts/new-a"):
        (home / left).mkdir(parents=True)
    for lock in ("workspaces/dead", "workspaces/begun", "checkouts/a", "checkouts/begun"):
        (home / f"{lock}.lock").touch()

    run(folder, spec_of("next", "true"), name)

    assert on_the_host(folder) == []


# Time limits, failures, troubles


class FailingStore(FolderStore):
    """Takes what is small, and no file."""

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> bool:
        raise StoreUnavailable(self.location, "out of order")


class BrokenStore(FolderStore):
    """Has a bug."""

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> bool:
        raise ZeroDivisionError


def ends(manifest: RunManifest) -> dict[str, str]:
    return {result.title: result.failure.reason if result.failure else "" for result in manifest.workspaces}


@pytest.mark.parametrize(
    "options", [Options(step_timeout_seconds=1), Options(workspace_timeout_seconds=2)], ids=["step", "workspace"]
)
def test_nothing_stays_after_a_time_limit(folder: Path, name: str, options: Options) -> None:
    began = time.monotonic()

    manifest = run(folder, spec_of("slow", "true", "sleep 60"), name, options)

    assert time.monotonic() - began < 10
    assert ends(manifest) == {SHOP: "timed_out"}
    assert in_the_engine(name) == []
    assert on_the_host(folder) == []


def test_nothing_stays_after_failing_fast(folder: Path, name: str) -> None:
    began = time.monotonic()

    manifest = run(
        folder,
        spec_of("fast", "[ ! -f go.mod ] || { sleep 1; exit 1; }; sleep 60", on=(SHOP, BILLING, PLATFORM, HANDBOOK)),
        name,
        Options(fail_fast=True, workspaces_at_once=3),
    )

    assert time.monotonic() - began < 10
    assert ends(manifest) == {BILLING: "step_failed", **dict.fromkeys((SHOP, PLATFORM, HANDBOOK), "cancelled")}
    assert in_the_engine(name) == []
    assert on_the_host(folder) == []


def test_nothing_stays_when_the_store_fails(folder: Path, name: str) -> None:
    manifest = run(folder, spec_of("change", "true"), name, store=FailingStore(folder / "store"))

    assert ends(manifest) == {SHOP: "infrastructure"}
    assert in_the_engine(name) == []
    assert on_the_host(folder) == []


def test_nothing_stays_when_our_own_code_fails(folder: Path, name: str) -> None:
    """The other workspace is in the middle of a step then."""
    text = spec_of("change", "[ -f go.mod ] || sleep 60", on=(SHOP, BILLING))

    with pytest.raises(ZeroDivisionError):
        run(folder, text, name, store=BrokenStore(folder / "store"))

    assert in_the_engine(name) == []
    assert on_the_host(folder) == []


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections, and never says a word."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in connections:
            connection.close()


def test_a_pull_is_given_up_when_the_run_is_stopped(silent_server: int) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.5, cancel.set)
    timer.start()
    began = time.monotonic()

    with pytest.raises(PullStopped):
        DockerRuntime().resolve_image(f"127.0.0.1:{silent_server}/slow:1", cancel)

    assert time.monotonic() - began < 3
    timer.join()


# Signals


@contextmanager
def second_step(installation: Installation, text: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`batchwright run`, in the middle of its second step."""
    spec = installation.folder / f"{uuid4().hex}.yaml"
    spec.write_text(text)
    arguments = ("run", spec, "--repositories", installation.repositories)
    with ended_in_the_end(installation.start(*arguments, environment=environment)) as process:
        wait_for_step(text, address=environment.get("DOCKER_HOST"))
        yield process


def wait_for_step(text: str, *, address: str | None = None) -> dict[str, str]:
    """Wait until the second step of a batch spec runs; the labels of its container."""
    beginning = text.splitlines()[0].removeprefix("name: ")
    with closing(docker.APIClient(address)) as client:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            for one in client.containers(filters={"label": ["batchwright.step=2"]}):
                labels: dict[str, str] = one["Labels"]
                if labels["batchwright.run"].startswith(beginning):
                    return labels
            time.sleep(0.05)
    raise AssertionError("the second step never began")


def flow_run(server: LocalServer, name: str) -> dict[str, Any]:
    """What Prefect knows of the last flow run of a name."""
    found: list[dict[str, Any]] = Api(server.api_url).post(
        "flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"}
    )
    return found[0]


def state_of(server: LocalServer, name: str) -> str:
    return str(flow_run(server, name)["state"]["name"])


def manifest_of(installation: Installation, name: str) -> RunManifest:
    (run_id,) = [run_id for run_id in installation.runs() if run_id.startswith(name)]
    return Ledger(FolderStore(installation.store), run_id).manifest()


def left_on(installation: Installation) -> list[str]:
    """As if it had been a machine of this module."""
    view = installation.folder / "view"
    if not view.exists():
        view.mkdir()
        (view / "home").symlink_to(installation.home)
        (view / "store").symlink_to(installation.store)
    return on_the_host(view)


@pytest.mark.flow
@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGINT, 130, "Cancelled"), (signal.SIGTERM, -signal.SIGTERM, "Crashed")]
)
def test_a_signal_stops_the_run_and_the_next_one_goes_on(
    installation: Installation,
    prefect_server: LocalServer,
    name: str,
    number: signal.Signals,
    code: int,
    state: str,
) -> None:
    text = spec_of(name, f"echo {name} > new", "[ -f stop ] || sleep 60")
    with second_step(installation, text) as process:
        os.killpg(process.pid, number)

        seconds_until(lambda: in_the_engine(name) == [], within=5)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert left_on(installation) == []
    manifest = manifest_of(installation, name)
    assert (manifest.state, ends(manifest)) == ("cancelled", {SHOP: "cancelled"})
    assert manifest.step_counts.executed == 2
    eventually(lambda: state_of(prefect_server, name), state)
    again = installation.folder / "again.yaml"
    again.write_text(text.replace("sleep 60", "true"))
    done = installation.command("run", again, "--repositories", installation.repositories, "--json")
    assert (done.json["step_counts"]["cached"], done.json["step_counts"]["executed"]) == (1, 1)


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_a_closed_terminal_does_not_wait_for_a_server_that_says_nothing(
    installation: Installation, silent_server: int, name: str
) -> None:
    sources = installation.folder / "silent.yaml"
    sources.write_text("".join(f"r{number}: http://127.0.0.1:{silent_server}/r{number}\n" for number in range(40)))
    spec = installation.folder / "silent-spec.yaml"
    spec.write_text(spec_of(name, "true", on=("r1", "r2")))
    with ended_in_the_end(installation.start("run", spec, "--repositories", sources)) as process:
        seconds_until(lambda: len(processes(Path(f"//127.0.0.1:{silent_server}"))) > 1, within=60)

        os.killpg(process.pid, signal.SIGHUP)

        said, _ = process.communicate(timeout=8)
    assert process.returncode == 130, said
    assert processes(Path(f"//127.0.0.1:{silent_server}")) == []
    assert left_on(installation) == []


# Prefect


@pytest.mark.flow
def test_a_run_from_the_command_line_can_be_cancelled_in_the_dashboard(
    installation: Installation, prefect_server: LocalServer, name: str
) -> None:
    with second_step(installation, spec_of(name, "true", "sleep 60")) as process:
        cancel(prefect_server, flow_run(prefect_server, name)["id"])

        seconds_until(lambda: in_the_engine(name) == [], within=10)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 1, said
    assert left_on(installation) == []
    assert manifest_of(installation, name).state == "cancelled"
    assert state_of(prefect_server, name) == "Cancelled"


def cancel(server: LocalServer, flow_run_id: str) -> None:
    """As the dashboard's button does."""
    state = {"type": "CANCELLING", "name": "Cancelling"}
    Api(server.api_url).post(f"flow_runs/{flow_run_id}/set_state", {"state": state, "force": True})


SERVE = """
from flows.batch_change import batch_change
from prefect.deployments.runner import EntrypointType

batch_change.serve(name="served", entrypoint_type=EntrypointType.MODULE_PATH)
"""


@pytest.fixture
def served(installation: Installation, prefect_server: LocalServer) -> Iterator[str]:
    """The id of a deployment that a process of its own serves."""
    prefect = {"PREFECT_API_URL": prefect_server.api_url, "PREFECT_HOME": str(prefect_server.own_home)}
    with (installation.folder / "served.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            cwd=installation.here,
            env=installation.environment({**prefect, "PYTHONPATH": str(ROOT)}),
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        deployments = {"deployments": {"name": {"any_": ["served"]}}}
        found[:] = Api(prefect_server.api_url).post("deployments/filter", deployments)
        return bool(found)

    seconds_until(is_there, within=60)
    yield str(found[0]["id"])
    process.terminate()
    process.wait(60)


@pytest.mark.flow
def test_a_served_run_leaves_nothing_when_it_is_cancelled_or_its_process_is_killed(
    installation: Installation, prefect_server: LocalServer, served: str, name: str
) -> None:
    """The hooks of the flow run in the process that serves, which lives."""
    texts = {how: spec_of(f"{name}-{how}", "true", "sleep 60") for how in ("cancelled", "killed")}
    ids = {
        how: Api(prefect_server.api_url).post(
            f"deployments/{served}/create_flow_run",
            {
                "parameters": {
                    "spec": text,
                    "repositories": {
                        "block_type_slug": "repository-folder",
                        "folder": str(installation.repositories),
                    },
                    "engine": {"block_type_slug": "docker-runtime"},
                    "artifacts": {"block_type_slug": "local-artifacts", "folder": str(installation.store)},
                }
            },
        )["id"]
        for how, text in texts.items()
    }
    labels = {how: wait_for_step(text) for how, text in texts.items()}
    victim = parse_owner(labels["killed"][OWNER])
    assert victim is not None

    os.kill(victim.pid, signal.SIGKILL)
    cancel(prefect_server, ids["cancelled"])

    seconds_until(lambda: in_the_engine(name, victim.pid) == [], within=10)
    eventually(lambda: state_of(prefect_server, f"{name}-killed"), "Crashed")
    eventually(lambda: state_of(prefect_server, f"{name}-cancelled"), "Cancelled")
    assert flow_run(prefect_server, f"{name}-cancelled")["state"]["message"]
    assert manifest_of(installation, f"{name}-cancelled").state == "cancelled"
    eventually(lambda: left_on(installation), [])


# The engine


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_a_step_survives_a_restart_of_its_engine(installation: Installation, name: str) -> None:
    """It is run again on a fresh layer; the step before it is not."""
    text = spec_of(name, "echo a > new; date > when", "echo b >> new; sleep 4; echo c >> new", "echo d >> new")
    with TemporaryDirectory(prefix="bw-", dir="/tmp") as folder, PrivateEngine(Path(folder)) as engine:
        with closing(docker.APIClient(engine.host)) as client:
            ensure_busybox(client)
        with second_step(installation, text, DOCKER_HOST=engine.host) as process:
            time.sleep(1)

            engine.stop(signal.SIGTERM)
            engine.start()

            said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
        with closing(docker.APIClient(engine.host)) as client:
            assert client.containers(all=True) == []
            assert not client.volumes()["Volumes"]
    assert left_on(installation) == []
    manifest = manifest_of(installation, name)
    ledger = Ledger(FolderStore(installation.store), manifest.run_id)
    steps = [result for workspace in manifest.workspaces for _, result in ledger.steps(workspace)]
    assert [step.attempts for step in steps] == [1, 2, 1]
    (patch,) = [ledger.store.get(key) for key in ledger.changeset_keys(manifest) if key.endswith(".patch")]
    assert b"+a\n+b\n+c\n+d\n" in patch
