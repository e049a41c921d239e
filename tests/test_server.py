"""The local Prefect server, for real: one is started for all tests of this module."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from flows import server
from flows.server import LocalServer, ServerUnavailable
from tests.harness import Api
from tests.ports import free_port

OF_ANOTHER_SERVER = {
    "PREFECT_API_KEY": "a key of another server",
    "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////nowhere/other.db",
    "PREFECT_PROFILE": "of-another-server",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", autouse=True)
def _unconfigured(home: Path) -> Iterator[None]:
    """A user whose variables speak of another server, but choose none."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        for name, value in OF_ANOTHER_SERVER.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(home))
        patch.chdir(home)
        yield


@pytest.fixture(scope="module")
def pair(home: Path) -> Iterator[tuple[LocalServer, LocalServer]]:
    """What two commands get that ask at the same moment."""
    try:
        port = free_port()
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(server.find_or_start, home, preferred_port=port) for _ in range(2)]
            yield both[0].result(), both[1].result()
    finally:
        server.stop(home)


@pytest.mark.flow
def test_commands_at_the_same_moment_start_one_server(pair: tuple[LocalServer, LocalServer]) -> None:
    one, two = pair

    assert one.api_url == two.api_url
    assert {one.started, two.started} == {True, False}


@pytest.mark.flow
def test_a_running_server_is_found_quickly(pair: tuple[LocalServer, LocalServer], home: Path) -> None:
    waits: list[float] = []

    found = server.find_or_start(home, progress=waits.append)

    assert found == LocalServer(pair[0].api_url, pair[0].ui_url, started=False, own_home=home / "prefect")
    assert waits == []


@pytest.mark.flow
def test_the_ui_asks_the_server_that_serves_it(pair: tuple[LocalServer, LocalServer]) -> None:
    """Without being told, Prefect's UI asks port 4200, whatever port its server has."""
    ui_settings = Api(pair[0].ui_url).ask("GET", "ui-settings")

    assert isinstance(ui_settings, dict)
    assert ui_settings["api_url"] == pair[0].api_url


@pytest.mark.flow
def test_the_settings_of_other_servers_stay_out(pair: tuple[LocalServer, LocalServer], home: Path) -> None:
    effective = Api(pair[0].api_url).ask("GET", "admin/settings")

    assert isinstance(effective, dict)
    assert effective["home"] == str(home / "prefect")
    assert effective["api"]["key"] is None
    assert effective["server"]["analytics_enabled"] is False
    assert (home / "prefect" / "prefect.db").exists()


@pytest.mark.flow
def test_many_at_once_are_all_answered(pair: tuple[LocalServer, LocalServer], home: Path) -> None:
    """Prefect's own begins transactions on SQLite as readers: those that write later fail, or wait for a minute."""
    api = Api(pair[0].api_url)
    flow = api.post("flows/", {"name": "busy"})["id"]
    state = {"type": "PENDING"}

    def work(number: int) -> set[int]:
        """Begin runs and tell of events, as a few flow runs do at the same time."""
        statuses = set()
        for _ in range(10):
            event = {
                "id": str(uuid4()),
                "occurred": datetime.now(UTC).isoformat(),
                "event": "prefect.flow-run.Running",
                "resource": {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"},
            }
            for path, body in (("flow_runs/", {"flow_id": flow, "state": state}), ("events", [event])):
                statuses.add(httpx.post(f"{api.url}/{path}", json=body, timeout=30).status_code)
        return statuses

    with ThreadPoolExecutor(8) as pool:
        assert set.union(*pool.map(work, range(8))) <= {201, 204}
    assert "database is locked" not in (home / "prefect" / "server.log").read_text()


@pytest.mark.flow
def test_a_configured_server_is_used_as_it_is(
    pair: tuple[LocalServer, LocalServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", pair[0].api_url)

    found = server.find_or_start(tmp_path)

    assert found == LocalServer(pair[0].api_url, pair[0].ui_url, started=False, own_home=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.flow
def test_a_server_comes_back_at_its_address_with_its_runs(
    pair: tuple[LocalServer, LocalServer], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a user who has exported the address that was printed: it is still ours to start."""
    address = pair[0].api_url
    flow = Api(address).post("flows/", {"name": "kept"})
    monkeypatch.setenv("PREFECT_API_URL", address)

    stopped = server.stop(home)
    again = server.find_or_start(home)

    assert (stopped, again.api_url, again.started) == (True, address, True)
    assert Api(address).ask("GET", "flows/name/kept") == flow


@pytest.mark.flow
def test_a_server_whose_environment_was_removed_is_replaced(pair: tuple[LocalServer, LocalServer], home: Path) -> None:
    """A checkout deleted while its server runs: it would answer, without the pages and modules it has not read yet."""
    record = home / "prefect" / "server.json"
    before = json.loads(record.read_text())
    record.write_text(json.dumps(before | {"python": str(home / "removed" / "python")}))

    found = server.find_or_start(home)

    assert (found.api_url, found.started) == (pair[0].api_url, True)
    assert not Path(f"/proc/{before['pid']}/exe").exists()


@pytest.mark.flow
def test_people_are_shown_the_dashboards_own_address(
    pair: tuple[LocalServer, LocalServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy, or in the network of containers, the API's address is none that a browser reaches."""
    monkeypatch.setenv("PREFECT_API_URL", pair[0].api_url)
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example/")

    found = server.find_or_start(tmp_path)

    assert (found.api_url, found.ui_url) == (pair[0].api_url, "https://prefect.example")


def test_a_configured_server_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")

    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9/api does not answer .*unset PREFECT_API_URL"):
        server.find_or_start(tmp_path)


@pytest.mark.flow
def test_a_server_that_cannot_start_shows_why(tmp_path: Path) -> None:
    (tmp_path / "prefect" / "prefect.db").mkdir(parents=True)

    with pytest.raises(ServerUnavailable, match=r"(?s)ended while it started.*unable to open database file"):
        server.find_or_start(tmp_path, preferred_port=free_port())


def test_stop_leaves_a_process_alone_that_took_the_number_over(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    record = {"port": 9, "pid": os.getpid(), "birth": "another", "python": "python"}
    (tmp_path / "prefect" / "server.json").write_text(json.dumps(record))

    assert server.stop(tmp_path) is False


@pytest.mark.parametrize("remains", ["", "{", "[]", '{"pid": 1}'])
def test_a_broken_record_is_no_record(tmp_path: Path, remains: str) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.json").write_text(remains)

    assert server.stop(tmp_path) is False
