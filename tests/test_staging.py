"""What steps see read-only: scripts, files, mounts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.batches.loading import load_spec
from flows.batches.spec import BatchSpec
from flows.staging import SCRIPT_TARGET, StagedMount, stage_files, stage_mounts, stage_script


@pytest.fixture(autouse=True)
def _private_by_default() -> Iterator[None]:
    """A user whose files nobody else may read: the image's user is somebody else."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def spec_of(*paths: str) -> BatchSpec:
    mounts = ", ".join(f"{{path: {path}, mountpoint: /tmp/{number}}}" for number, path in enumerate(paths))
    return load_spec(
        f"name: x\nsteps: [{{run: x, container: i, mount: [{mounts}]}}]\n"
        "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}\n"
    )


def stage(source: Path, folder: Path) -> StagedMount:
    return stage_mounts(spec_of("./it"), {"./it": source}, folder)["./it"]


def test_the_script_can_be_run_by_any_user(tmp_path: Path) -> None:
    staged = stage_script(tmp_path / "spool", "echo \udcff\r\n")

    assert staged.target == SCRIPT_TARGET
    assert staged.source.read_bytes() == b"echo \xff\r\n"
    assert mode_of(staged.source) == 0o755


def test_files_can_be_read_by_any_user(tmp_path: Path) -> None:
    staged = stage_files(tmp_path / "spool", {"/tmp/a": "one", "/etc/deep/a": "two\n"})

    assert [(file.target, file.source.read_text()) for file in staged] == [("/tmp/a", "one"), ("/etc/deep/a", "two\n")]
    assert {mode_of(file.source) for file in staged} == {0o644}


class TestMounts:
    @pytest.fixture
    def tools(self, tmp_path: Path) -> Path:
        folder = tmp_path / "tools"
        (folder / "inner/empty").mkdir(parents=True)
        (folder / "inner/a.txt").write_text("a\n")
        (folder / "run.sh").write_text("echo\n")
        (folder / "run.sh").chmod(0o700)
        (folder / "link").symlink_to("inner/a.txt")
        (folder / "dangling").symlink_to("nowhere")
        return folder

    def test_a_folder_is_copied_readable_by_any_user(self, tools: Path, tmp_path: Path) -> None:
        staged = stage(tools, tmp_path / "mounts")

        copy = staged.source
        assert (copy / "inner/a.txt").read_text() == "a\n"
        assert os.readlink(copy / "link") == "inner/a.txt"
        assert os.readlink(copy / "dangling") == "nowhere"
        modes = {name: mode_of(copy / name) for name in (".", "inner", "inner/empty", "inner/a.txt", "run.sh")}
        assert modes == {".": 0o755, "inner": 0o755, "inner/empty": 0o755, "inner/a.txt": 0o644, "run.sh": 0o755}

    def test_a_file_is_copied(self, tools: Path, tmp_path: Path) -> None:
        staged = stage(tools / "link", tmp_path / "mounts")

        assert staged.source.read_text() == "a\n"
        assert not staged.source.is_symlink()

    def test_later_changes_of_the_original_do_not_reach_a_run(self, tools: Path, tmp_path: Path) -> None:
        staged = stage(tools, tmp_path / "mounts")

        (tools / "inner/a.txt").write_text("changed\n")

        assert (staged.source / "inner/a.txt").read_text() == "a\n"

    def test_the_same_content_is_kept_once(self, tools: Path, tmp_path: Path) -> None:
        first = stage(tools, tmp_path / "mounts")
        os.utime(tools / "run.sh", (1, 1))

        assert stage(tools, tmp_path / "mounts") == first
        assert [path.name for path in (tmp_path / "mounts").iterdir()] == [first.digest]

    def test_runs_at_the_same_moment_share_it(self, tools: Path, tmp_path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            staged = list(pool.map(lambda _: stage(tools, tmp_path / "mounts"), range(8)))

        assert len(set(staged)) == 1
        assert len(list((tmp_path / "mounts").iterdir())) == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda tools: (tools / "inner/a.txt").write_text("b\n"),
            lambda tools: (tools / "inner/a.txt").rename(tools / "inner/b.txt"),
            lambda tools: (tools / "run.sh").chmod(0o600),
            lambda tools: (tools / "inner/empty").rmdir(),
            lambda tools: (tools / "dangling").unlink(),
            lambda tools: [(tools / "link").unlink(), (tools / "link").symlink_to("run.sh")],
            lambda tools: [(tools / "link").unlink(), (tools / "link").write_text("inner/a.txt")],
        ],
        ids=["content", "name", "mode", "folder", "entry", "target", "kind"],
    )
    def test_the_digest_covers_what_a_step_can_see(self, tools: Path, tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
        before = stage(tools, tmp_path / "mounts")

        change(tools)

        assert stage(tools, tmp_path / "mounts").digest != before.digest

    def test_each_path_of_the_spec_is_staged_once(self, tools: Path, tmp_path: Path) -> None:
        spec = spec_of("./tools", "./tools", "./tools/run.sh")

        staged = stage_mounts(spec, {"./tools": tools, "./tools/run.sh": tools / "run.sh"}, tmp_path / "mounts")

        assert sorted(staged) == ["./tools", "./tools/run.sh"]

    def test_what_fails_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            stage(tmp_path / "gone", tmp_path / "mounts")

        assert list((tmp_path / "mounts").iterdir()) == []
