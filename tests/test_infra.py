"""The scripts behind the README's two commands: what can be checked without installing anything."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
COMMANDS = ("infra/setup", "infra/demo", "infra/test", ".ci/run")
SPECS = sorted((ROOT / "tests" / "specs").glob("*.yaml"))
IMAGE = "batchwright/busybox:1"

DOCKERD = f"""#!{sys.executable}
import http.server, os, pathlib, socketserver, sys

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
pathlib.Path(options["--pidfile"]).write_text(str(os.getpid()))
print("dockerd says", *sys.argv[1:], flush=True)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{{"Version": "27.0", "ApiVersion": "1.41"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "somebody"

if "--broken" in options:
    sys.exit("no cgroups here")
socketserver.UnixStreamServer(options["--host"].removeprefix("unix://"), Answer).serve_forever()
"""
"""Stands in for the engine: a real one is not started for a test."""

SUDO = '#!/bin/sh\nshift\nexec "$@"\n'
"""For who is not root: without asking anybody."""


def bash(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script that may use the functions of setup."""
    return subprocess.run(
        ("bash", "-c", f"set -euo pipefail\nsource infra/setup\n{script}"),
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def path_with(folder: Path) -> str:
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_executable_and_parse(command: str) -> None:
    file = ROOT / command

    parsed = subprocess.run(("bash", "-n", file), capture_output=True, text=True, check=False)

    assert (parsed.returncode, parsed.stderr) == (0, "")
    assert os.access(file, os.X_OK)
    assert "\nset -euo pipefail\n" in file.read_text()


def test_an_engine_that_we_start_outlives_us(tmp_path: Path) -> None:
    program(tmp_path / "bin", "dockerd", DOCKERD)
    socket = f"unix://{tmp_path}/engine.sock"

    done = bash(
        f"ENGINE_STATE={tmp_path}/state; ENGINE_OPTIONS=(--host {socket}); start_engine; await_engine",
        PATH=path_with(tmp_path / "bin"),
        DOCKER_HOST=socket,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, f"Docker 27.0 at {socket}\n", "")
    os.kill(int((tmp_path / "state" / "dockerd.pid").read_text()), signal.SIGTERM)


def test_an_engine_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    program(tmp_path / "bin", "dockerd", DOCKERD)
    socket = f"unix://{tmp_path}/engine.sock"

    done = bash(
        f"ENGINE_STATE={tmp_path}/state; ENGINE_OPTIONS=(--broken 1); ENGINE_SECONDS=1; start_engine; await_engine",
        PATH=path_with(tmp_path / "bin"),
        DOCKER_HOST=socket,
    )

    assert done.returncode == 1
    assert "no cgroups here" in done.stderr
    assert f"error: the engine was started, but does not answer: no container engine answers at {socket}" in done.stderr


def test_the_engine_is_started_with_its_defaults() -> None:
    """Options would change an engine that others may use; --bridge=none even deletes another engine's bridge."""
    done = bash('echo "${#ENGINE_OPTIONS[@]}"')

    assert done.stdout == "0\n"


def test_no_engine_is_started_where_the_user_has_named_one(tmp_path: Path) -> None:
    program(tmp_path / "bin", "dockerd", '#!/bin/sh\ntouch "$(dirname "$0")/started"\n')

    done = bash("setup_engine", PATH=path_with(tmp_path / "bin"), DOCKER_HOST=f"unix://{tmp_path}/none.sock")

    assert done.returncode == 1
    assert "none.sock (No such file or directory). DOCKER_HOST says where the engine is" in done.stderr
    assert not (tmp_path / "bin" / "started").exists()


def test_packages_come_from_the_distribution_without_what_is_recommended(tmp_path: Path) -> None:
    program(tmp_path / "bin", "sudo", SUDO)
    program(tmp_path / "bin", "apt-get", f'#!/bin/sh\necho "$DEBIAN_FRONTEND $*" >> {tmp_path}/calls\n')

    done = bash(f"STATE={tmp_path}; install_packages docker.io iptables", PATH=path_with(tmp_path / "bin"))

    assert done.stdout == "packages   installed from the distribution: docker.io iptables\n"
    assert (tmp_path / "calls").read_text().splitlines() == [
        "noninteractive -o DPkg::Lock::Timeout=300 -y update",
        "noninteractive -o DPkg::Lock::Timeout=300 -y install --no-install-recommends docker.io iptables",
    ]


def test_packages_that_cannot_be_installed_show_why(tmp_path: Path) -> None:
    program(tmp_path / "bin", "sudo", SUDO)
    program(tmp_path / "bin", "apt-get", "#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")

    done = bash(f"STATE={tmp_path}; install_packages docker.io", PATH=path_with(tmp_path / "bin"))

    assert done.returncode == 1
    assert "E: Unable to locate package" in done.stderr
    assert "error: cannot install docker.io with apt-get" in done.stderr


def test_a_shim_without_a_program_behind_it_is_not_taken_for_uv(tmp_path: Path) -> None:
    program(tmp_path / "bin", "uv", "#!/bin/sh\nexit 127\n")
    program(tmp_path / "tool", "uv", "#!/bin/sh\necho uv 1.0\n")
    (tmp_path / "tool" / "bin").mkdir()
    (tmp_path / "tool" / "uv").rename(tmp_path / "tool" / "bin" / "uv")

    done = bash(f"STATE={tmp_path}; working_uv", PATH=path_with(tmp_path / "bin"))

    assert done.stdout == f"{tmp_path}/tool/bin/uv\n"


def test_an_environment_made_from_another_lock_is_not_current(tmp_path: Path) -> None:
    """The digest covers lock, project and place; an interrupted installation has none."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    check = f"VENV={tmp_path}; if environment_is_current; then echo current; else echo stale; fi"

    never = bash(check).stdout
    (tmp_path / "batchwright.digest").write_text(bash("environment_digest").stdout)
    same = bash(check).stdout
    moved = bash(f"ROOT=/elsewhere; {check}").stdout

    assert (never, same, moved) == ("stale\n", "current\n", "stale\n")


def test_the_lock_names_no_host_and_has_a_hash_for_everything() -> None:
    lock = (ROOT / "infra" / "requirements.lock").read_text()

    assert not re.findall(r"\w+://|^-", lock, re.M)
    requirements = re.sub(r"(?m)\A(?:#.*\n)+", "", lock)  # how the lock was made
    for requirement in re.split(r"\n(?=\S)", requirements.strip()):
        assert "--hash=sha256:" in requirement, requirement


def test_the_lock_holds_all_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    locked = set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", (ROOT / "infra" / "requirements.lock").read_text(), re.M))

    names = {re.split(r"[\[<>=;~! ]", line)[0].lower().replace("_", "-").replace(".", "-") for line in asked}

    assert {name for name in names if name not in {entry.replace(".", "-") for entry in locked}} == set()


def make_repositories(folder: Path) -> str:
    made = subprocess.run(
        (sys.executable, "infra/demo_repositories.py", folder), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return made.stdout


def heads(folder: Path) -> dict[str, str]:
    """The branches and commits of all repositories below ``folder``, by name."""
    return {
        str(repository.parent.relative_to(folder)): subprocess.run(
            ("git", "for-each-ref", "--format=%(refname) %(objectname) %(HEAD)"),
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for repository in folder.glob("*/*/*/.git")
    }


def test_the_demo_repositories_are_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the user's git is set to: the step cache, and the tests, rely on the commits."""
    make_repositories(tmp_path / "one")
    (tmp_path / ".gitconfig").write_text("[core]\nautocrlf = true\n[commit]\ngpgsign = true\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00Z")
    make_repositories(tmp_path / "two")

    assert heads(tmp_path / "one") == heads(tmp_path / "two")
    assert len(heads(tmp_path / "one")) == 8


def test_demo_repositories_that_are_there_are_left_alone(tmp_path: Path) -> None:
    make_repositories(tmp_path)
    changed = tmp_path / "github.com" / "acme" / "shop" / "README.md"
    changed.write_text("mine")

    said = make_repositories(tmp_path)

    assert said.startswith("demo       0 of 8 repositories made")
    assert changed.read_text() == "mine"


@pytest.mark.parametrize("spec", SPECS, ids=lambda file: file.stem)
def test_example_specs_need_no_registry(spec: Path) -> None:
    steps = YAML(typ="safe").load(spec.read_text())["steps"]

    assert {step["container"] for step in steps} == {IMAGE}
