from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import settings

PROFILES = """
active = "team"
[profiles.team]
PREFECT_API_URL = "http://team:4200/api"
[profiles.lab]
PREFECT_API_URL = "http://lab:4200/api"
[profiles.empty]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, also the current folder, and an environment without Prefect."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "BATCHWRIGHT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_state_folder_is_below_the_users_home(here: Path) -> None:
    assert settings.home() == here / ".local" / "state" / "batchwright"


@pytest.mark.parametrize(("value", "place"), [("state", "state"), ("~/elsewhere", "elsewhere")])
def test_the_state_folder_can_be_chosen(here: Path, monkeypatch: pytest.MonkeyPatch, value: str, place: str) -> None:
    monkeypatch.setenv("BATCHWRIGHT_HOME", value)

    assert settings.home() == here / place


def test_no_server_is_chosen_by_default() -> None:
    assert settings.prefect_api_url() is None


def test_the_choice_is_looked_up_in_prefects_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variable, .env, prefect.toml, pyproject.toml, profile: each wins over those that were there before."""
    (here / ".prefect").mkdir()
    (here / ".prefect" / "profiles.toml").write_text(PROFILES)
    seen = [settings.prefect_api_url()]
    (here / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://pyproject/api"\n')
    seen.append(settings.prefect_api_url())
    (here / "prefect.toml").write_text('[api]\nurl = "http://toml/api"\n')
    seen.append(settings.prefect_api_url())
    (here / ".env").write_text("OTHER=1\nexport PREFECT_API_URL='http://dotenv/api' # ours\n")
    seen.append(settings.prefect_api_url())
    monkeypatch.setenv("PREFECT_API_URL", "http://variable/api/")
    seen.append(settings.prefect_api_url())

    assert seen == [
        "http://team:4200/api",
        "http://pyproject/api",
        "http://toml/api",
        "http://dotenv/api",
        "http://variable/api",
    ]


@pytest.mark.parametrize(
    ("profile", "url"),
    [("lab", "http://lab:4200/api"), ("empty", None), ("unknown", None), ("", "http://team:4200/api")],
)
def test_a_profile_can_be_chosen_by_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, profile: str, url: str | None
) -> None:
    (here / "profiles.toml").write_text(PROFILES)
    monkeypatch.setenv("PREFECT_HOME", str(here))
    monkeypatch.setenv("PREFECT_PROFILE", profile)

    assert settings.prefect_api_url() == url


def test_a_broken_profile_file_chooses_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "profiles.toml").write_text("active = ")
    monkeypatch.setenv("PREFECT_HOME", str(here))

    assert settings.prefect_api_url() is None


def test_the_local_server_gets_no_keys_of_another_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ |= {"PREFECT_API_KEY": "secret", "PREFECT_PROFILE": "team", "PREFECT_LOGGING_LEVEL": "DEBUG"}

    settings.use_prefect("http://127.0.0.1:4200/api", here)

    assert {name: value for name, value in settings.environment().items() if name.startswith("PREFECT_")} == {
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_HOME": str(here),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
    }


def test_a_configured_server_keeps_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"PREFECT_API_KEY": "secret"})

    settings.use_prefect("http://team:4200/api")

    assert settings.environment()["PREFECT_API_KEY"] == "secret"
    assert settings.environment()["PREFECT_API_URL"] == "http://team:4200/api"
