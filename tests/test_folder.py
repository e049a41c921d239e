"""The folder store: what only a folder can get wrong."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from blocks.folder import FolderStore
from blocks.owners import current_owner
from blocks.store import ArtifactMissing, StoreRefused

OLD = time.time() - 2 * 24 * 3600


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(StoreRefused, match="where a folder is needed") as caught:
            FolderStore(folder).check()
        assert str(folder) in str(caught.value)


def test_a_read_only_folder_is_told() -> None:
    code = """
        import os, sys
        from pathlib import Path
        from blocks.folder import FolderStore
        from blocks.store import StoreRefused

        if os.getuid() == 0:  # whom permissions do not stop
            os.setuid(65534)
        try:
            FolderStore(Path(sys.argv[1])).check()
        except StoreRefused as error:
            print(error)
    """
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with python(code, folder) as process:
            output, _ = process.communicate()

    assert output.startswith(f"folder {folder}, ")
    assert "its permissions forbid it" in output


def test_a_full_store_is_told_and_keeps_nothing_half_written(store: FolderStore) -> None:
    code = """
        import resource, signal, sys
        from pathlib import Path
        from blocks.folder import FolderStore
        from blocks.store import StoreFull

        store = FolderStore(Path(sys.argv[1]))
        store.check()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        for if_absent in (False, True):
            try:
                store.put("large", b"x" * 2000, if_absent=if_absent)
            except StoreFull as error:
                print(error)
    """
    with python(code, store.folder) as process:
        output, _ = process.communicate()

    assert output.count("no room left") == 2
    assert list(store.list_keys()) == []
    assert os.listdir(store.folder / ".writing") == []


def test_symbolic_links_are_not_followed(store: FolderStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("here/key", b"content")
    (store.folder / "link").symlink_to(outside)
    (store.folder / "here/link").symlink_to(outside / "secret")

    for key in ("link/secret", "here/link"):
        with pytest.raises(StoreRefused, match="symbolic link"):
            store.get(key)
        with pytest.raises(StoreRefused):
            store.copy_to(key, BytesIO())
    with pytest.raises(StoreRefused):
        store.put("link/new", b"")
    store.put("here/link", b"replaces the link, not what it points to")

    assert sorted(store.list_keys()) == ["here/key", "here/link"]
    assert list(store.list_keys("link/")) == []
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "store").symlink_to("real")

    FolderStore(tmp_path / "store").put("key", b"content")

    assert FolderStore(tmp_path / "real").get("key") == b"content"


def test_a_key_that_is_a_folder_of_others_is_refused(store: FolderStore) -> None:
    store.put("a/b", b"")

    for if_absent in (False, True):
        with pytest.raises(StoreRefused, match="also the folder"):
            store.put("a", b"", if_absent=if_absent)
    with pytest.raises(StoreRefused, match="where a folder is needed"):
        store.put("a/b/c", b"")


def test_only_the_owner_reads(store: FolderStore) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        store.put("a/b", b"")
        store.put("c", b"", if_absent=True)
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (store.folder, *store.folder.rglob("[!.]*"))}
    assert modes["store"] == modes["a"] == 0o700
    assert modes["b"] == modes["c"] == 0o600


def test_a_pipe_in_the_folder_does_not_hang(store: FolderStore) -> None:
    store.put("key", b"")
    os.mkfifo(store.folder / "pipe")

    with pytest.raises(ArtifactMissing):
        store.get("pipe")
    assert list(store.list_keys()) == ["key"]


def test_many_processes_count_without_losing_one(store: FolderStore) -> None:
    code = """
        import sys
        from pathlib import Path
        from blocks.folder import FolderStore
        from blocks.store import ArtifactConflict

        store = FolderStore(Path(sys.argv[1]))
        for _ in range(20):
            while True:
                read = store.get_versioned("counter")
                try:
                    store.replace("counter", b"%d" % (int(read.content) + 1), expected=read.version)
                except ArtifactConflict:
                    continue
                break
    """
    store.put("counter", b"0")

    processes = [python(code, store.folder) for _ in range(3)]
    for process in processes:
        process.communicate()

    assert store.get("counter") == b"60"


def test_a_killed_writer_leaves_no_artifact_and_its_rest_is_swept(store: FolderStore) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from blocks.folder import FolderStore

        class Slow:
            def read(self, size):
                time.sleep(0.05)
                print("reading", flush=True)
                return b"x" * 1000

        FolderStore(Path(sys.argv[1]))._put("key", Slow(), if_absent=False)
    """
    with python(code, store.folder) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert len(list((store.folder / ".writing").iterdir())) == 1

    assert not store.exists("key")
    store.check()
    assert list((store.folder / ".writing").iterdir()) == []


def test_what_may_belong_to_a_writer_at_work_is_swept_by_its_age_alone(store: FolderStore) -> None:
    store.check()
    me = str(current_owner())
    host = me.partition("/")[0]
    names = [me, me.replace(host, "another-host"), "nonsense"]
    at_work, strange, unknown = rests = [store.folder / ".writing" / f"{name},1".replace("/", ",") for name in names]
    for rest in rests:
        rest.touch()
    store.check()
    assert all(rest.exists() for rest in rests)

    for rest in rests:
        os.utime(rest, (OLD, OLD))
    store.check()

    assert at_work.exists()
    assert not strange.exists()
    assert not unknown.exists()
