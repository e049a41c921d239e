"""How code hosts are reached: private certificates, proxies with passwords, GitHub Apps; and GitHub by somebody else.

`myworld` is a replica of GitHub's interface that we did not write, behind a proxy that ends TLS with an authority of
its own: the publisher's verbs run against it as against our fake.
"""

from __future__ import annotations

import base64
import select
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import SecretStr, ValidationError

from blocks.code_hosts import HostRefused, NotThere, Proposal, RequestExists
from blocks.gitea_host import Gitea
from blocks.github_host import GitHub
from tests.code_hosts.running import TOKEN, RunningHost, running
from tests.gitrepos import run_git
from tests.proposals import BRANCH, Change, Office, repository_on

LOGIN = "proxy-user:proxy-PASSWORD"


class _Tunnel(socketserver.StreamRequestHandler):
    """One CONNECT through a proxy that wants a password."""

    connections: ClassVar[list[str]] = []

    def handle(self) -> None:
        while line := self.rfile.readline().decode():
            target = line.split()[1]
            if self._is_authenticated():
                self._open(target)
                return
            self.wfile.write(b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="p"\r\nContent-Length: 0\r\n\r\n')

    def _is_authenticated(self) -> bool:
        headers = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return headers.get("proxy-authorization") == f"Basic {base64.b64encode(LOGIN.encode()).decode()}"

    def _open(self, target: str) -> None:
        self.connections.append(target)
        host, _, port = target.partition(":")
        with socket.create_connection(("127.0.0.1", int(port))) as server:
            assert host == "localhost"
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self._copy(self.connection, server)

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        while True:
            for source in select.select([one, other], [], [])[0]:
                try:
                    data = source.recv(65536)
                except ConnectionError:
                    return
                if not data:
                    return
                (other if source is one else one).sendall(data)


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture
def proxy() -> Iterator[str]:
    """The address of a proxy, with its password."""
    with _Proxy(("127.0.0.1", 0), _Tunnel) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://{LOGIN}@127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that nobody else trusts; its key is beside it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"],
        capture_output=True,
        check=True,
    )  # fmt: skip
    return tmp_path / "ca.pem"


@pytest.fixture
def private_host(tmp_path: Path, certificate: Path) -> Iterator[RunningHost]:
    """A host behind TLS."""
    repository_on(tmp_path / "root", "acme/app")
    with running("gitea", tmp_path / "root", tls=certificate) as found:
        yield found


def test_git_and_the_interface_go_through_the_proxy_and_trust_the_private_authority(
    private_host: RunningHost, certificate: Path, proxy: str, tmp_path: Path
) -> None:
    block = Gitea(url=private_host.url, token=SecretStr(TOKEN), ca_bundle=str(certificate), proxy=SecretStr(proxy))
    office = Office(tmp_path, private_host.root, private_host.names, [block.connect()])
    base = run_git(private_host.repository("acme/app"), "rev-parse", "main")
    _Tunnel.connections.clear()

    (outcome,) = office.publish(office.run(Change("acme/app", base)))
    office.hosts[0].disconnect()

    assert outcome.done == "opened", outcome
    assert run_git(private_host.repository("acme/app"), "show", f"{BRANCH}:README.md") == "hello, new mirror"
    assert len(_Tunnel.connections) >= 4, "the interface, and git's commands"
    assert "PASSWORD" not in repr(block) + repr(office.hosts[0].location("acme/app"))


@pytest.mark.parametrize("missing", ["ca_bundle", "password"])
def test_a_way_that_is_closed_is_told_without_secrets(
    private_host: RunningHost, certificate: Path, proxy: str, missing: str
) -> None:
    settings = {"ca_bundle": str(certificate), "proxy": SecretStr(proxy)}
    if missing == "ca_bundle":
        del settings["ca_bundle"]
    else:
        settings["proxy"] = SecretStr(proxy.replace("PASSWORD", "WRONG"))
    client = Gitea(url=private_host.url, token=SecretStr(TOKEN), **settings).connect()  # type: ignore[arg-type]
    client._pace.first_wait_seconds = 0.01

    with pytest.raises(
        Exception, match="certificate is not trusted; set ca_bundle" if missing == "ca_bundle" else "no answer"
    ) as told:
        client.read("acme/app", "1")
    client.disconnect()

    assert "proxy-user" not in repr(told.value) + str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


class TestApp:
    def test_an_app_gets_its_own_tokens(self, tmp_path: Path) -> None:
        """For the interface, and for git."""
        key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, text=True, check=True).stdout
        base = repository_on(tmp_path / "root", "acme/app")
        with running("github", tmp_path / "root") as host:
            block = GitHub(
                url=host.url, app_id="4711", installation_id=99, private_key=SecretStr(key), seconds_between_writes=0
            )
            office = Office(tmp_path, host.root, host.names, [block.connect()])

            (outcome,) = office.publish(office.run(Change("acme/app", base)))
            credentials = office.hosts[0].location("acme/app").credentials
            office.hosts[0].disconnect()

        assert outcome.done == "opened", outcome
        assert credentials.token is not None
        assert credentials.token.get_secret_value().startswith("ghs_")
        assert "PRIVATE" not in repr(block)

    @pytest.mark.parametrize(
        "fields", [{}, {"app_id": "1"}, {"token": "t", "app_id": "1", "installation_id": 1, "private_key": "k"}]
    )
    def test_who_it_is_must_be_clear(self, fields: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match="give a token"):
            GitHub.model_validate(fields)

    @pytest.mark.parametrize("url", ["git.example.com", "ftp://git.example.com", "https://ada:secret@git.example.com"])
    def test_addresses_hold_no_secrets(self, url: str) -> None:
        with pytest.raises(ValidationError) as told:
            Gitea(url=url, token=SecretStr(TOKEN))
        assert "ada:secret" not in str(told.value)


@contextmanager
def replica(folder: Path) -> Iterator[GitHub]:
    """The block that reaches GitHub by somebody else."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.code_hosts.replica", folder],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        proxy, token = process.stdout.readline().split()
        yield GitHub(
            token=SecretStr(token),
            proxy=SecretStr(proxy),
            ca_bundle=str(folder / "replica.pem"),
            seconds_between_writes=0,
        )
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def test_the_verbs_do_the_same_on_a_github_that_we_did_not_write(tmp_path: Path) -> None:
    with replica(tmp_path) as block:
        client = block.connect()
        requester = client._client().requester  # type: ignore[attr-defined]
        _, main = requester.requestJsonAndCheck("GET", "/repos/acme/api/git/ref/heads/main")
        commit = main["object"]["sha"]
        requester.requestJsonAndCheck(
            "POST", "/repos/acme/api/git/refs", input={"ref": "refs/heads/batch/x", "sha": commit}
        )
        content = {"message": "m", "content": base64.b64encode(b"x").decode(), "branch": "batch/x"}
        requester.requestJsonAndCheck("PUT", "/repos/acme/api/contents/x.txt", input=content)
        proposal = Proposal("A title", "A body", "batch/x", "main")

        assert client.find("acme/api", "batch/x", "") is None
        opened = client.open("acme/api", proposal)
        with pytest.raises(RequestExists):
            client.open("acme/api", proposal)
        with pytest.raises(HostRefused):
            client.open("acme/api", Proposal("A title", "", "no-such-branch", "main"))
        with pytest.raises(NotThere):
            client.read("acme/api", "9999")
        found = client.find("acme/api", "batch/x", "")
        assert found is not None
        assert (found.id, found.state, found.title, found.base_branch) == (opened.id, "open", "A title", "main")
        client.edit("acme/api", found, title="Another", body="text", base_branch="main")
        client.close("acme/api", found)
        closed = client.read("acme/api", found.id)
        assert (closed.state, closed.title, closed.body) == ("closed", "Another", "text")
        client.reopen("acme/api", closed)
        assert client.read("acme/api", found.id).state == "open"
        assert client.health("acme/api", found).conflicts in (False, None)
        client.disconnect()
