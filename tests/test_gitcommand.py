"""The host's git: bytes in and out, nothing inherited, nothing executed, errors that say whether to try again."""

import errno
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Timer

import pytest

from flows.batches.errors import PermanentError, Stopped, TemporaryError
from flows.gitcommand import (
    Bounds,
    GitError,
    GitFailed,
    GitTooLarge,
    GitTooSlow,
    GitUnavailable,
    ObjectMissing,
    ObjectReader,
    TreeDiffer,
    entries,
    git,
    records,
)
from tests.gitrepos import make_repository, run_git
from tests.harness import eventually


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_repository(tmp_path / "r", {"a.txt": "hello\n", "d/b.bin": b"\0\xff\n\n"})
    return tmp_path / "r"


def test_bytes_go_in_and_come_out_unchanged(repository: Path) -> None:
    content = b"\0\xff\r\n\n"

    oid = git(["hash-object", "-w", "--stdin"], git_dir=repository / ".git", stdin=content).decode().strip()

    assert git(["cat-file", "blob", oid], git_dir=repository / ".git") == content


def test_input_and_output_larger_than_a_pipe_do_not_block(repository: Path) -> None:
    names = b"HEAD:a.txt\n" * 50_000

    assert len(git(["cat-file", "--batch"], git_dir=repository / ".git", stdin=names)) > 1_000_000


def test_inherited_git_variables_take_no_part(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nonsense")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'alias.x'='!echo no'")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))

    assert git(["rev-parse", "HEAD:a.txt"], cwd=repository)
    assert not (tmp_path / "trace").exists()


def test_the_configuration_of_user_and_machine_takes_no_part(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\nname = Mallory\n[core]\nabbrev = 40\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert git(["config", "--get", "user.name"], git_dir=repository / ".git", expected=(1,)) == b""
    assert len(git(["rev-parse", "--short", "HEAD"], cwd=repository).strip()) == 7


def test_hooks_and_monitors_of_a_repository_do_not_run(repository: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {canary}\n")
    script.chmod(0o755)
    run_git(repository, "config", "core.fsmonitor", str(script))
    run_git(repository, "config", "core.hooksPath", str(tmp_path / "hooks"))
    (tmp_path / "hooks").mkdir()
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (tmp_path / "hooks" / hook).symlink_to(script)

    git(["status"], cwd=repository)
    git(["checkout", "-b", "other"], cwd=repository)

    assert not canary.exists()


def test_files_get_the_modes_that_the_umask_allows(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()

    git(["checkout", "HEAD", "--", "."], git_dir=repository / ".git", work_tree=tmp_path / "tree", umask=0)

    assert (tmp_path / "tree/a.txt").stat().st_mode & 0o777 == 0o666
    assert (tmp_path / "tree/d").stat().st_mode & 0o777 == 0o777


def test_an_index_of_its_own_leaves_the_repositorys_alone(repository: Path, tmp_path: Path) -> None:
    before = (repository / ".git/index").read_bytes()

    git(["read-tree", "--empty"], git_dir=repository / ".git", index=tmp_path / "index")

    assert (tmp_path / "index").exists()
    assert (repository / ".git/index").read_bytes() == before


def test_an_error_has_command_exit_code_and_message(repository: Path) -> None:
    with pytest.raises(GitFailed, match=r"git rev-parse failed \(exit code 128\): .*nope") as caught:
        git(["rev-parse", "nope"], git_dir=repository / ".git")

    assert caught.value.command == ("rev-parse", "nope")
    assert isinstance(caught.value, PermanentError)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)


def test_exit_codes_may_be_expected(repository: Path) -> None:
    assert git(["grep", "nothing", "HEAD"], git_dir=repository / ".git", expected=(0, 1)) == b""


def test_an_unreachable_server_is_worth_another_try(repository: Path) -> None:
    with pytest.raises(GitUnavailable) as caught:
        git(["fetch", "http://127.0.0.1:1/x"], git_dir=repository / ".git")

    assert isinstance(caught.value, TemporaryError)


def test_a_time_limit_ends_git_and_its_children(repository: Path) -> None:
    began = time.monotonic()

    with pytest.raises(GitUnavailable, match=r"did not end within 0\.3 s"):
        git(["-c", "alias.wait=!sleep 600", "wait"], git_dir=repository / ".git", timeout_seconds=0.3)

    assert time.monotonic() - began < 60


def test_secrets_stay_out_of_errors_and_arguments(repository: Path) -> None:
    with pytest.raises(GitError) as caught:
        git(
            [
                "-c",
                'alias.tell=!f() { echo "no: $TOKEN" >&2; tr "\\0" " " </proc/$PPID/cmdline >&2; exit 3; }; f',
                "tell",
            ],
            git_dir=repository / ".git",
            secrets={"TOKEN": "s3cr3t-value"},
        )

    assert "s3cr3t-value" not in str(caught.value) + repr(caught.value)
    assert "no: ${{ secrets.TOKEN }}" in caught.value.stderr


def test_passwords_in_addresses_are_not_repeated(repository: Path) -> None:
    with pytest.raises(GitError) as caught:
        git(["fetch", "http://ada:s3cr3t@127.0.0.1:1/x"], git_dir=repository / ".git")

    assert "s3cr3t" not in str(caught.value) + repr(caught.value)


def test_other_protocols_than_the_known_ones_are_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(GitFailed, match="not allowed"):
        git(["ls-remote", f"ext::touch {tmp_path}/canary"], git_dir=repository / ".git")

    assert not (tmp_path / "canary").exists()


def test_a_reader_gives_kinds_and_contents(repository: Path) -> None:
    head = run_git(repository, "rev-parse", "HEAD")

    with ObjectReader(repository / ".git") as reader:
        assert reader.read(f"{head}:a.txt") == ("blob", b"hello\n")
        assert reader.read(f"{head}:d/b.bin".encode()) == ("blob", b"\0\xff\n\n")
        assert reader.read(head)[0] == "commit"
        kind, tree = reader.read(f"{head}^{{tree}}")
        with pytest.raises(ObjectMissing, match="nope"):
            reader.read("nope")
        with pytest.raises(ValueError, match="newline"):
            reader.read(b"a\nb")
        assert reader.read(f"{head}:a.txt") == ("blob", b"hello\n")

    assert kind == "tree"
    assert [(entry.mode, entry.name) for entry in entries(tree)] == [(b"100644", b"a.txt"), (b"40000", b"d")]
    assert entries(tree)[0].oid == run_git(repository, "rev-parse", "HEAD:a.txt")


def test_a_reader_looks_into_alternates(repository: Path, tmp_path: Path) -> None:
    make_repository(tmp_path / "empty")
    head = run_git(repository, "rev-parse", "HEAD")

    with ObjectReader(tmp_path / "empty/.git", [repository / ".git/objects"]) as reader:
        assert reader.read(f"{head}:a.txt") == ("blob", b"hello\n")


def test_a_reader_of_no_repository_says_so(tmp_path: Path) -> None:
    with ObjectReader(tmp_path) as reader, pytest.raises(GitUnavailable, match="ended before its input"):
        reader.read("HEAD")


def test_nothing_of_git_is_left_running(repository: Path) -> None:
    with ObjectReader(repository / ".git") as reader:
        pid = reader._process.pid

    assert not Path(f"/proc/{pid}").exists() or os.waitpid(pid, os.WNOHANG)


def test_git_is_ended_before_the_disk_is_full(repository: Path, tmp_path: Path) -> None:
    """Nothing waits until it has ended by itself: what else is on the disk needs the rest."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", disk], check=True)
    try:
        room = os.statvfs(disk)
        (disk / "filled").write_bytes(bytes((room.f_bavail - room.f_blocks // 200) * room.f_bsize))
        began = time.monotonic()
        with pytest.raises(OSError, match="No space left") as caught:
            git(["-c", "alias.wait=!sleep 60", "wait"], git_dir=repository / ".git", bounds=Bounds(disk))
        assert caught.value.errno == errno.ENOSPC
        assert time.monotonic() - began < 30
    finally:
        subprocess.run(["umount", disk], check=True)


def test_records_come_as_they_are_written_and_end_in_time(repository: Path) -> None:
    git_dir = repository / ".git"
    run = ["-c", "alias.say=!sh -c", "say"]

    assert list(records([*run, r"printf 'a\0b\n\0'"], git_dir=git_dir, most_bytes=5)) == [b"a", b"b\n"]
    with pytest.raises(GitTooLarge, match="more than 4 bytes"):
        list(records([*run, r"printf 'a\0b\n\0'"], git_dir=git_dir, most_bytes=4))
    with pytest.raises(GitTooSlow, match=r"within 0\.2 s"):
        list(records([*run, "sleep 60"], git_dir=git_dir, most_bytes=4, timeout_seconds=0.2))
    with pytest.raises(GitFailed, match="Not a valid object name"):
        list(records(["ls-tree", "-z", "nothing"], git_dir=git_dir, most_bytes=4))


def test_git_that_reads_what_others_wrote_ends_with_its_worker(repository: Path, tmp_path: Path) -> None:
    """However busy it is: nobody else would end it."""
    os.mkfifo(tmp_path / "never")
    worker = f"""
from pathlib import Path
from flows.gitcommand import Bounds, git
git(["hash-object", {str(tmp_path / "never")!r}], git_dir=Path({str(repository / ".git")!r}), bounds=Bounds(Path("/")))
"""
    process = subprocess.Popen([sys.executable, "-c", worker])

    def waiting() -> list[Path]:
        return [one for one in Path("/proc").glob("[0-9]*/cmdline") if _said(one).endswith(b"/never\0")]

    eventually(lambda: len(waiting()), 1)
    process.kill()
    process.wait()

    eventually(waiting, [])


def _said(cmdline: Path) -> bytes:
    try:
        return cmdline.read_bytes()
    except OSError:  # it has ended
        return b""


def test_a_diff_of_two_trees_can_be_cancelled_and_has_its_time(repository: Path, tmp_path: Path) -> None:
    """git compares line by line, and may take minutes."""
    for number in range(2):
        lines = random.Random(number).choices("abcdefgh", k=2_000_000)
        (repository / "big").write_text("\n".join(lines))
        run_git(repository, "add", "big")
        run_git(repository, "commit", "--quiet", "-m", "x")
    old, new = (run_git(repository, "rev-parse", f"{name}^{{tree}}") for name in ("HEAD~", "HEAD"))
    cancel = Event()
    Timer(0.5, cancel.set).start()
    began = time.monotonic()
    with (
        TreeDiffer(repository / ".git", ["--minimal"], Bounds(tmp_path), cancel) as differ,
        (tmp_path / "out").open("wb") as out,
        pytest.raises(Stopped),
    ):
        differ.diff_to(out, old, new)
    assert time.monotonic() - began < 10


def test_a_path_of_a_megabyte_is_refused_at_once(repository: Path) -> None:
    command = ["-c", "alias.say=!sh -c", "say", "head -c 30000000 /dev/zero | tr '\\0' x"]

    with pytest.raises(GitTooLarge, match="or one too long"):
        list(records(command, git_dir=repository / ".git", most_bytes=100_000_000))
