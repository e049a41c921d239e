"""The Docker block beyond the runtime's contract: images and registries, settings, an engine in trouble."""

from __future__ import annotations

import base64
import copy
import gc
import json
import os
import pickle
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import docker
import pytest
from docker.errors import APIError, ImageNotFound
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import ValidationError
from requests import Response

from blocks import docker_images
from blocks.docker_engine import translated
from blocks.docker_images import image_trouble, pull_problem
from blocks.docker_policy import PACKAGE_MANAGER_CAPABILITIES, ContainerPolicy
from blocks.docker_runtime import DockerRuntime
from blocks.registry_credentials import CredentialsInvalid, RegistryCredentials
from blocks.runtime import (
    ContainerRefused,
    ImageRefused,
    ImageUnavailable,
    PullStopped,
    ReadOnlyFile,
    RuntimeTrouble,
    RuntimeUnavailable,
)
from tests import images
from tests.engines import PrivateEngine, TcpDoor, TlsDoor, make_certificates
from tests.harness import eventually
from tests.registry import Registry, rate_limited
from tests.rooms import BUSYBOX, Rig, left_over

PASSWORD = "pa:ss/wörd"


class TestDockerRuntimeBlock(BlockStandardTestSuite):
    @pytest.fixture
    def block(self) -> type[Block]:
        return DockerRuntime

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """The dashboard asks no other host for it: there is none."""
        assert block._logo_url is None


@pytest.fixture(scope="module")
def client() -> Iterator[docker.APIClient]:
    with closing(docker.APIClient()) as client:
        images.ensure_busybox(client)
        yield client


@pytest.fixture
def registry(client: docker.APIClient) -> Iterator[Registry]:
    """A registry; the images that were pulled from it go with it."""
    with Registry() as registry:
        yield registry
        for image in client.images():
            for name in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())):
                if name.startswith(registry.address):
                    with suppress(ImageNotFound):  # it went with its tag
                        client.remove_image(name, force=True)


def credentials(host: str, user: str, password: str) -> str:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": auth}}})


@contextmanager
def unclosed_sockets() -> Iterator[None]:
    """docker-py leaves the socket of a refused connection to the garbage collector, which then warns of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


# Settings


@pytest.mark.parametrize("network", ["host", "container:abc", "ns:/proc/1/ns/net", "a b", ""])
def test_steps_never_share_the_network_of_the_host_or_of_strangers(network: str) -> None:
    with pytest.raises(ValidationError, match="must be bridge, none or the name of a network"):
        DockerRuntime(network=network)


@pytest.mark.parametrize("settings", [{"run_as": "me"}, {"memory": "much"}, {"cpus": 0}, {"pids_limit": -1}])
def test_settings_that_no_engine_takes_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DockerRuntime(**settings)


def test_passwords_are_not_shown() -> None:
    runtime = DockerRuntime(registry_credentials=credentials("registry.example.com", "me", "s3cret"))

    for text in (repr(runtime), str(runtime), runtime.model_dump_json()):
        assert "s3cret" not in text
        assert base64.b64encode(b"me:s3cret").decode() not in text


@pytest.mark.docker
def test_a_runtime_can_be_copied_and_pickled_after_use(client: docker.APIClient) -> None:
    runtime = DockerRuntime(network="none")
    runtime.resolve_image(BUSYBOX)

    for one in (pickle.loads(pickle.dumps(runtime)), copy.deepcopy(runtime)):
        assert one == DockerRuntime(network="none")
        assert one.resolve_image(BUSYBOX) == runtime.resolve_image(BUSYBOX)


@unclosed_sockets()
def test_an_engine_that_does_not_answer_is_worth_another_try() -> None:
    with pytest.raises(RuntimeUnavailable, match=r"unix:///no/such.sock does not answer.*DOCKER_HOST"):
        DockerRuntime(docker_host="unix:///no/such.sock").resolve_image("alpine:3")


@pytest.mark.docker
def test_the_fingerprint_names_what_can_change_a_result(client: docker.APIClient) -> None:
    runtime = DockerRuntime(network="none", run_as="1000:1000", memory="1g")

    found = runtime.fingerprint()

    assert {**found, "platform": ""} == {"user": "1000:1000", "network": "none", "platform": ""}
    assert found["platform"].startswith("linux/")
    assert DockerRuntime(platform="linux/arm64").fingerprint()["platform"] == "linux/arm64"


# Credentials


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("https://index.docker.io/v1/", "alpine:3"),
        ("docker.io", "acme/app"),
        ("registry-1.docker.io", "docker.io/library/alpine@sha256:" + "0" * 64),
        ("registry.example.com", "registry.example.com/a/b:1"),
        ("https://registry.example.com:5000/v2/", "registry.example.com:5000/a"),
        ("localhost", "localhost/a"),
    ],
)
def test_credentials_are_found_by_registry(key: str, image: str) -> None:
    login = RegistryCredentials(credentials(key, "me", PASSWORD)).for_image(image)

    assert login == {"username": "me", "password": PASSWORD, "serveraddress": key}


def test_credentials_go_to_no_other_registry() -> None:
    found = RegistryCredentials(credentials("registry.example.com", "me", "x"))

    for image in ("alpine", "registry.example.com:5000/a", "example.com/a", "registry.example.com.evil.org/a"):
        assert found.for_image(image) is None


def test_credentials_come_in_all_forms() -> None:
    auths = {
        "a.example.com": {"username": "u", "password": ""},
        "b.example.com": {"identitytoken": "token", "auth": base64.b64encode(b"u:").decode()},
    }
    found = RegistryCredentials(json.dumps({"auths": auths}))

    assert found.for_image("a.example.com/x") == {"username": "u", "password": "", "serveraddress": "a.example.com"}
    assert found.for_image("b.example.com/x") == {"identitytoken": "token", "serveraddress": "b.example.com"}


@pytest.mark.parametrize(
    "config",
    [
        "s3cret",
        '["s3cret"]',
        '{"auths": "s3cret"}',
        '{"auths": {"r": "s3cret"}}',
        '{"auths": {"r": {"auth": "s3cret"}}}',
        '{"auths": {"r": {"password": "s3cret"}}}',
        '{"credsStore": "s3cret"}',
    ],
)
def test_credentials_that_make_no_sense_are_refused_without_showing_them(config: str) -> None:
    with pytest.raises(CredentialsInvalid, match="registry credentials") as caught:
        RegistryCredentials(config)

    assert "s3cret" not in str(caught.value)


# Images


@pytest.mark.docker
def test_an_image_is_pulled_once_however_many_ask(registry: Registry) -> None:
    reference, digest = registry.publish("acme/app:1")
    runtime = DockerRuntime(network="none")

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(runtime.resolve_image, [reference] * 8))

    assert registry.asked.count("acme/app:1") == 1
    (image,) = found
    assert (image.reference, image.digest, image.shell) == (reference, digest, "/bin/sh")
    assert image.id.startswith("sha256:")
    assert image.id != digest


@pytest.mark.docker
def test_one_digest_is_used_in_a_whole_run(registry: Registry) -> None:
    """Though the tag moves in the registry, and the engine loses the image."""
    reference, digest = registry.publish("acme/app:1")
    runtime = DockerRuntime(network="none", pull_policy="always")
    before = runtime.resolve_image(reference)
    registry.publish("acme/app:1", marker="moved")

    assert runtime.resolve_image(reference) == before
    runtime._connected().images.forget(before)
    assert runtime.resolve_image(reference) == before
    assert registry.asked.count("acme/app:1") == 1
    assert registry.asked[-1] == f"acme/app@{digest}"
    assert DockerRuntime(network="none", pull_policy="always").resolve_image(reference).digest != digest


@pytest.mark.docker
def test_an_image_that_the_engine_lost_is_pulled_again(
    registry: Registry, client: docker.APIClient, tmp_path: Path
) -> None:
    reference, _ = registry.publish("acme/app:1", marker="lost")
    with Rig(tmp_path, DockerRuntime(network="none")) as rig:
        image = rig.runtime.resolve_image(reference)
        client.remove_image(image.id, force=True)

        with pytest.raises(ImageUnavailable, match=r"(?i)no such image"):
            rig.run("true", image=reference)
        assert rig.run("echo again", image=reference).stdout == b"again\n"


@pytest.mark.docker
def test_an_image_by_its_digest(registry: Registry) -> None:
    reference, digest = registry.publish("acme/app:1", marker="by digest")
    name = reference.rpartition(":")[0]

    assert DockerRuntime(network="none").resolve_image(f"{name}@{digest}").digest == digest


@pytest.mark.docker
def test_pull_policies(registry: Registry, client: docker.APIClient) -> None:
    reference, _ = registry.publish("acme/app:1", marker="policy")

    with pytest.raises(ImageRefused, match="pull policy is never"):
        DockerRuntime(pull_policy="never").resolve_image(reference)
    DockerRuntime(network="none").resolve_image(reference)
    DockerRuntime(network="none").resolve_image(reference)
    DockerRuntime(network="none", pull_policy="never").resolve_image(reference)
    assert registry.asked.count("acme/app:1") == 1
    DockerRuntime(network="none", pull_policy="always").resolve_image(reference)
    assert registry.asked.count("acme/app:1") == 2


@pytest.mark.docker
def test_a_private_registry_wants_its_password(client: docker.APIClient, registry: Registry) -> None:
    registry.login = ("me", PASSWORD)
    reference, digest = registry.publish("private/app:1", marker="private")

    for wrong in (None, credentials(registry.address, "me", "wrong"), credentials("other.example.com", "me", PASSWORD)):
        with pytest.raises(ImageRefused, match="check the name and the registry credentials") as caught:
            DockerRuntime(registry_credentials=wrong).resolve_image(reference)
        assert PASSWORD not in str(caught.value)

    right = DockerRuntime(network="none", registry_credentials=credentials(registry.address, "me", PASSWORD))
    assert right.resolve_image(reference).digest == digest


@pytest.mark.docker
def test_what_is_worth_another_try_and_what_is_not(registry: Registry) -> None:
    reference, _ = registry.publish("acme/faulty:1", marker="faults")
    host = registry.address

    for wrong in (f"{host}/acme/faulty:2", f"{host}/acme/none", f"{host}/acme/faulty@sha256:{'0' * 64}", "Not/A::Ref"):
        with pytest.raises(ImageRefused):
            DockerRuntime().resolve_image(wrong)
    for fault in (rate_limited(), (503, b"{}"), (500, b"oops")):
        registry.fault = fault
        with pytest.raises(ImageUnavailable):
            DockerRuntime().resolve_image(reference)
    with pytest.raises(ImageUnavailable):
        DockerRuntime().resolve_image("127.0.0.1:9/nobody/there:1")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("manifest for x not found: manifest unknown: manifest unknown", ImageRefused),
        ("failed to resolve reference x: x: not found", ImageRefused),
        ("pull access denied, repository does not exist or may require authorization", ImageRefused),
        ("failed to authorize: failed to fetch anonymous token: 401 Unauthorized", ImageRefused),
        ("server message: insufficient_scope: authorization failed", ImageRefused),
        ("no match for platform in manifest: not found", ImageRefused),
        (
            "unexpected status from HEAD request to http://r/v2/x: 500 Internal Server Error",
            ImageUnavailable,
        ),
        ("unexpected status from GET request to http://r/v2/x/blobs/y: 503 Service Unavailable", ImageUnavailable),
        ("received unexpected HTTP status: 500 Internal Server Error", ImageUnavailable),
        ("failed to do request: Head http://r/v2/: dial tcp: lookup r: no such host", ImageUnavailable),
        ("unexpected status from HEAD request to http://r: 429 Too Many Requests", ImageUnavailable),
        ("failed to extract layer: write /x: no space left on device", RuntimeUnavailable),
    ],
)
def test_the_words_of_old_and_new_engines_about_a_pull_are_understood(text: str, kind: type[RuntimeTrouble]) -> None:
    """Docker's own image store, containerd's (the default from Docker 29 on), Podman's."""
    assert type(image_trouble("x:1", text, 500)) is kind


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"status": "Pulling"}, ""),
        ({"error": "gone", "errorDetail": {"message": "gone"}}, "gone"),
        ({"errorDetail": {"code": 1, "message": "gone"}}, "gone"),
        ({"errorDetail": None}, ""),
    ],
)
def test_a_failing_pull_is_noticed_with_every_version_of_the_api(line: dict[str, object], problem: str) -> None:
    assert pull_problem(line) == problem


@pytest.mark.docker
def test_an_image_that_was_refused_is_not_asked_for_again(registry: Registry) -> None:
    runtime = DockerRuntime()
    reference = f"{registry.address}/acme/none:1"

    asked = []
    for _ in range(3):
        with pytest.raises(ImageRefused, match="manifest unknown"):
            runtime.resolve_image(reference)
        asked.append(len(registry.asked))

    assert asked == [asked[0]] * 3


@pytest.mark.docker
def test_an_image_without_a_shell_is_a_clear_error(client: docker.APIClient) -> None:
    tag = images.ensure_variant(client, "no-shell")

    with pytest.raises(ImageRefused, match=f"{tag} has no shell: neither /bin/sh nor /bin/bash") as caught:
        DockerRuntime().resolve_image(tag)

    assert not caught.value.temporary


@pytest.mark.docker
def test_bash_is_preferred(client: docker.APIClient) -> None:
    assert DockerRuntime().resolve_image(images.ensure_host_image(client)).shell == "/bin/bash"


# Containers


@pytest.mark.docker
def test_the_user_can_be_chosen(tmp_path: Path, client: docker.APIClient) -> None:
    tag = images.ensure_variant(client, "user")
    for number, (run_as, seen) in enumerate((("image", "1000:1000"), ("root", "0:0"), ("1234:99", "1234:99"))):
        with Rig(tmp_path / str(number), DockerRuntime(network="none", run_as=run_as), {"a": "a"}) as rig:
            ran = rig.run("echo $(id -u):$(id -g); echo b > b; echo c >> a", image=tag)

            assert (ran.stdout.decode().strip(), ran.stderr) == (seen, b"")


@pytest.mark.docker
def test_git_and_python_work_on_a_workspace(tmp_path: Path, client: docker.APIClient) -> None:
    """Also for a user who owns none of it."""
    tag = images.ensure_host_image(client)
    with Rig(tmp_path, DockerRuntime(network="none", run_as="1000:1000"), {"a": "a"}) as rig:
        ran = rig.run(
            "export HOME=/tmp; git init -q . && git add . && python3 -c 'print(open(\"a\").read())'", image=tag
        )

        assert (ran.exit.code, ran.stdout, ran.stderr) == (0, b"a\n", b"")


@pytest.mark.docker
def test_a_container_that_somebody_kills_did_not_fail(tmp_path: Path, client: docker.APIClient) -> None:
    with Rig(tmp_path, DockerRuntime(network="none")) as rig:
        label = {"label": [f"batchwright.workspace={rig.workspace}"]}

        def kill() -> None:
            deadline = time.monotonic() + 20
            while not (found := client.containers(filters=label)) and time.monotonic() < deadline:
                time.sleep(0.1)
            client.kill(found[0]["Id"])

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(RuntimeUnavailable, match="killed from outside"):
            rig.run("sleep 60")
        killer.join()


@pytest.mark.docker
def test_a_disk_limit_that_the_engine_cannot_keep_is_refused_in_words(tmp_path: Path, client: docker.APIClient) -> None:
    if "Backing Filesystem', 'xfs" in str(client.info()["DriverStatus"]):
        return  # then it can
    with Rig(tmp_path, DockerRuntime(network="none", disk="1g")) as rig, pytest.raises(ContainerRefused, match="disk"):
        rig.run("true")


@pytest.mark.docker
def test_limits_arrive_at_the_engine(tmp_path: Path, client: docker.APIClient) -> None:
    runtime = DockerRuntime(memory="64m", cpus=0.5, pids_limit=77, extra_hosts={"code.example.com": "192.0.2.1"})
    with Rig(tmp_path, runtime) as rig:
        seen: list[dict[str, object]] = []

        def look() -> None:
            while not (found := client.containers(filters={"label": [f"batchwright.run={rig.workspace}"]})):
                time.sleep(0.05)
            seen.append(client.inspect_container(found[0]["Id"])["HostConfig"])

        looker = threading.Thread(target=look)
        looker.start()
        ran = rig.run("sleep 1; grep code /etc/hosts")
        looker.join()

    assert ran.stdout.split() == [b"192.0.2.1", b"code.example.com"]
    wanted = {
        "Memory": 64 << 20,
        "MemorySwap": 64 << 20,
        "NanoCpus": 500_000_000,
        "PidsLimit": 77,
        "Init": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
    }
    assert {key: seen[0][key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("user", "image_user", "rights"),
    [
        (None, "", PACKAGE_MANAGER_CAPABILITIES),
        (None, "root:root", PACKAGE_MANAGER_CAPABILITIES),
        ("0:0", "1000", PACKAGE_MANAGER_CAPABILITIES),
        (None, "nobody", ()),
        ("1000:1000", "", ()),
    ],
)
def test_only_root_keeps_rights(user: str | None, image_user: str, rights: tuple[str, ...]) -> None:
    """Podman would give them to every user."""
    assert ContainerPolicy(user=user).step(None, image_user)["CapAdd"] == list(rights)


# How workspaces are made


@pytest.mark.docker
def test_the_engine_is_asked_whether_it_can_mount(tmp_path: Path, client: docker.APIClient) -> None:
    runtime = DockerRuntime()

    assert runtime.workspace_mode(tmp_path / "new")[0] == "overlay"
    assert os.listdir(tmp_path / "new") == []
    assert DockerRuntime(workspaces="copy").workspace_mode(tmp_path)[0] == "copy"


@pytest.mark.docker
def test_a_path_that_mount_options_cannot_hold_is_copied(tmp_path: Path, client: docker.APIClient) -> None:
    mode, reason = DockerRuntime().workspace_mode(tmp_path / "a,b:c")

    assert mode == "copy"
    assert "comma" in reason


@pytest.mark.docker
def test_a_folder_on_a_file_system_without_overlays_is_copied(client: docker.APIClient) -> None:
    """An overlay needs a file system with extended attributes below it; proc has none, nor can anybody write there."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "w").mkdir()
        with Rig(Path(folder) / "w", DockerRuntime(network="none"), {"a": "a"}) as rig:
            assert rig.run("echo b > b; cat a").stdout == b"a"
            assert rig.changes() == {"b": "b\n"}


@pytest.mark.docker
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_an_engine_over_tcp(
    tmp_path: Path, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """As a remote one: nothing of this machine can be mounted there, so workspace and files are sent."""
    (tmp_path / "shown").write_text("shown")
    shown = ReadOnlyFile(tmp_path / "shown", "/shown")
    # Other authorities that this machine trusts have no say.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    engine = "/var/run/docker.sock"
    with TlsDoor(engine, tmp_path / "tls") if tls else TcpDoor(engine) as door:
        runtime = DockerRuntime(
            docker_host=door.host, tls_folder=str(tmp_path / "tls") if tls else None, workspaces="copy"
        )
        with Rig(tmp_path, runtime, {"a": "a"}, steps=2) as rig:
            assert rig.run("cat /shown a; echo b > b", files=[shown]).stdout == b"showna"
            second = rig.run("cat b; exit 3")
            stopped = rig.run("sleep 60", timeout=1.0)

            assert (second.exit.code, second.stdout) == (3, b"b\n")
            assert stopped.exit.timed_out
            assert rig.changes() == {"b": "b\n"}
        assert left_over(runtime, rig.workspace) == []


@unclosed_sockets()
@pytest.mark.docker
def test_an_engine_that_wants_a_certificate_lets_nobody_else_in(tmp_path: Path, client: docker.APIClient) -> None:
    with TlsDoor("/var/run/docker.sock", tmp_path / "ours") as door:
        make_certificates(tmp_path / "others")
        for name in ("cert.pem", "key.pem"):
            (tmp_path / "ours" / name).write_bytes((tmp_path / "others" / name).read_bytes())

        with pytest.raises(RuntimeUnavailable, match="does not answer"):
            DockerRuntime(docker_host=door.host, tls_folder=str(tmp_path / "ours")).resolve_image(BUSYBOX)


# An engine in trouble


@pytest.fixture(scope="module")
def private_engine() -> Iterator[PrivateEngine]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bw-") as folder, PrivateEngine(Path(folder)) as engine:
        with closing(docker.APIClient(engine.host)) as client:
            images.ensure_busybox(client)
        yield engine


@unclosed_sockets()
@pytest.mark.docker
@pytest.mark.parametrize(("how", "mode"), [(signal.SIGKILL, "overlay"), (signal.SIGTERM, "copy")])
def test_an_engine_that_restarts_is_no_failure_of_the_step(
    tmp_path: Path, private_engine: PrivateEngine, how: signal.Signals, mode: str
) -> None:
    runtime = DockerRuntime(docker_host=private_engine.host, workspaces=mode)
    with Rig(tmp_path, runtime, {"a": "a"}, steps=3) as rig:
        rig.run("echo one > one")
        timer = threading.Timer(1.0, private_engine.stop, [how])
        timer.start()

        with pytest.raises(RuntimeUnavailable):
            rig.run("echo begun; sleep 30", keep=False)
        timer.join()
        private_engine.start()
        again = rig.run("cat one; echo two > two")

        assert again.stdout == b"one\n"
        assert rig.changes() == {"one": "one\n", "two": "two\n"}
    assert left_over(runtime, rig.workspace) == []


@pytest.mark.docker
def test_a_full_disk_of_the_engine_is_said_so(tmp_path: Path, private_engine: PrivateEngine) -> None:
    runtime = DockerRuntime(docker_host=private_engine.host, workspaces="copy", network="none")
    rig = Rig(tmp_path, runtime, {"big": os.urandom(1 << 20) * 400})
    with rig, pytest.raises(RuntimeUnavailable, match="the engine's disk is full"):
        rig.run("true")
    assert left_over(runtime, rig.workspace) == []


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "write /data: no space left on device", RuntimeUnavailable),
        (500, "could not find bridge docker0: no such network interface", RuntimeUnavailable),
        (404, "No such container: abc", RuntimeUnavailable),
        (409, "cannot join network of a non running container: abc", RuntimeUnavailable),
        (500, "context deadline exceeded", RuntimeUnavailable),
        (429, "slow down", RuntimeUnavailable),
        (404, "No such image: abc", ImageUnavailable),
        (404, "network acme not found", ContainerRefused),
        (400, "invalid mount config for type bind", ContainerRefused),
        (500, "OCI runtime create failed: mounting x to y: not a directory: unknown", ContainerRefused),
        (500, "unable to find user nobody2: no matching entries in passwd file", ContainerRefused),
    ],
)
def test_the_words_of_an_engine_are_understood(status: int, text: str, kind: type[RuntimeTrouble]) -> None:
    response = Response()
    response.status_code = status

    found = translated(APIError("fault", response, text), "cannot do it", "the engine")

    assert type(found) is kind
    assert text in str(found)
    assert pickle.loads(pickle.dumps(found)).args == found.args


@pytest.mark.parametrize("reference", ["../containers/x", "a/../../volumes", "//", "a//b", "\udcff", "", "a b", "./x"])
def test_what_is_no_image_reference_never_reaches_the_engine(reference: str) -> None:
    with pytest.raises(ImageRefused, match="not a well-formed image reference"):
        DockerRuntime().resolve_image(reference)


@pytest.mark.docker
@pytest.mark.parametrize("place", ["/work/src", "/work/../proc", "/sys", "/etc/hosts", "/.batchwright/step"])
def test_an_image_with_a_volume_in_the_workspace_is_refused(client: docker.APIClient, place: str) -> None:
    """The step would not see what is there, and its changes would be lost."""
    container = client.create_container(BUSYBOX, ["true"])["Id"]
    name = f"volume-{uuid4().hex}"
    client.commit(container, repository="batchwright/test-volume", tag=name, changes=[f"VOLUME {place}"])
    client.remove_container(container)
    try:
        with pytest.raises(ImageRefused, match="has a volume at"):
            DockerRuntime().resolve_image(f"batchwright/test-volume:{name}")
    finally:
        client.remove_image(f"batchwright/test-volume:{name}")


@pytest.mark.docker
def test_the_volumes_of_an_image_are_as_the_engine_would_make_them(client: docker.APIClient, tmp_path: Path) -> None:
    """However the image writes them, and not where a step's file is shown."""
    container = client.create_container(BUSYBOX, ["true"])["Id"]
    name = f"volumes-{uuid4().hex}"
    changes = ["VOLUME data", "VOLUME /data/", "VOLUME /data", "VOLUME /note"]
    client.commit(container, repository="batchwright/test-volume", tag=name, changes=changes)
    client.remove_container(container)
    (tmp_path / "note").write_text("noted\n")
    try:
        with Rig(tmp_path, DockerRuntime(network="none")) as rig:
            ran = rig.run(
                "cat /note; echo x > /data/x && cat /data/x",
                image=f"batchwright/test-volume:{name}",
                files=[ReadOnlyFile(tmp_path / "note", "/note")],
            )
        assert ran.stdout == b"noted\nx\n"
        assert left_over(rig.runtime, rig.workspace) == []
    finally:
        client.remove_image(f"batchwright/test-volume:{name}")


@pytest.mark.docker
def test_an_image_whose_working_directory_is_a_file_is_refused(client: docker.APIClient) -> None:
    container = client.create_container(BUSYBOX, ["true"])["Id"]
    name = f"directory-{uuid4().hex}"
    client.commit(container, repository="batchwright/test-volume", tag=name, conf={"WorkingDir": "/bin/busybox"})
    client.remove_container(container)
    try:
        with pytest.raises(RuntimeTrouble, match="working directory that is a file") as caught:
            DockerRuntime().resolve_image(f"batchwright/test-volume:{name}")
        assert not caught.value.temporary
    finally:
        client.remove_image(f"batchwright/test-volume:{name}")


@pytest.mark.docker
def test_an_image_whose_shell_never_ends_is_refused_and_holds_no_cancel(
    client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"batchwright/test-endless:{uuid4().hex}"
    forever = "printf '#!/bin/busybox yes\\n' > /sh; chmod 755 /sh; /bin/busybox mv /sh /bin/sh"
    container = client.create_container(BUSYBOX, ["/bin/sh", "-c", forever])["Id"]
    client.start(container)
    client.wait(container)
    client.commit(container, repository=name.partition(":")[0], tag=name.partition(":")[2])
    client.remove_container(container)
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    began = time.monotonic()
    try:
        with pytest.raises(PullStopped, match="not looked at to the end"):
            DockerRuntime().resolve_image(name, cancel)
        assert time.monotonic() - began < 20
        monkeypatch.setattr(docker_images, "_PROBE_SECONDS", 2)
        with pytest.raises(ImageRefused, match="does not end within 2 s"):
            DockerRuntime().resolve_image(name)
    finally:
        eventually(lambda: client.containers(all=True, filters={"ancestor": name}), [])
        client.remove_image(name)
