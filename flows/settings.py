"""What the environment decides, per process. The only module that reads or writes ``os.environ``."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

_OF_ONE_SERVER = ("PREFECT_API_", "PREFECT_CLOUD_", "PREFECT_PROFILE")
"""Prefect variables that say how to reach one certain server: wrong for every other one."""


def home() -> Path:
    """The state folder: ``BATCHWRIGHT_HOME``, else ``~/.local/state/batchwright``. Absolute; may not exist yet."""
    value = os.environ.get("BATCHWRIGHT_HOME")
    return Path(value).expanduser().absolute() if value else Path.home() / ".local" / "state" / "batchwright"


def view_url() -> str | None:
    """Where browsers reach the view of reports (``batchwright view``): ``BATCHWRIGHT_VIEW_URL``, or None."""
    return os.environ.get("BATCHWRIGHT_VIEW_URL", "").rstrip("/") or None


def environment() -> dict[str, str]:
    """A copy of the process's environment: what an `env` entry without a value, or a child process, takes from it."""
    return dict(os.environ)


def instance_tokens() -> tuple[str | None, str | None]:
    """The access token of a Sourcegraph instance's user and the executors' shared token, from upstream's variables."""
    return os.environ.get("SRC_ACCESS_TOKEN"), os.environ.get("EXECUTOR_FRONTEND_PASSWORD")


def executor_environment() -> dict[str, str]:
    """The variables of an executor, as upstream names them: ``EXECUTOR_...``."""
    return {name: value for name, value in os.environ.items() if name.startswith("EXECUTOR_")}


def prefect_api_url() -> str | None:
    """The Prefect server that the user has chosen, or None.

    Looked up where Prefect looks, in its order (prefect/settings/base.py), without the seconds that importing it takes:
    variable, ``.env``, ``prefect.toml``, ``pyproject.toml``, active profile.
    """
    url = (
        os.environ.get("PREFECT_API_URL")
        or _from_dotenv(Path(".env"))
        or _from_toml(Path("prefect.toml"), "api", "url")
        or _from_toml(Path("pyproject.toml"), "tool", "prefect", "api", "url")
        or _from_profile()
    )
    return url.rstrip("/") if url else None


def prefect_ui_url() -> str | None:
    """Where people reach the dashboard, if that is not beside the API's address, from Prefect's own variable."""
    return os.environ.get("PREFECT_UI_URL", "").rstrip("/") or None


def use_prefect(api_url: str, own_home: Path | None = None) -> None:
    """Point this process, and its children, at a Prefect server. Call it before Prefect is imported.

    ``own_home``: the server is the local one of ``flows.server``, with this folder as its Prefect home. Keys and
    profiles of other servers are then left out, and heartbeats come every 30 s (default 180): soon enough to tell a
    dead process from a busy one.
    """
    if own_home is not None:
        for name in [name for name in os.environ if name.startswith(_OF_ONE_SERVER)]:
            del os.environ[name]
        os.environ["PREFECT_HOME"] = str(own_home)
        os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    os.environ["PREFECT_API_URL"] = api_url


def quiet_prefect() -> None:
    """Keep Prefect's log lines off the terminal, unless the user chose a level; they are in the dashboard."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def use_prefect_impatiently() -> None:
    """Let Prefect's client raise at once what it would try again for minutes: somebody waits for our answer."""
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "0")


def _from_dotenv(file: Path) -> str | None:
    found = re.search(r"""(?m)^\s*(?:export\s+)?PREFECT_API_URL\s*=\s*["']?([^\s"'#]+)""", _text(file))
    return found[1] if found else None


def _from_profile() -> str | None:
    prefect_home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or prefect_home / "profiles.toml")
    active = os.environ.get("PREFECT_PROFILE") or _from_toml(file, "active")
    return _from_toml(file, "profiles", active, "PREFECT_API_URL") if active else None


def _from_toml(file: Path, *keys: str) -> str | None:
    """The text at ``keys``. A file that is missing or broken has none: Prefect will complain about it itself."""
    try:
        value: object = tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError:
        return None
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
