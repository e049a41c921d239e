"""A real S3 server for the tests: SeaweedFS in one process, on loopback, with its data in a folder of its own."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3.session
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.ports import is_free

_START_SECONDS = 60
_STARTS = 3
# SeaweedFS listens for gRPC at every port + 10000.
_GRPC_OFFSET = 10_000
_PORTS = range(11_000, 22_000)
"""Neither these nor their gRPC ports are among those that the system gives to connections (tests/ports.py)."""


@dataclass(frozen=True)
class Key:
    """An access key of the server."""

    access_key_id: str
    secret_access_key: str

    @classmethod
    def new(cls) -> Key:
        return cls(secrets.token_hex(10), secrets.token_hex(20))


class S3Server:
    """A server with one bucket and two keys: ``owner`` may do everything, ``reader`` may only read.

    ``with S3Server(folder) as server:`` starts and stops it. ``kill`` and ``start`` again keep ports and data.
    """

    bucket = "artifacts"

    def __init__(self, folder: Path) -> None:
        self.owner, self.reader = Key.new(), Key.new()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    def __enter__(self) -> S3Server:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._identities.write_text(json.dumps({"identities": self._identity_list()}))
        for attempt in range(1, _STARTS + 1):
            self._ports = dict(zip(("s3", "master", "filer", "volume", "admin"), _free_ports(5), strict=True))
            try:
                self.start()
                return self
            except RuntimeError:  # somebody else may have taken a port meanwhile
                if attempt == _STARTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    def settings(self, prefix: str = "", key: Key | None = None) -> dict[str, object]:
        """The fields of an ``S3Artifacts`` for this server; with the owner's key unless told otherwise."""
        key = key or self.owner
        return {
            "bucket": self.bucket,
            "prefix": prefix,
            "endpoint_url": self.endpoint_url,
            "access_key_id": key.access_key_id,
            "secret_access_key": key.secret_access_key,
        }

    def start(self) -> None:
        """Start and wait until objects can be written."""
        command = [
            str(Path(sys.executable).with_name("weed")),
            "mini",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=false",
            f"-s3.config={self._identities}",
            f"-bucket={self.bucket}",
            *(f"-{name}.port={port}" for name, port in self._ports.items()),
        ]
        (self._folder / "data").mkdir(exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"weed did not start:\n{(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it the hard way, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def _identities(self) -> Path:
        return self._folder / "identities.json"

    def _identity_list(self) -> list[dict[str, object]]:
        actions = {"owner": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
        keys = {"owner": self.owner, "reader": self.reader}
        return [
            {
                "name": name,
                "credentials": [{"accessKey": key.access_key_id, "secretKey": key.secret_access_key}],
                "actions": actions[name],
            }
            for name, key in keys.items()
        ]

    def _answers(self) -> bool:
        client = boto3.session.Session(self.owner.access_key_id, self.owner.secret_access_key).client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=1,
                read_timeout=5,
                request_checksum_calculation="when_required",
            ),
        )
        try:
            client.put_object(Bucket=self.bucket, Key="started", Body=b"")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and so are their gRPC ports. In one row, so that none is the gRPC port of another."""
    for _ in range(100):
        first = secrets.choice(_PORTS)
        ports = [first + 10 * number for number in range(count)]
        if all(is_free(port) and is_free(port + _GRPC_OFFSET) for port in ports):
            return ports
    raise RuntimeError("found no free ports for the S3 server")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole session; every test takes a prefix of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
