"""The small parts of the executor: its settings, bounded log entries, a diff as a layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.docker_runtime import DockerRuntime
from blocks.sources import location
from flows.batches.jobs import CliStep, Job, JobRefused
from flows.checkout import Checkout, Checkouts
from flows.executor.bounded_text import BoundedText, HeadAndTail
from flows.executor.cli_mode import read_command
from flows.executor.configuration import BadConfiguration, read_configuration
from flows.executor.diff_layer import DiffDoesNotApply, make_layer
from flows.executor.durations import go_seconds
from flows.executor.event_stream import EventStream
from flows.executor.line_watcher import LINE_BYTES, LineWatcher
from flows.layers import UPPER, deleted_list
from flows.mirror import Mirror
from tests.gitrepos import commit_files, make_repository, run_git
from tests.harness import eventually

NEEDED = {"EXECUTOR_FRONTEND_URL": "https://sg.example.com/", "EXECUTOR_FRONTEND_PASSWORD": "the-shared-token"}


def test_upstreams_variables_are_understood() -> None:
    found = read_configuration(
        {
            **NEEDED,
            "EXECUTOR_QUEUE_NAMES": "batches",
            "EXECUTOR_MAXIMUM_NUM_JOBS": "3",
            "EXECUTOR_QUEUE_POLL_INTERVAL": "500ms",
            "EXECUTOR_MAXIMUM_RUNTIME_PER_JOB": "1h30m",
            "EXECUTOR_JOB_MEMORY": "12G",
            "EXECUTOR_JOB_NUM_CPUS": "2",
            "EXECUTOR_USE_FIRECRACKER": "false",
            "PATH": "/bin",
        }
    )

    assert (found.queue.url, found.queue.queue_names) == ("https://sg.example.com", ["batches"])
    assert (found.pace.jobs_at_once, found.pace.poll_seconds, found.pace.job_seconds) == (3, 0.5, 5400)
    assert (found.engine.memory, found.engine.cpus) == ("12g", 2)
    assert found.ignored == ("EXECUTOR_USE_FIRECRACKER",)
    assert "the-shared-token" not in repr(found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"EXECUTOR_FRONTEND_URL": ""}, "EXECUTOR_FRONTEND_URL is not set"),
        ({"EXECUTOR_FRONTEND_URL": "sg.example.com"}, "must be an http"),
        ({"EXECUTOR_QUEUE_NAME": "codeintel"}, "upstream's executor"),
        ({"EXECUTOR_QUEUE_NAME": "batches", "EXECUTOR_QUEUE_NAMES": "batches"}, "both set"),
        ({"EXECUTOR_MAXIMUM_NUM_JOBS": "0"}, "whole number above 0"),
        ({"EXECUTOR_QUEUE_POLL_INTERVAL": "soon"}, "no duration"),
        ({"EXECUTOR_JOB_MEMORY": "much"}, "EXECUTOR_JOB_MEMORY"),
    ],
)
def test_a_setting_that_is_wrong_is_named(change: dict[str, str], told: str) -> None:
    with pytest.raises(BadConfiguration, match=told):
        read_configuration({**NEEDED, **change})


def test_a_jobs_own_passwords_for_registries_come_first() -> None:
    ours, theirs = {"auths": {"a": {"auth": "YTpi"}}}, {"auths": {"b": {"auth": "Yzpk"}}}
    found = read_configuration({**NEEDED, "EXECUTOR_DOCKER_AUTH_CONFIG": json.dumps(ours)})

    without, with_own = (
        found.runtime_for(Job(id=1), False),
        found.runtime_for(Job(id=1, docker_auth_config=theirs), True),
    )

    assert _passwords(without) == ours
    assert _passwords(with_own) == theirs
    assert (without.run_as, with_own.run_as) == ("image", "root")


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s 2s", "-1s"])
def test_only_durations_are_durations(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        go_seconds(text)


def test_a_long_text_keeps_its_head_its_tail_and_what_programs_read() -> None:
    text = BoundedText(head_characters=8, tail_characters=8)

    for number in range(10):
        text.add(f"line {number}\n")
        if number == 5:
            text.add("RESULT\n", keep=True)

    assert text.render("({} lines left out)\n") == "line 0\nline 1\n(7 lines left out)\nRESULT\nline 9\n"


def test_streams_become_whole_lines_with_a_prefix() -> None:
    told: list[str] = []
    watcher = LineWatcher("stdout: ", told.append)

    for piece in (b"a", b"b\nc\r\n", b"\xff", b"x" * (LINE_BYTES + 1)):
        watcher.write(piece)
    watcher.close()

    lines = "".join(told).split("\n")
    assert lines[:2] == ["stdout: ab", "stdout: c\r"]
    assert [len(line) for line in lines[2:]] == [len("stdout: ") + LINE_BYTES, len("stdout: xx"), 0]


def test_lines_come_before_a_silence_as_well() -> None:
    told: list[str] = []
    watcher = LineWatcher("", told.append)

    watcher.write(b"one\n")
    watcher.write(b"two\n")

    eventually(lambda: "".join(told), "one\ntwo\n")
    watcher.close()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["version"], "src version"),
        (["batch", "exec", "-nonsense"], "-nonsense"),
        (["batch", "exec", "-timeout", "x"], "x"),
    ],
)
def test_other_commands_of_src_cli_are_refused(command: list[str], told: str) -> None:
    with pytest.raises(JobRefused, match=told):
        read_command(CliStep(key="k", command=command))


def test_a_diff_becomes_a_layer_of_just_its_files(tmp_path: Path) -> None:
    """Renames, modes, links, binary files and deletions; the checkout itself is not touched."""
    checkout, diff = _checkout_and_diff(tmp_path)

    make_layer(diff, checkout, tmp_path / "layer")

    upper = tmp_path / "layer" / UPPER
    found = sorted(str(path.relative_to(upper)) for path in upper.rglob("*") if path.is_symlink() or path.is_file())
    assert found == ["bin.dat", "dir/moved.txt", "link", "run.sh", "text.txt"]
    assert (upper / "text.txt").read_text() == "one\ntwo\n"
    assert (upper / "bin.dat").read_bytes() == b"\0\1"
    assert (upper / "link").readlink() == Path("text.txt")
    assert (upper / "run.sh").stat().st_mode & 0o777 == 0o777
    assert deleted_list(tmp_path / "layer") == [b"gone.txt", b"old/name.txt"]
    assert (checkout.tree / "gone.txt").exists()


def test_a_diff_reads_nothing_through_links(tmp_path: Path) -> None:
    """A repository's link to a folder of the host must not show what is in it."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").write_text("s")
    make_repository(tmp_path / "app", {"a": "a\n"}, symlinks={"out": str(tmp_path / "host")})
    diff = b"diff --git out/secret out/secret\nold mode 100644\nnew mode 100755\n"

    with pytest.raises(DiffDoesNotApply):
        make_layer(diff, _checkout(tmp_path), tmp_path / "layer")

    assert list((tmp_path / "layer" / UPPER).iterdir()) == []


def _passwords(runtime: DockerRuntime) -> object:
    assert runtime.registry_credentials is not None
    return json.loads(runtime.registry_credentials.get_secret_value())


def _checkout_and_diff(folder: Path) -> tuple[Checkout, bytes]:
    before = {"text.txt": "one\n", "gone.txt": "x\n", "old/name.txt": "1\n2\n3\n", "run.sh": "#!\n", "same": "s\n"}
    make_repository(folder / "app", before)
    checkout = _checkout(folder)
    after = {"text.txt": "one\ntwo\n", "gone.txt": None, "old/name.txt": None, "dir/moved.txt": "1\n2\n3\n"}
    commit_files(folder / "app", {**after, "bin.dat": b"\0\1"}, executable=("run.sh",), symlinks={"link": "text.txt"})
    shown = run_git(folder / "app", "diff", "--no-prefix", "--binary", checkout.commit, "HEAD")
    return checkout, f"{shown}\n".encode()


def _checkout(folder: Path) -> Checkout:
    commit = run_git(folder / "app", "rev-parse", "HEAD")
    mirror = Mirror(folder / "mirrors", location("app", str(folder / "app")))
    mirror.fetch(commit)
    with Checkouts(folder / "checkouts") as checkouts:
        return checkouts.get(mirror.git_dir, commit, "main")


def test_a_workspace_begins_once_however_often_its_set_up_is_tried() -> None:
    lines: list[str] = []
    story = EventStream(lambda line, _keep: lines.append(line))

    story.begins()
    story.begins()

    assert [json.loads(line)["operation"] for line in lines] == ["EXECUTING_TASK"]


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_of_a_long_stream_both_ends_are_kept(pieces: list[bytes]) -> None:
    ends = HeadAndTail(5)
    for piece in pieces:
        ends.write(piece)

    whole = b"".join(pieces)
    cut = whole[:5] + b"\n(... %d bytes left out ...)\n" % (len(whole) - 10) + whole[-5:]
    assert ends.content() == (whole if len(whole) <= 10 else cut)
