"""Steps as authors write them, from their spec to their diff, in real containers: on overlays, and on copies.

The setting that forces copies, on an engine that could mount, is the runtime block's ``workspaces="copy"``.
"""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from blocks.docker_runtime import DockerRuntime
from flows.batches.diff import parse
from flows.batches.loading import load_spec
from flows.batches.steps import Outside
from flows.execution import WorkspaceRun
from flows.staging import stage_mounts
from flows.step_cache import stored
from tests import images
from tests.rooms import BUSYBOX
from tests.workbench import Workbench, spec_of

pytestmark = pytest.mark.docker

FILES = {
    "README.md": "hello\n",
    "src/main.py": "print(1)\n",
    "src/old.py": "old\n",
    "web/app.js": "".join(f"line {number}\n" for number in range(20)),
    ".gitattributes": "*.txt text eol=lf\n",
    ".gitignore": "build/\n*.log\n",
}


@pytest.fixture(scope="module")
def git_image() -> str:
    with closing(docker.APIClient()) as client:
        return images.ensure_host_image(client)


@pytest.fixture(params=["overlay", "copy"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workbench]:
    with closing(docker.APIClient()) as client:
        images.ensure_busybox(client)
    runtime = DockerRuntime(workspaces=request.param, network="none")
    with Workbench(tmp_path, FILES, runtime=runtime) as bench:
        yield bench


def step(script: str, *, container: str = BUSYBOX, **more: object) -> str:
    """One step of a spec. JSON is YAML."""
    return json.dumps({"run": script, "container": container, **more})


def applied(place: Workbench, diff: bytes) -> Path:
    """The repository with a diff applied by git, as an author would."""
    folder = place.folder / "applied"
    subprocess.run(["git", "clone", "-q", place.folder / "app", folder], check=True, capture_output=True)
    subprocess.run(["git", "-C", folder, "apply", "-p0", "-"], input=diff, check=True, capture_output=True)
    return folder


def stream(place: Workbench, run: WorkspaceRun, name: str, index: int = 0) -> bytes:
    blob = getattr(run.results[index], name)
    return place.blobs.get(stored(blob))


# Changes


def test_a_change_of_every_kind_is_in_the_diff_and_can_be_applied(place: Workbench) -> None:
    script = r"""
        printf 'a\0b' > bin; ln -s ../README.md src/link; chmod +x src/main.py; rm src/old.py; mv web app
        rm README.md; mkdir README.md; echo inside > README.md/file
        echo 1 > 'with space'; echo 2 > "q'\"\\"; echo 3 > "$(printf 'new\nline')"; echo 4 > "$(printf 'not\377utf8')"
        mkdir build; echo ignored > build/x; echo ignored > debug.log; printf 'a\r\nb\r\n' > crlf.txt; mkfifo pipe
        mkdir -p lib/.git; echo 'ref: refs/heads/x' > lib/.git/HEAD; echo nested > lib/file; : > empty
    """

    run = place.run(spec_of(step(script)))

    assert run.failure is None
    assert run.executed is not None
    diff = place.blobs.get(stored(run.executed.diff))  # type: ignore[arg-type]  # it has one
    found = {(file.kind, file.path) for file in parse(diff)}
    assert found == {
        ("added", "bin"), ("added", "src/link"), ("modified", "src/main.py"), ("deleted", "src/old.py"),
        ("renamed", "app/app.js"), ("deleted", "README.md"), ("added", "README.md/file"), ("added", "with space"),
        ("added", "q'\"\\"), ("added", "new\nline"), ("added", "not\udcffutf8"), ("added", "crlf.txt"),
        ("added", "lib/file"), ("added", "empty"),
    }  # fmt: skip
    result = applied(place, diff)
    assert (result / "bin").read_bytes() == b"a\0b"
    assert (result / "crlf.txt").read_bytes() == b"a\nb\n"
    assert (result / "src/main.py").stat().st_mode & 0o111


def test_git_in_a_step_knows_what_earlier_steps_made(place: Workbench, git_image: str) -> None:
    """As upstream: it is tracked and staged, so `git checkout`, `git ls-files` and `git diff` see this step alone."""
    second = """
        git ls-files new.txt build; git status --porcelain; echo --
        echo spoilt > new.txt; git diff --name-only; git checkout --quiet .; cat new.txt README.md
    """

    run = place.run(
        spec_of(
            step("echo new > new.txt; echo more >> README.md; rm src/old.py; mkdir build; echo x > build/x"),
            step(second, container=git_image),
        )
    )

    assert run.failure is None
    assert stream(place, run, "stdout", 1).decode() == (
        "new.txt\nM  README.md\nA  new.txt\nD  src/old.py\n--\nnew.txt\nnew\nhello\nmore\n"
    )
    assert stream(place, run, "stderr", 1) == b""
    assert [file.path for file in parse(place.diff(run.executed).encode())] == ["README.md", "new.txt", "src/old.py"]


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
def test_what_an_earlier_step_set_in_git_sees_no_secret_of_a_later_one(place: Workbench, git_image: str) -> None:
    """Nor can it stop it, or say something in its name: what git runs can read it of the first process."""
    first = """
        git config filter.spy.clean 'cat /proc/1/environ > /work/spied; cat'
        git config core.fsmonitor 'touch /work/monitor'
        echo '* filter=spy' > .git/info/attributes; echo x > x
    """

    run = place.run(
        spec_of(
            step(first, container=git_image),
            step("ls # git", container=git_image, env=["TOKEN"]),
            step("ls # git", container=git_image),
        ),
        outside=OUTSIDE,
    )

    assert run.failure is None
    assert stream(place, run, "stdout", 1).split() == [b"README.md", b"src", b"web", b"x"]
    assert b"spied" in stream(place, run, "stdout", 2)  # where no secret is, git is git
    assert b"monitor" not in stream(place, run, "stdout", 2)


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
def test_a_step_with_a_secret_finds_staged_what_harmless_steps_left(place: Workbench, git_image: str) -> None:
    first = "echo x > new; git add new; git -c user.name=a -c user.email=a commit -qm m; git branch b; echo y > other"

    run = place.run(
        spec_of(step(first, container=git_image), step("git status --short", container=git_image, env=["TOKEN"])),
        outside=OUTSIDE,
    )

    assert stream(place, run, "stdout", 1) == b"A  other\n"


# Secrets

SECRET = 's3cret "value"/+'
OUTSIDE = Outside.of(secrets={"TOKEN": SECRET, "OTHER": "never-asked-for"}, variables={"USER": "ada"})


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
@pytest.mark.parametrize(
    "script",
    [
        'echo "$TOKEN" > f',
        'printf "a\\0b%s" "$TOKEN" > f',
        'echo "$TOKEN" | base64 > f',
        'echo "$(head -c 61 /dev/zero | tr "\\\\0" x)$TOKEN" | base64 > f',
        "echo " + shlex.quote(json.dumps(SECRET)) + " > f",
        'mkdir -p "$TOKEN"; echo > "$TOKEN/x"',
        'ln -s "$TOKEN" f',
    ],
    ids=["text", "binary", "base64", "inside base64", "JSON", "a name", "a link"],
)
def test_a_diff_with_a_secret_stops_the_workspace(place: Workbench, script: str) -> None:
    run = place.run(spec_of(step(script, env=["TOKEN"]), step("echo never")), outside=OUTSIDE)

    assert run.failure is not None
    assert (run.failure.reason, len(run.results)) == ("secret_in_diff", 1)
    assert "the diff contains the value of the secret TOKEN" in run.failure.message
    assert run.results[0].diff is None


def test_people_and_stored_things_never_see_a_secret(place: Workbench) -> None:
    """A step sees what it asks for, the rest is not even in its environment; what it prints is masked."""
    script = """
        env; echo "$TOKEN" | base64; printf %s "$TOKEN" | head -c 5; sleep 1; printf %s "$TOKEN" | tail -c +6 >&2
        printf %s "$TOKEN" | head -c 5 >&2; sleep 1; printf %s "$TOKEN" | tail -c +6 >&2; echo "$USER" "$HOME2"; exit 3
    """
    entries = ["TOKEN", "USER", {"HOME2": "${{ repository.name }}"}]

    run = place.run(spec_of(step(script, env=entries)), outside=OUTSIDE)

    assert run.failure is not None
    stdout, stderr = stream(place, run, "stdout"), stream(place, run, "stderr")
    assert b"TOKEN=${{ secrets.TOKEN }}\n" in stdout
    assert b"OTHER" not in stdout
    assert stdout.endswith(b"ada github.com/acme/app\n")
    assert stderr.endswith(b"${{ secrets.TOKEN }}")
    rendered = run.results[0].rendered
    assert rendered is not None
    assert rendered.environment == {
        "TOKEN": "${{ secrets.TOKEN }}", "USER": "ada", "HOME2": "github.com/acme/app"
    }  # fmt: skip
    kept = b"".join(path.read_bytes() for path in (place.folder / "store").rglob("*") if path.is_file())
    shown = "\n".join(place.shown) + run.failure.message + run.results[0].model_dump_json()
    for form in (SECRET, base64.b64encode(SECRET.encode()).decode(), json.dumps(SECRET)[1:-1], "never-asked-for"):
        assert form.encode() not in kept
        assert form not in shown


# Streams


def test_output_is_kept_byte_for_byte_and_shown_in_part(place: Workbench) -> None:
    script = r"""
        printf 'a\0\377\376'; printf 'e\200' >&2; head -c 10000000 /dev/zero | tr '\0' x; echo; yes y | head -c 2000000
        sleep 60 & printf last
    """

    run = place.run(spec_of(step(script)))

    assert run.failure is None
    expected = b"a\0\xff\xfe" + b"x" * 10_000_000 + b"\n" + b"y\n" * 1_000_000 + b"last"
    assert stream(place, run, "stdout") == expected
    assert stream(place, run, "stderr") == b"e\x80"
    shown = "\n".join(place.shown).split("\n")
    assert len(shown) < 300
    assert "step 1 stdout | last" in shown
    assert any("lines are in the store only" in line for line in shown)


# Images and files


def test_an_image_that_lets_nobody_write_runs_steps_with_files(place: Workbench) -> None:
    """All its folders are closed; the workspace is open all the same, and the files leave no trace in it."""
    with closing(docker.APIClient()) as client:
        tag = images.ensure_variant(client, "closed")
    files = {
        "/opt/deep/er/x.txt": "x ${{ repository.name }}\n",
        "/work/tools/y": "no newline \u00fc",
        "/work/README.md": "z",
        "/odd pl:ace/='$x": "odd",
    }
    script = """
        cat /opt/deep/er/x.txt tools/y README.md /odd*/*; echo; ls -l tools/y
        echo > tools/y; echo new > new; touch /x || true
    """

    run = place.run(spec_of(step(script, container=tag, files=files)))

    assert run.failure is None
    shown = stream(place, run, "stdout").decode()
    assert shown.startswith("x github.com/acme/app\nno newline \u00fczodd\n-r")
    assert stream(place, run, "stderr").count(b"denied") + stream(place, run, "stderr").count(b"Read-only") == 2
    assert [file.path for file in parse(place.diff(run.executed).encode())] == ["new"]


def test_mounts_are_shown_as_they_are_and_leave_no_trace(place: Workbench, tmp_path: Path) -> None:
    """A folder below the workspace, a binary file at a place of its own, for a user who owns neither."""
    with closing(docker.APIClient()) as client:
        tag = images.ensure_variant(client, "closed")
    tools, key = tmp_path / "spec/tools", tmp_path / "spec/key.bin"
    (tools / "deep").mkdir(parents=True)
    (tools / "deep/run").write_text("#!/bin/sh\necho ran\n")
    (tools / "deep/run").chmod(0o700)
    (tools / "link").symlink_to("deep/run")
    key.write_bytes(b"\0\xff\r\n")
    key.chmod(0o600)
    mounts = [{"path": "tools", "mountpoint": "/work/ci/tools"}, {"path": "key.bin", "mountpoint": "/keys/k"}]
    script = "ci/tools/link; cat /keys/k; echo x > ci/tools/new; echo x > /keys/k; echo new > new; ls ci"
    spec = spec_of(step(script, container=tag, mount=mounts))
    staged = stage_mounts(load_spec(spec), {"tools": tools, "key.bin": key}, tmp_path / "staged")

    run = place.run(spec, mounts=staged)

    assert run.failure is None
    assert stream(place, run, "stdout") == b"ran\n\0\xff\r\ntools\n"
    assert key.read_bytes() == b"\0\xff\r\n"
    assert [file.path for file in parse(place.diff(run.executed).encode())] == ["new"]
