"""What is true of every artifact store: one suite, run against a folder and against a real S3 server."""

from __future__ import annotations

import hashlib
import os
import pickle
import string
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.artifacts import LocalArtifacts, StoreBlock
from blocks.blobs import Blob, Blobs
from blocks.s3_artifacts import S3Artifacts
from blocks.store import (
    ArtifactConflict,
    ArtifactCorrupt,
    ArtifactMissing,
    KeyRefused,
    StoreFull,
    StoreRefused,
    StoreTrouble,
    StoreUnavailable,
    checked_key,
    checked_prefix,
)

MIB = 1024 * 1024
_prefixes = count()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreBlock:
    if request.param == "folder":
        return LocalArtifacts(folder=tmp_path / "store")
    server = request.getfixturevalue("s3_server")
    return S3Artifacts(**server.settings(f"suite/{next(_prefixes)}"))


def test_what_is_put_is_got(store: StoreBlock) -> None:
    for content in (b"", b"hello\n", bytes(range(256)) * 1000):
        assert store.put("some/key", content)

        assert store.get("some/key") == content
        assert store.exists("some/key")


def test_a_missing_artifact_is_told(store: StoreBlock) -> None:
    store.put("a/b", b"")

    for key in ("nothing", "a", "a/c", "c/d"):
        assert not store.exists(key)
        with pytest.raises(ArtifactMissing, match="there is no artifact"):
            store.get(key)
        with pytest.raises(ArtifactMissing):
            store.copy_to(key, BytesIO())


def test_if_absent_never_replaces(store: StoreBlock, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"third")

    assert store.put("key", b"first", if_absent=True)
    assert not store.put("key", b"second", if_absent=True)
    assert not store.put_file("key", file, if_absent=True)
    assert store.get("key") == b"first"


def test_of_sixteen_writers_one_is_first(store: StoreBlock) -> None:
    for key in ("race/1", "race/2", "race/3"):
        barrier = Barrier(16)

        def write(number: int, key: str = key, barrier: Barrier = barrier) -> bool:
            barrier.wait()
            return store.put(key, b"%d" % number, if_absent=True)

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(write, range(16)))

        assert won.count(True) == 1
        assert store.get(key) == b"%d" % won.index(True)


def test_of_sixteen_who_replace_the_same_version_one_succeeds(store: StoreBlock) -> None:
    store.put("state.json", b"{}")
    read = store.get_versioned("state.json")
    barrier = Barrier(16)

    def replace(number: int) -> str | None:
        barrier.wait()
        try:
            return store.replace("state.json", b"%d" % number, expected=read.version)
        except ArtifactConflict:
            return None

    with ThreadPoolExecutor(16) as pool:
        versions = list(pool.map(replace, range(16)))

    (winner,) = (number for number, version in enumerate(versions) if version)
    assert store.get_versioned("state.json").content == b"%d" % winner
    assert store.get_versioned("state.json").version == versions[winner]


def test_replace_writes_only_over_what_was_read(store: StoreBlock) -> None:
    first = store.replace("state.json", b"1", expected=None)
    with pytest.raises(ArtifactConflict, match=r"'state\.json' was changed by another writer"):
        store.replace("state.json", b"2", expected=None)
    second = store.replace("state.json", b"2", expected=first)
    with pytest.raises(ArtifactConflict):
        store.replace("state.json", b"3", expected=first)
    with pytest.raises(ArtifactConflict):
        store.replace("other.json", b"3", expected=first)

    assert store.get_versioned("state.json").version == second
    assert store.get("state.json") == b"2"
    assert not store.exists("other.json")


NAMES = [
    "with space",
    " leading",
    "trailing ",
    "50%",
    "%2F",
    "a+b",
    "a b+c%20d",
    "a?b#c&d=e",
    "quote'\"<>&",
    "größe/日本語/😀",
    "~",
    "-",
    "a.b-c_d",
    "a/.hidden/b",
    "line\u2028separator",
]


@pytest.mark.parametrize("key", NAMES)
def test_keys_are_kept_as_they_are(store: StoreBlock, key: str) -> None:
    store.put(key, key.encode())

    assert store.get(key) == key.encode()
    assert list(store.list_keys()) == [key]
    assert list(store.list_keys(key[:-1])) == [key]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_any_good_key_comes_back(store: StoreBlock, key: str) -> None:
    try:
        checked_key(key)
    except KeyRefused:
        with pytest.raises(KeyRefused):
            store.put(key, b"")
        with pytest.raises(KeyRefused):
            store.get(key)
        return
    key = f"{hashlib.sha256(key.encode()).hexdigest()}/{key}"  # so that none is the folder of another

    store.put(key, b"content")

    assert store.get(key) == b"content"
    assert key in set(store.list_keys(key))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a/..",
        ".check",
        ".locks/1",
        "a\nb",
        "a\0",
        "\x7f",
        "a\\b",
        "\ud800",
        "n" * 256,
        "/".join(["n" * 200] * 5),
    ],
)
def test_bad_keys_are_refused_by_every_verb(store: StoreBlock, tmp_path: Path, key: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")

    for verb in (
        lambda: store.put(key, b""),
        lambda: store.put_file(key, file),
        lambda: store.put(key, b"", if_absent=True),
        lambda: store.get(key),
        lambda: store.get_versioned(key),
        lambda: store.replace(key, b"", expected=None),
        lambda: store.replace(key, b"", expected="1"),
        lambda: store.copy_to(key, BytesIO()),
        lambda: store.exists(key),
    ):
        with pytest.raises(KeyRefused):
            verb()


def test_a_prefix_is_a_string_not_a_folder(store: StoreBlock) -> None:
    for key in ("runs/1/a", "runs/1/b", "runs/10/a", "runsheet", "other"):
        store.put(key, b"")

    assert sorted(store.list_keys("runs/1")) == ["runs/1/a", "runs/1/b", "runs/10/a"]
    assert sorted(store.list_keys("runs/1/")) == ["runs/1/a", "runs/1/b"]
    assert sorted(store.list_keys("runs")) == ["runs/1/a", "runs/1/b", "runs/10/a", "runsheet"]
    assert sorted(store.list_keys("nothing/here")) == []
    assert len(list(store.list_keys())) == 5


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "/a"])
def test_bad_prefixes_are_refused(store: StoreBlock, prefix: str) -> None:
    with pytest.raises(KeyRefused):
        list(store.list_keys(prefix))


def test_more_keys_than_fit_on_a_page_are_listed(store: StoreBlock) -> None:
    names = {f"many/{number:04}" for number in range(1010)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))

    assert set(store.list_keys("many/")) == names


def test_a_checked_store_has_no_keys(store: StoreBlock) -> None:
    """What a check writes is the store's own."""
    store.check()
    store.check()

    assert list(store.list_keys()) == []


def test_large_files_stream_at_flat_memory(store: StoreBlock, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for _ in range(16):
            file.write(os.urandom(MIB) * 4)
    store.put_file("warm", source)
    blobs = Blobs(store)

    tracemalloc.start()
    try:
        blob = blobs.put_file(source)
        with target.open("wb") as file:
            blobs.copy_to(blob, file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert blob == Blob.of_file(source) == Blob.of_file(target)
    assert peak < 40 * MIB, "a part of 16 MiB, and what the connection holds of it"


def test_a_blob_is_named_by_its_content_and_written_once(store: StoreBlock, tmp_path: Path) -> None:
    blobs = Blobs(store)
    large = tmp_path / "large"
    large.write_bytes(b"x" * 100_000)

    blob = blobs.put(b"hello\n")

    assert blob == Blob("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", 6)
    assert blob.key == f"blobs/sha256/58/{blob.digest}"
    assert blobs.get(blob) == b"hello\n"
    assert blobs.put(b"hello\n") == blob
    assert blobs.put_file(large) == blobs.put(large.read_bytes())
    assert len(list(store.list_keys("blobs/"))) == 2


@pytest.mark.parametrize("change", [b"jello\n", b"hello", b"hello\n\n", b""])
def test_a_corrupted_blob_is_detected_and_then_written_again(store: StoreBlock, change: bytes) -> None:
    blobs = Blobs(store)
    blob = blobs.put(b"hello\n")
    store.put(blob.key, change)

    with pytest.raises(ArtifactCorrupt, match=blob.key):
        blobs.get(blob)
    with pytest.raises(ArtifactCorrupt, match=blob.key):
        blobs.copy_to(blob, BytesIO())
    blobs.put(b"hello\n")

    assert blobs.get(blob) == b"hello\n"


def test_a_missing_blob_is_told(store: StoreBlock) -> None:
    blob = Blob.of(b"nobody put this")

    assert not Blobs(store).exists(blob)
    with pytest.raises(ArtifactMissing):
        Blobs(store).get(blob)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
def test_a_blob_has_a_sha256(digest: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        Blob(digest, 0)


def test_a_file_that_cannot_be_read_is_not_the_stores_trouble(store: StoreBlock, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_file("key", tmp_path / "nothing")


def test_a_target_that_cannot_be_written_is_not_the_stores_trouble(store: StoreBlock) -> None:
    class Full:
        def write(self, content: bytes, /) -> None:
            raise OSError(28, "No space left on device")

    store.put("key", b"content")

    with pytest.raises(OSError, match="No space left"):
        store.copy_to("key", Full())


def test_a_store_is_its_settings_and_survives_pickling(store: StoreBlock) -> None:
    before = pickle.dumps(store)
    store.put("key", b"content")
    other = pickle.loads(pickle.dumps(store))

    assert pickle.dumps(store) == before
    assert other == store
    assert other.model_copy(deep=True).get("key") == b"content"


ERRORS = [
    StoreUnavailable("s3://b", "it does not answer"),
    StoreRefused("s3://b", "no"),
    StoreFull("folder /x", "no room left"),
    ArtifactMissing("a/b", "folder /x"),
    ArtifactCorrupt("a/b", "folder /x"),
    ArtifactConflict("a/b", "folder /x"),
    KeyRefused("a//b", "no"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: StoreTrouble) -> None:
    """Prefect persists them."""
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.temporary is isinstance(error, StoreUnavailable)


@given(key=st.lists(st.text(alphabet=string.ascii_letters + "./ \\\0", max_size=4), max_size=4).map("/".join))
def test_a_good_key_stays_below_its_root(key: str) -> None:
    try:
        checked_key(key)
    except KeyRefused:
        return

    assert os.path.normpath(f"/root/{key}") == f"/root/{key}"
    assert all(checked_prefix(key[:end]) for end in range(1, len(key) + 1))


def test_the_interface_needs_no_prefect() -> None:
    """So that light commands stay light."""
    modules = "blocks.store, blocks.blobs, blocks.folder, blocks.bucket, blocks.s3_client"
    code = f"import sys, {modules}; sys.exit('prefect' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
