"""The artifact blocks as Prefect sees them: settings, secrets, result storage."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from prefect.testing.utilities import prefect_test_harness
from pydantic import ValidationError

from blocks.artifacts import LocalArtifacts
from blocks.s3_artifacts import S3Artifacts
from blocks.store import StoreTrouble

SECRET, TOKEN = "s3cr3t-of-the-key", "t0ken-of-the-session"


class BlockSuite(BlockStandardTestSuite):
    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """The dashboard asks no other host for it: there is none."""
        assert block._logo_url is None


class TestLocalArtifacts(BlockSuite):
    @pytest.fixture
    def block(self) -> type[Block]:
        return LocalArtifacts


class TestS3Artifacts(BlockSuite):
    @pytest.fixture
    def block(self) -> type[Block]:
        return S3Artifacts


@pytest.fixture
def secretive() -> S3Artifacts:
    return S3Artifacts(
        bucket="b",
        endpoint_url="http://127.0.0.1:1",
        access_key_id="a",
        secret_access_key=SECRET,
        session_token=TOKEN,
        patience_seconds=0,
    )


def test_secrets_are_not_shown(secretive: S3Artifacts, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(StoreTrouble) as caught:
        secretive.check()

    shown = [repr(secretive), str(secretive), repr(secretive.model_dump()), secretive.model_dump_json()]
    shown += [str(caught.value), repr(caught.value), caplog.text, secretive.location, repr(secretive.store())]
    for text in shown:
        assert SECRET not in text
        assert TOKEN not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"access_key_id": None, "secret_access_key": SECRET},
        {"access_key_id": "a"},
        {"secret_access_key": SECRET, "access_key_id": [SECRET]},
        {"endpoint_url": f"http://a:{SECRET}@127.0.0.1"},
        {"endpoint_url": "127.0.0.1:8333"},
        {"prefix": "/a/"},
        {"prefix": "a" * 201},
        {"patience_seconds": -1},
        {"checksums": "never"},
    ],
)
def test_bad_settings_are_refused_without_showing_secrets(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        S3Artifacts(**{"bucket": "b", **changes})

    assert SECRET not in str(caught.value)


def test_a_folder_that_depends_on_where_a_worker_starts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")

    with pytest.raises(ValidationError, match="absolute"):
        LocalArtifacts(folder=Path("store"))
    assert LocalArtifacts(folder=Path("~/store")).location == "folder /home/somebody/store"


def test_results_of_asynchronous_flows_are_kept_too(tmp_path: Path) -> None:
    block = LocalArtifacts(folder=tmp_path)

    async def there_and_back() -> bytes:
        await block.awrite_path("some/result", b"content")
        return await block.aread_path("some/result")

    assert asyncio.run(there_and_back()) == b"content"
    assert list(block.list_keys()) == ["prefect/some/result"]


@pytest.mark.flow
def test_a_flow_keeps_its_results_in_the_store(tmp_path: Path) -> None:
    """Prefect hides a result storage that does not work, so the record itself is looked at."""
    runs: list[int] = []

    @task(
        persist_result=True,
        result_storage="local-artifacts/for-results",
        result_serializer="json",
        result_storage_key="double/{parameters[number]}.json",
    )
    def double(number: int) -> int:
        runs.append(number)
        return 2 * number

    @flow(persist_result=False)
    def story() -> list[int]:
        return [double(21), double(21)]

    with prefect_test_harness(server_startup_timeout=300):
        LocalArtifacts(folder=tmp_path / "store").save("for-results")
        store = LocalArtifacts.load("for-results")

        assert story() == [42, 42]

    assert runs == [21]
    assert list(store.list_keys()) == ["prefect/double/21.json"]
    assert json.loads(json.loads(store.get("prefect/double/21.json"))["result"]) == 42
