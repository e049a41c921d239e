"""The view: a web server that shows what the store has of runs, and nothing else."""

from __future__ import annotations

import http.client
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from blocks.folder import FolderStore
from blocks.store import ArtifactStore
from flows.report import keep_report
from flows.view import address, serve
from tests.browser import Eyes
from tests.test_report import DIFF, Run

OUTPUT = "<b>not markup</b>\n"


class Site:
    """A view of one store, local-artifacts/mine, and somebody who asks."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.base = "/local-artifacts/mine/runs/demo-0123456789ab/"

    def ask(
        self, path: str, *, method: str = "GET", host: str | None = None, auth: str | None = None
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            headers = {"Host": host or f"{self.host}:{self.port}"}
            if auth:
                headers["Authorization"] = f"Basic {b64encode(auth.encode()).decode()}"
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())
        finally:
            connection.close()


@contextmanager
def serving(folder: Path, *names: str, auth: str | None = None) -> Iterator[Site]:
    def stores(block_type: str, name: str) -> ArtifactStore:
        return {("local-artifacts", "mine"): FolderStore(folder)}[block_type, name]

    with serve("127.0.0.1", 0, stores, names=names, auth=auth) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Site("127.0.0.1", server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    (folder / "secret").write_text("s3cret-value")
    run = Run(folder / "store")
    run.workspace("acme/app", run.step(1, output=OUTPUT), run.step(2, how="skipped"), diff=DIFF, changeset_specs=(1,))
    run.workspace("acme/none")
    run.end()
    keep_report(run.ledger)
    return folder / "store"


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with serving(folder, "reports.example.com") as site:
        yield site


def test_a_report_comes_with_a_policy_that_lets_it_do_nothing_but_show_itself(site: Site) -> None:
    status, page, headers = site.ask(site.base)

    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.count('class="workspace"') == 2
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("frame-ancestors 'none'; sandbox allow-scripts")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert site.ask(site.base, method="HEAD")[:2] == (200, "")


def test_diffs_and_output_come_as_plain_text(site: Site) -> None:
    diff = site.ask(f"{site.base}diffs/1.patch")
    output = site.ask(f"{site.base}logs/1-1.stdout")

    assert diff[:2] == (200, DIFF)
    assert output[:2] == (200, OUTPUT)
    assert {each[2]["Content-Type"] for each in (diff, output)} == {"text/plain; charset=utf-8"}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/local-artifacts/",
        "/local-artifacts/mine/",
        "/local-artifacts/mine/runs/",
        "/local-artifacts/mine/runs/demo-0123456789ab/manifest.json",
        "/local-artifacts/mine/runs/demo-0123456789ab/spec.yaml",
        "/local-artifacts/mine/runs/demo-0123456789ab/../../../secret",
        "/local-artifacts/mine/runs/..%2f..%2fsecret/",
        "/local-artifacts/mine/runs/%2e%2e/",
        "/local-artifacts/mine/runs/%00/",
        "/local-artifacts/mine/runs/no-such-run/",
        "/local-artifacts/other/runs/demo-0123456789ab/",
        "/docker-runtime/mine/runs/demo-0123456789ab/",
        "/local-artifacts/mine/runs/demo-0123456789ab/diffs/2.patch",
        "/local-artifacts/mine/runs/demo-0123456789ab/diffs/3.patch",
        "/local-artifacts/mine/runs/demo-0123456789ab/diffs/0.patch",
        "/local-artifacts/mine/runs/demo-0123456789ab/logs/1-2.stdout",
        "/local-artifacts/mine/runs/demo-0123456789ab/logs/1-3.stderr",
    ],
)
def test_there_is_nothing_else(site: Site, path: str) -> None:
    """No listing, no other document, nothing outside."""
    status, text, headers = site.ask(path)

    assert status == 404
    assert "s3cret" not in text
    assert headers["Content-Type"].startswith("text/plain")


def test_other_methods_are_not_understood(site: Site) -> None:
    assert [site.ask(site.base, method=method)[0] for method in ("POST", "PUT", "DELETE")] == [501, 501, 501]


def test_a_page_of_somebody_else_cannot_read_it_under_its_own_name(site: Site) -> None:
    """DNS rebinding."""
    status, page, _ = site.ask(site.base, host=f"evil.example:{site.port}")

    assert (status, "acme/app" in page) == (421, False)
    assert site.ask(site.base, host="reports.example.com")[0] == 200


def test_it_asks_for_the_dashboards_password(folder: Path) -> None:
    with serving(folder, auth="admin:s3cret") as site:
        answers = [site.ask(site.base, auth=auth) for auth in (None, "admin:wrong", "admin:s3cret")]

    assert [status for status, _, _ in answers] == [401, 401, 200]
    assert answers[0][2]["WWW-Authenticate"].startswith("Basic ")
    assert "acme/app" not in answers[0][1] + answers[1][1]


def test_a_run_that_goes_on_is_shown_as_far_as_it_is_and_an_outdated_report_anew(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.end()
    ledger = run.ledger
    ledger.keep_manifest(ledger.manifest().model_copy(update={"ended_at": None, "state": "running"}))
    run.workspace("acme/first", run.step(1))
    ledger.keep_workspace(1, run.results[0])

    with serving(tmp_path) as site:
        running = site.ask(site.base)[1]
        run.end()
        ledger.store.put(ledger.key("report.html"), b"<!doctype html>\n<!-- batchwright report, page 0 -->old")
        renewed = site.ask(site.base)[1]

    assert "acme/first" in running
    assert "running</span>" in running
    assert "acme/first" in renewed
    assert "running</span>" not in renewed


def test_its_address_can_be_asked_whatever_the_run_is_called(site: Site) -> None:
    assert address("http://v", "local-artifacts", "mine", "a b/c") == "http://v/local-artifacts/mine/runs/a%20b%2Fc/"
    assert site.ask(address("", "local-artifacts", "mine", "demo-0123456789ab"))[0] == 200


@pytest.mark.browser
def test_a_browser_opens_the_report_and_what_lies_beside_it(site: Site, eyes: Eyes) -> None:
    page = eyes.page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))

    page.goto(f"http://127.0.0.1:{site.port}{site.base}#w1")
    page.locator("#w1 .sides").first.wait_for()
    page.locator("#w1 .step > summary").first.click()
    page.get_by_role("link", name="stdout").click()

    page.wait_for_url("**/logs/1-1.stdout")
    assert page.locator("body").inner_text().strip() == OUTPUT.strip()
    assert [text for text in troubles if "favicon" not in text] == []
