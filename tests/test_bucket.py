"""The bucket store: wrong settings, a server that goes away, and stores that differ from Amazon's."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from pydantic import SecretStr

from blocks.blobs import Blob, Blobs
from blocks.bucket import BucketStore
from blocks.s3_artifacts import S3Artifacts
from blocks.s3_client import connect
from blocks.store import ArtifactConflict, ArtifactCorrupt, StoreFull, StoreRefused, StoreTrouble, StoreUnavailable
from tests.s3server import S3Server

MIB = 1024 * 1024


@pytest.mark.s3
class TestAgainstTheServer:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"bucket": "elsewhere"}, "no such bucket"),
            ({"bucket": "Not A Bucket"}, "bucket"),
            ({"secret_access_key": "wrong-secret"}, "correct secret_access_key"),
            ({"access_key_id": "nobody"}, "correct access_key_id"),
        ],
    )
    def test_wrong_settings_are_told_by_a_check(
        self, s3_server: S3Server, changes: dict[str, str], message: str
    ) -> None:
        block = S3Artifacts(**{**s3_server.settings("wrong"), **changes})

        with pytest.raises(StoreRefused, match=message) as caught:
            block.check()

        assert s3_server.owner.secret_access_key not in str(caught.value)

    def test_a_read_only_key_is_told_by_a_check_and_reads(self, s3_server: S3Server) -> None:
        S3Artifacts(**s3_server.settings("reading")).put("key", b"content")
        block = S3Artifacts(**s3_server.settings("reading", s3_server.reader))

        with pytest.raises(StoreRefused, match="lacks a right"):
            block.check()
        with pytest.raises(StoreRefused, match="lacks a right"):
            block.put("key", b"changed", if_absent=True)

        assert block.get("key") == b"content"
        assert list(block.list_keys()) == ["key"]

    def test_a_missing_bucket_is_told_by_every_verb_but_exists(self, s3_server: S3Server) -> None:
        block = S3Artifacts(**{**s3_server.settings(), "bucket": "elsewhere"})

        for verb in (lambda: block.put("a", b""), lambda: block.get("a"), lambda: list(block.list_keys())):
            with pytest.raises(StoreRefused, match="no such bucket"):
                verb()

    @pytest.mark.parametrize(
        ("changes", "environment", "message"),
        [
            ({"region": "not a region"}, {}, "not a region"),
            ({"ca_bundle": "/nowhere/ca.pem"}, {}, "correct ca_bundle"),
            ({}, {"AWS_PROFILE": "nobody"}, "nobody"),
        ],
    )
    def test_settings_that_boto3_cannot_use_are_told(
        self, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], environment: dict[str, str], message: str
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        connect.cache_clear()

        with pytest.raises(StoreRefused, match=message):
            S3Artifacts(bucket="b", **changes).check()

    def test_nothing_listening_is_told_soon(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            block = S3Artifacts(
                bucket="b", endpoint_url=f"http://127.0.0.1:{port}", access_key_id="a", secret_access_key="s"
            )
            start = time.monotonic()

            with pytest.raises(StoreUnavailable, match="does not answer"):
                block.check()

        assert time.monotonic() - start < 30  # its patience for a run's writes is 60

    def test_the_environment_provides_a_key_if_the_block_has_none(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.owner.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.owner.secret_access_key)
        connect.cache_clear()

        S3Artifacts(bucket=s3_server.bucket, endpoint_url=s3_server.endpoint_url, prefix="environment").check()

    def test_no_key_anywhere_is_told(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        connect.cache_clear()

        with pytest.raises(StoreRefused, match="there are no credentials"):
            S3Artifacts(bucket=s3_server.bucket, endpoint_url=s3_server.endpoint_url).check()

    def test_a_document_changed_behind_our_back_is_corrupt(self, s3_server: S3Server) -> None:
        """The checksum that was stored beside it tells."""
        store = S3Artifacts(**s3_server.settings("behind")).store()
        store.put("key", b"content")
        metadata = store.client.head_object(Bucket=store.bucket, Key="behind/key")["Metadata"]
        store.client.put_object(Bucket=store.bucket, Key="behind/key", Body=b"changed", Metadata=metadata)

        with pytest.raises(ArtifactCorrupt, match="key"):
            store.get("key")

    def test_a_failed_upload_leaves_no_parts_behind(self, s3_server: S3Server, tmp_path: Path) -> None:
        store = S3Artifacts(**s3_server.settings("parts")).store()
        large = tmp_path / "large"
        large.write_bytes(b"x" * 17 * MIB)
        store.put_file("large", large)

        with pytest.raises(ArtifactConflict):
            store._put_parts("large", large, {"IfNoneMatch": "*"})

        uploads = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix="parts/")
        assert uploads.get("Uploads", []) == []

    def test_a_check_aborts_what_killed_writers_began_long_ago(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = S3Artifacts(**s3_server.settings("forgotten")).store()
        store.client.create_multipart_upload(Bucket=store.bucket, Key="forgotten/layer")

        def uploads() -> list[object]:
            listing = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix="forgotten/")
            return list(listing.get("Uploads", []))

        store.check()
        assert len(uploads()) == 1
        monkeypatch.setattr("blocks.bucket._FORGOTTEN_SECONDS", -60)
        store.check()

        assert uploads() == []


@pytest.mark.s3
class TestARestart:
    """The server is killed, and comes back on the same ports a moment later."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[S3Server]:
        with S3Server(tmp_path / "server") as server:
            yield server

    @pytest.fixture
    def store(self, server: S3Server) -> S3Artifacts:
        block = S3Artifacts(**server.settings("restart"))
        block.check()
        return block

    def test_is_not_noticed_by_readers_and_writers(self, server: S3Server, store: S3Artifacts, tmp_path: Path) -> None:
        content = b"".join(b"%07d\n" % number for number in range(4 * MIB))
        (tmp_path / "large").write_bytes(content)
        blob = Blobs(store).put_file(tmp_path / "large")
        target = _KillingTarget(server)

        Blobs(store).copy_to(blob, target)
        target.restart.join()
        assert Blob.of(target.getvalue()) == blob

        restart = _restart(server)
        assert store.put("key", b"content", if_absent=True)
        restart.join()
        assert store.get("key") == b"content"
        assert store.exists(blob.key)


class _KillingTarget(BytesIO):
    """Kills the server when the first piece arrives; it comes back a moment later."""

    def __init__(self, server: S3Server) -> None:
        super().__init__()
        self._server = server
        self.restart: Thread | None = None

    def write(self, content: Any, /) -> int:
        if self.restart is None:
            self.restart = _restart(self._server)
        return super().write(content)


def _restart(server: S3Server) -> Thread:
    server.kill()
    thread = Thread(target=lambda: (time.sleep(1), server.start()))
    thread.start()
    return thread


class TestStoresThatDiffer:
    """Answers of other stores, given by botocore's own stubber."""

    @pytest.fixture
    def store(self) -> Iterator[BucketStore]:
        connect.cache_clear()
        client = connect(endpoint_url="http://127.0.0.1:1", access_key_id="a", secret_access_key=SecretStr("s"))
        yield BucketStore(client, "bucket")
        connect.cache_clear()

    @pytest.fixture
    def stub(self, store: BucketStore) -> Iterator[Stubber]:
        with Stubber(store.client) as stub:
            yield stub
            stub.assert_no_pending_responses()

    def honours(self, stub: Stubber, code: str | None = "PreconditionFailed") -> None:
        stub.add_response("put_object", {"ETag": '"0"'})
        if code:
            stub.add_client_error("put_object", code, http_status_code=501 if code == "NotImplemented" else 412)
        else:
            stub.add_response("put_object", {"ETag": '"0"'})

    def test_an_etag_is_sent_without_quotes_where_they_do_not_match(self, store: BucketStore, stub: Stubber) -> None:
        """Ceph 16 compares with its own quotes."""
        put = {"Bucket": "bucket", "Key": "key", "Body": b"2", "ContentMD5": ANY, "Metadata": ANY}
        self.honours(stub)
        stub.add_client_error("put_object", "PreconditionFailed", expected_params={**put, "IfMatch": '"1"'})
        stub.add_response("head_object", {"ETag": '"1"', "Metadata": {}})
        stub.add_response("put_object", {"ETag": '"2"'}, expected_params={**put, "IfMatch": "1"})

        assert store.replace("key", b"2", expected='"1"') == '"2"'

    @pytest.mark.parametrize("code", [None, "NotImplemented"])
    def test_a_store_without_conditional_writes_is_asked_first(
        self, store: BucketStore, stub: Stubber, code: str | None
    ) -> None:
        self.honours(stub, code)
        stub.add_client_error("head_object", "404", http_status_code=404)
        stub.add_response("put_object", {"ETag": '"1"'})
        stub.add_response("head_object", {"ETag": '"1"', "Metadata": {}})

        assert store.put("key", b"1", if_absent=True)
        assert not store.put("key", b"2", if_absent=True)
        with pytest.raises(StoreRefused, match="no conditional writes"):
            store.replace("key", b"2", expected='"1"')

    def test_a_check_warns_of_a_store_without_conditional_writes(
        self, store: BucketStore, stub: Stubber, caplog: pytest.LogCaptureFixture
    ) -> None:
        stub.add_response("put_object", {"ETag": '"1"'})
        stub.add_response("get_object", {"ETag": '"1"', "Metadata": {}, "Body": _body(b"")})
        stub.add_response("list_objects_v2", {})
        self.honours(stub, None)

        with caplog.at_level(logging.WARNING):
            store.check()

        assert "no conditional writes" in caplog.text

    def test_a_write_that_meets_another_is_tried_again(self, store: BucketStore, stub: Stubber) -> None:
        """Amazon answers 409 while another conditional write goes on."""
        self.honours(stub)
        stub.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
        stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
        stub.add_response("head_object", {"ETag": '"1"', "Metadata": {"writer": "another"}})

        assert not store.put("key", b"1", if_absent=True)

    def test_a_repeated_write_whose_first_answer_was_lost_counts_as_first(
        self, store: BucketStore, stub: Stubber
    ) -> None:
        written: dict[str, str] = {}
        store.client.meta.events.register(
            "before-parameter-build.s3.PutObject", lambda params, **_: written.update(params.get("Metadata", {}))
        )
        self.honours(stub)
        stub.add_client_error("put_object", "RequestTimeout", http_status_code=400)
        stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
        stub.add_response("head_object", {"ETag": '"1"', "Metadata": written})

        assert store.put("key", b"1", if_absent=True)

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("SlowDown", 503, StoreUnavailable),
            ("InternalError", 500, StoreUnavailable),
            ("RequestTimeout", 400, StoreUnavailable),
            ("QuotaExceeded", 403, StoreFull),
            ("InsufficientStorage", 507, StoreFull),
            ("AccessDenied", 403, StoreRefused),
            ("RequestTimeTooSkewed", 403, StoreRefused),
            ("SomethingNew", 400, StoreRefused),
        ],
    )
    def test_answers_are_told_apart(
        self, store: BucketStore, stub: Stubber, code: str, status: int, kind: type[StoreTrouble]
    ) -> None:
        stub.add_client_error("put_object", code, http_status_code=status)

        with pytest.raises(kind, match=code):
            replace(store, patience_seconds=0).put("key", b"1")

    def test_a_refusal_is_not_tried_again_and_a_slow_down_is(self, store: BucketStore, stub: Stubber) -> None:
        stub.add_client_error("put_object", "SlowDown", http_status_code=503)
        stub.add_client_error("put_object", "InternalError", http_status_code=500)
        stub.add_client_error("put_object", "AccessDenied", http_status_code=403)
        stub.add_client_error("head_object", "403", http_status_code=403)

        with pytest.raises(StoreRefused, match="lacks a right"):
            store.put("key", b"1")


def _body(content: bytes) -> StreamingBody:
    return StreamingBody(BytesIO(content), len(content))
