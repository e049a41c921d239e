"""Other ways to an engine: a second one of its own, to be stopped or filled; and the same one over TCP, and TLS."""

from __future__ import annotations

import os
import resource
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_SECONDS = 60


class PrivateEngine:
    """A dockerd on a socket, a bridge and a small disk of its own. A context manager; needs root.

    ``folder`` is for all of it; its path must be short. ``number``: of several that one process has at a time.
    """

    def __init__(self, folder: Path, *, megabytes: int = 300, number: int = 0) -> None:
        self.folder, self._megabytes = folder, megabytes
        self.host = f"unix://{folder}/docker.sock"
        self._bridge = f"bw{os.getpid() % 100000}n{number}"
        self._net = f"172.{31 - number}.{os.getpid() % 200 + 20}.1/24"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateEngine:
        (self.folder / "data").mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "tmpfs", f"{self.folder}/data")
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "addr", "add", self._net, "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop(signal.SIGTERM)
        finally:
            for pid in self._processes("containerd-shim"):
                os.kill(pid, signal.SIGKILL)
            _run("ip", "link", "del", self._bridge)
            for place in self._mounts():
                subprocess.run(["umount", "-l", place], capture_output=True, check=False)

    def _mounts(self) -> list[str]:
        places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return sorted((place for place in places if place.startswith(f"{self.folder}/")), reverse=True)

    def start(self) -> None:
        """Start it, again after a stop, and wait until it answers."""
        # Never --bridge=none: that deletes the default bridge of the machine's other engine.
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "dockerd",
                    *("--host", self.host),
                    *("--data-root", f"{self.folder}/data"),
                    *("--exec-root", f"{self.folder}/exec"),
                    *("--pidfile", f"{self.folder}/docker.pid"),
                    *("--bridge", self._bridge),
                    "--userland-proxy=false",
                    "--iptables=false",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: answers(f"{self.folder}/docker.sock"))

    def limit_files(self, most: int) -> None:
        """How many files it may have open at a time, from now on."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (most, most))

    def stop(self, how: signal.Signals) -> None:
        """End it by a signal. SIGKILL leaves its containers running, as a crash does, until the next start."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(_SECONDS)
        # Its containerd dies with it, a moment later; a new one would take the old one's socket for its own.
        wait_until(lambda: not self._processes("containerd "))
        for name in ("docker.pid", "exec/containerd/containerd.pid", "exec/containerd/containerd.sock"):
            (self.folder / name).unlink(missing_ok=True)

    def _processes(self, program: str) -> list[int]:
        """Those whose command line has ``program`` and names our folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if program in line and f"{self.folder}/" in line:
                    found.append(int(process.parent.name))
        return found


class TcpDoor:
    """The engine at a Unix socket, reached over TCP as a remote one is. A context manager."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> TcpDoor:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._path)
                threading.Thread(target=self._serve, args=(client, engine), daemon=True).start()

    def _serve(self, client: socket.socket, engine: socket.socket) -> None:
        answers = threading.Thread(target=_pump, args=(engine, client), daemon=True)
        answers.start()
        _pump(client, engine)
        answers.join()
        client.close()
        engine.close()


class TlsDoor(TcpDoor):
    """The same with TLS, for those who have a certificate of an authority of its own: the files in ``folder``."""

    def __init__(self, socket_path: str, folder: Path) -> None:
        super().__init__(socket_path)
        make_certificates(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
        self._context.load_verify_locations(folder / "ca.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED

    def _serve(self, client: socket.socket, engine: socket.socket) -> None:
        try:
            client = self._context.wrap_socket(client, server_side=True)
        except OSError:  # no certificate, or a strange one
            client.close()
            engine.close()
            return
        super()._serve(client, engine)


def make_certificates(folder: Path) -> None:
    """An authority (ca.pem) and what it signed: server-cert.pem for 127.0.0.1, cert.pem for a client, with keys."""
    folder.mkdir(exist_ok=True)
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    _run(*new, "-subj", "/CN=authority", "-keyout", f"{folder}/ca-key.pem", "-out", f"{folder}/ca.pem")
    signed = (*new, "-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca-key.pem", "-addext", "basicConstraints=CA:FALSE")
    for name, more in (("server-", ("-addext", "subjectAltName=IP:127.0.0.1")), ("", ())):
        files = ("-keyout", f"{folder}/{name}key.pem", "-out", f"{folder}/{name}cert.pem")
        _run(*signed, *more, "-subj", f"/CN={name or 'client'}", *files)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def answers(socket_path: str) -> bool:
    """Whether an engine answers at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(socket_path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def wait_until(true: Callable[[], bool], told: Callable[[], str] = str) -> None:
    """``told`` says what went wrong when it takes too long."""
    deadline = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
