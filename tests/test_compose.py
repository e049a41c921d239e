"""The server for a team, infra/compose.yaml: what can be said of it without images from a registry."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from flows.cli import app
from flows.server import SERVER_SETTINGS

FILE = Path(__file__).parent.parent / "infra" / "compose.yaml"
TEXT = "\n".join(line.partition(" #")[0] for line in FILE.read_text().splitlines() if not line.startswith("#"))
DOCUMENT: dict[str, Any] = YAML(typ="safe").load(FILE)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "batchwright"]


def test_the_server_is_set_as_the_local_one() -> None:
    """The batching settings above all: without them a task costs four times as much."""
    assert SERVER_SETTINGS.items() <= SERVICES["server"]["environment"].items()


def test_every_variable_has_a_default_or_is_asked_for() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", TEXT))
    plain = set(re.findall(r"\$\{(\w+)\}", TEXT))

    assert plain <= asked
    assert asked == {"BATCHWRIGHT_AUTH", "STORE_KEY", "STORE_SECRET", "DATABASE_PASSWORD"}


def test_debians_compose_reads_it() -> None:
    """Version 1.29, which refuses what it does not know, a name for all of it too."""
    assert {key for key in DOCUMENT if not key.startswith("x-")} == {"services", "volumes"}


def test_the_image_takes_what_the_lock_says_and_nothing_else() -> None:
    """Where pip looks for dependencies of its own, one that asks for an extra has no hash and ends the build."""
    installs = [line for line in FILE.with_name("Dockerfile").read_text().splitlines() if "pip install" in line]

    assert len(installs) == 2
    assert all("--no-deps" in line for line in installs)


def test_no_password_stands_in_it() -> None:
    secret = re.compile(r"(?i)(PASSWORD|SECRET\w*|AUTH_STRING\w*): +(?!\$\{)\S")

    assert not secret.search(TEXT)


@pytest.mark.parametrize("name", [name for name in OURS if SERVICES[name]["command"].startswith("batchwright ")])
def test_its_commands_are_ours(name: str) -> None:
    _, *words = shlex.split(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", SERVICES[name]["command"]))
    group = typer.main.get_command(app)

    with group.make_context("batchwright", list(words)) as context:
        _, command, arguments = group.resolve_command(context, list(words))  # type: ignore[attr-defined]
        assert command.make_context(words[0], arguments, parent=context).params


def test_workers_see_the_state_folder_under_the_engines_path() -> None:
    """Else the engine could not mount a workspace of theirs as an overlay."""
    for name in ("deploy", "worker"):
        (state,) = (volume for volume in SERVICES[name]["volumes"] if "BATCHWRIGHT_HOME" in volume)

        outside, inside = state.replace(":-", "=-").split(":")
        assert outside == inside
        assert SERVICES[name]["environment"]["BATCHWRIGHT_HOME"] == outside.replace("=-", ":-")
