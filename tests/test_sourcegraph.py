"""The Sourcegraph Instance block against the fake instance: real HTTP, real git, real faults."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from blocks import instance_client
from blocks.instance_client import retry_after
from blocks.instance_errors import (
    InstanceForbidden,
    InstanceMissing,
    InstanceRefused,
    InstanceUnavailable,
    InstanceWaitStopped,
)
from blocks.instance_search import events
from blocks.sourcegraph import SourcegraphInstance
from flows.batches.errors import PermanentError, ResolutionError, TemporaryError
from flows.batches.loading import load_spec
from flows.resolution import Resolution, resolve
from tests.engines import make_certificates
from tests.gitrepos import run_git
from tests.instance.launcher import Account, RunningInstance

EXECUTORS = "the-shared-token-of-executors"
SHOP, BILLING, SECRET, LEGACY = (f"github.com/acme/{name}" for name in ("shop", "billing", "secret", "legacy"))
ELSEWHERE, EMPTY = "other.example/acme/tool", "github.com/acme/empty"


@dataclass(frozen=True)
class World:
    """An instance with repositories, and two users: ada sees all of them, bob not the private one."""

    instance: RunningInstance
    ada: Account
    bob: Account
    commits: dict[str, str]

    def block(self, user: Account | None = None, **settings: object) -> SourcegraphInstance:
        """The instance as one of them has it."""
        return SourcegraphInstance(
            url=self.instance.url,
            token=SecretStr((user or self.ada).token),
            executor_token=SecretStr(EXECUTORS),
            **{"patience_seconds": 5, **settings},  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with RunningInstance(tmp_path_factory.mktemp("instance")) as instance:
        ada, bob = instance.add_user("ada"), instance.add_user("bob")
        instance.set("executors.accessToken", EXECUTORS)
        files = {
            SHOP: {"README.md": "mirror.acme.example\n", "web/go.mod": "m\n", "web2/x": "mirror.acme.example\n"},
            BILLING: {"a/go.mod": "mirror.acme.example\n", "a/b/go.mod": "m\n", "go.mod": "m\n"},
            LEGACY: {".batchignore": "", "x": "mirror.acme.example\n"},
        }
        commits = {name: instance.add_repository(name, content)[1] for name, content in files.items()}
        _, commits[ELSEWHERE] = instance.add_repository(ELSEWHERE, {"x": "mirror.acme.example\n"}, service_type="other")
        _, commits[SECRET] = instance.add_repository(
            SECRET, {"x": "mirror.acme.example\n"}, private=True, readers=["ada"]
        )
        instance.add_repository(EMPTY, None)
        yield World(instance, ada, bob, commits)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    """The shared instance, with no faults ordered."""
    running.instance.sql("DELETE FROM requests")
    yield running
    running.instance.end_faults()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_client, "_FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(instance_client, "_LONGEST_WAIT_SECONDS", 0.1)


TEMPLATE = "changesetTemplate: {title: T, branch: b, commit: {message: M}}\n"


def spec(on: str, more: str = "") -> str:
    return f"name: x\non: {on}\nsteps: [{{run: 'true', container: c}}]\n{more}{TEMPLATE}"


def resolved(world: World, text: str, tmp_path: Path, *, user: Account | None = None, **settings: object) -> Resolution:
    only = str(settings.pop("only", "*"))
    allowed = {name: bool(settings.pop(name, False)) for name in ("allow_ignored", "allow_unsupported")}
    block = world.block(user, **settings)
    return resolve(load_spec(text), block, tmp_path / "mirrors", text=text, only=only, **allowed)


def found(resolution: Resolution) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.repository, each.path, each.search_result_paths) for each in resolution.workspaces]


WAYS = pytest.mark.parametrize("way", ["workspaces", "search"])


class TestResolution:
    @WAYS
    def test_queries_are_answered_by_the_instance(self, world: World, tmp_path: Path, way: str) -> None:
        resolution = resolved(
            world, spec("[{repositoriesMatchingQuery: mirror.acme.example}]"), tmp_path, resolve_with=way
        )

        assert found(resolution) == [
            (BILLING, "", ("a/go.mod",)),
            (SECRET, "", ("x",)),
            (SHOP, "", ("README.md", "web2/x")),
        ]
        assert dict(resolution.ignored) == {
            LEGACY: "there is a .batchignore in its root",
            ELSEWHERE: "its code host cannot have changesets",
        }
        for workspace in resolution.workspaces:
            mirror = resolution.mirrors[workspace.repository]
            assert workspace.commit == world.commits[workspace.repository]
            assert run_git(mirror, "cat-file", "-t", workspace.commit) == "commit"

    @WAYS
    def test_what_was_left_out_runs_when_allowed(self, world: World, tmp_path: Path, way: str) -> None:
        resolution = resolved(
            world,
            spec(f"[{{repository: {LEGACY}}}, {{repository: {ELSEWHERE}}}]"),
            tmp_path,
            resolve_with=way,
            allow_ignored=True,
            allow_unsupported=True,
        )

        assert [each.repository for each in resolution.workspaces] == [LEGACY, ELSEWHERE]
        assert not resolution.ignored

    @WAYS
    def test_workspaces_lie_where_a_file_is_and_paths_are_whole_segments(
        self, world: World, tmp_path: Path, way: str
    ) -> None:
        more = "workspaces: [{rootAtLocationOf: go.mod, in: github.com/*, onlyFetchWorkspace: true}]\n"
        resolution = resolved(
            world,
            spec("[{repositoriesMatchingQuery: mirror.acme.example repo:shop|billing}]", more),
            tmp_path,
            resolve_with=way,
        )

        assert found(resolution) == [
            (BILLING, "", ("a/go.mod",)),
            (BILLING, "a", ("a/go.mod",)),
            (BILLING, "a/b", ()),
            (SHOP, "web", ()),
        ]
        assert [each.only_fetch_workspace for each in resolution.workspaces] == [False, True, True, True]

    @WAYS
    def test_a_user_gets_what_the_user_may_see(self, world: World, tmp_path: Path, way: str) -> None:
        text = spec("[{repositoriesMatchingQuery: 'repo:acme/s mirror'}]")

        assert [name for name, _, _ in found(resolved(world, text, tmp_path, user=world.bob, resolve_with=way))] == [
            SHOP
        ]
        with pytest.raises((ResolutionError, PermanentError), match="not found"):
            resolved(world, spec(f"[{{repository: {SECRET}}}]"), tmp_path, user=world.bob, resolve_with=way)

    @WAYS
    def test_a_branch_that_is_not_there_is_told(self, world: World, tmp_path: Path, way: str) -> None:
        with pytest.raises((ResolutionError, PermanentError), match='no branch matching "nope" found for repository'):
            resolved(world, spec(f"[{{repository: {SHOP}, branch: nope}}]"), tmp_path, resolve_with=way)

    def test_a_repository_without_commits_is_skipped_with_its_reason(self, world: World, tmp_path: Path) -> None:
        resolution = resolved(world, spec(f"[{{repository: {SHOP}}}]"), tmp_path, resolve_with="search")
        with pytest.raises(ResolutionError, match="is empty, or not cloned"):
            resolved(world, spec(f"[{{repository: {EMPTY}}}]"), tmp_path, resolve_with="search")

        assert len(resolution.workspaces) == 1

    @WAYS
    def test_steps_that_need_not_run_are_known(self, world: World, tmp_path: Path, way: str) -> None:
        text = (
            f"name: x\non: [{{repository: {SHOP}}}, {{repository: {BILLING}}}]\nsteps:\n"
            f"  - {{run: a, container: c, if: '${{{{ eq repository.name \"{SHOP}\" }}}}'}}\n"
            "changesetTemplate: {title: T, branch: b, commit: {message: M}}\n"
        )

        assert [name for name, _, _ in found(resolved(world, text, tmp_path, resolve_with=way))] == [SHOP]

    def test_the_default_pattern_type_follows_the_specs_version(self, world: World, tmp_path: Path) -> None:
        """Version 1: standard, the words in a row. Version 2: keyword, all of the words."""
        text = spec("[{repositoriesMatchingQuery: 'example mirror'}]")

        assert not found(resolved(world, text, tmp_path, resolve_with="search"))
        assert found(resolved(world, f"version: 2\n{text}", tmp_path, resolve_with="search"))

    @pytest.mark.parametrize(
        ("query", "said"),
        [("error:broken x", "broken"), ("alert:Unsupported x-nothing-x", "Unsupported: see the documentation")],
    )
    def test_what_the_search_complains_about_is_told(self, world: World, tmp_path: Path, query: str, said: str) -> None:
        with pytest.raises(ResolutionError, match=said):
            resolved(world, spec(f"[{{repositoriesMatchingQuery: '{query}'}}]"), tmp_path, resolve_with="search")

    @pytest.mark.parametrize("query", ["timeout:1 mirror", "hangup:yes mirror"])
    def test_half_an_answer_is_none(self, world: World, tmp_path: Path, query: str) -> None:
        """A batch change over a part of the repositories would look like one over all of them."""
        text = spec(f"[{{repositoriesMatchingQuery: '{query}'}}]")

        with pytest.raises(TemporaryError):
            resolved(world, text, tmp_path, resolve_with="search", patience_seconds=0.1)

    def test_only_narrows_what_is_asked_for(self, world: World, tmp_path: Path) -> None:
        text = spec("[{repositoriesMatchingQuery: mirror.acme.example}]")

        assert [name for name, _, _ in found(resolved(world, text, tmp_path, only="*/shop"))] == [SHOP]

    def test_no_token_is_where_others_could_read_it(self, world: World, tmp_path: Path) -> None:
        """Not in the mirror's files, and on no command line (the tests of the mirror look at those)."""
        resolved(world, spec(f"[{{repository: {SHOP}}}]"), tmp_path)

        for file in tmp_path.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert EXECUTORS.encode() not in content
                assert world.ada.token.encode() not in content


class TestClient:
    def test_it_goes_on_after_temporary_trouble(self, world: World) -> None:
        for kind in ("status", "cut", "cut-after", "cut-body"):
            world.instance.fault(kind, "graphql", times=1, status=503)

        assert world.block().api().namespace().url == "/users/ada"
        assert len(world.instance.sql("SELECT * FROM requests")) == 5

    def test_retry_after_is_obeyed(self, world: World) -> None:
        world.instance.fault("status", "graphql", times=1, status=429, headers={"Retry-After": "1"})

        started = time.monotonic()
        world.block().api().namespace()

        assert time.monotonic() - started >= 1

    def test_a_longer_retry_after_than_our_patience_ends_at_once(self, world: World) -> None:
        world.instance.fault("status", "graphql", status=429, headers={"Retry-After": "3600"})

        with pytest.raises(InstanceUnavailable, match="status 429"):
            world.block().api().namespace()

        assert len(world.instance.sql("SELECT * FROM requests")) == 1

    @pytest.mark.parametrize(
        ("status", "error"),
        [(400, InstanceRefused), (401, InstanceForbidden), (403, InstanceForbidden), (404, InstanceMissing)],
    )
    def test_other_statuses_are_told_at_once(self, world: World, status: int, error: type[Exception]) -> None:
        world.instance.fault("status", "graphql", status=status, body="because")

        with pytest.raises(error, match="because"):
            world.block().api().namespace()

        assert len(world.instance.sql("SELECT * FROM requests")) == 1

    def test_a_wrong_token_and_no_token_are_refused(self, world: World) -> None:
        for token in ("wrong", None):
            block = SourcegraphInstance(url=world.instance.url, token=SecretStr(token) if token else None)
            with pytest.raises(InstanceForbidden):
                block.api().namespace()

    def test_errors_tell_permission_from_not_found(self, world: World) -> None:
        api, theirs = world.block().api(), world.block(world.bob).api()

        with pytest.raises(InstanceMissing):
            api.namespace("nobody")
        with pytest.raises(InstanceForbidden, match="authorized user"):
            api.create_batch_spec(theirs.namespace().id, "name: x\n", [])

    def test_large_requests_are_compressed_small_ones_not(self, world: World) -> None:
        api = world.block().api()

        api.workspaces(spec(f"[{{repository: {SHOP}}}]"))
        api.workspaces(spec(f"[{{repository: {SHOP}}}]") + "#" * 5000)

        headers = [json.loads(row["headers"]) for row in world.instance.sql("SELECT headers FROM requests ORDER BY id")]
        assert [each.get("content-encoding") for each in headers] == [None, "gzip"]

    def test_a_server_that_cannot_inflate_gets_it_plain(self, world: World) -> None:
        world.instance.fault("status", "graphql", times=1, status=415)

        assert world.block().api().workspaces(spec(f"[{{repository: {SHOP}}}]") + "#" * 5000)

    def test_it_outlives_a_restart(self, world: World) -> None:
        api = world.block(patience_seconds=60).api()
        world.instance.kill()
        restart = threading.Timer(0.3, world.instance.start)
        restart.start()

        assert api.namespace().url == "/users/ada"
        restart.join()

    def test_waiting_ends_when_it_is_cancelled(self, world: World) -> None:
        world.instance.fault("status", "graphql", status=503, headers={"Retry-After": "600"})
        cancel = threading.Event()
        cancel.set()

        with pytest.raises(InstanceWaitStopped) as raised:
            world.block(patience_seconds=3600).api(cancel).namespace()

        assert isinstance(pickle.loads(pickle.dumps(raised.value)), InstanceWaitStopped)

    def test_a_redirect_is_not_followed(self, world: World) -> None:
        """The token is for this address only."""
        world.instance.fault("status", "graphql", status=302, headers={"Location": "https://elsewhere.example/"})

        with pytest.raises(InstanceRefused, match="redirects to"):
            world.block().api().namespace()

    def test_a_private_ca_is_trusted_when_it_is_named(self, tmp_path: Path) -> None:
        make_certificates(tmp_path / "certificates")
        with RunningInstance(tmp_path / "instance", certificates=tmp_path / "certificates") as instance:
            ada = instance.add_user("ada")
            instance.set("executors.accessToken", EXECUTORS)
            instance.add_repository(SHOP, {"a": "b\n"})
            settings = {"url": instance.url, "token": ada.token, "executor_token": EXECUTORS, "patience_seconds": 1}
            text = spec(f"[{{repository: {SHOP}}}]")

            with pytest.raises(InstanceRefused, match="not trusted"):
                SourcegraphInstance(**settings).api().namespace()
            for name, value in (("ca_bundle", str(tmp_path / "certificates" / "ca.pem")), ("verify", False)):
                block = SourcegraphInstance(**settings, **{name: value})
                assert resolve(load_spec(text), block, tmp_path / name, text=text).workspaces

    def test_no_secret_is_in_what_it_says(self, world: World) -> None:
        block = world.block()
        world.instance.fault("status", "graphql", status=500)

        with pytest.raises(InstanceUnavailable) as raised:
            world.block(patience_seconds=0).api().namespace()

        for text in (repr(block), str(block), repr(block.api().__dict__), str(raised.value), repr(raised.value)):
            assert world.ada.token not in text
            assert EXECUTORS not in text

    @pytest.mark.parametrize("url", ["sourcegraph.example.com", "https://user:pass@sourcegraph.example.com", "ftp://x"])
    def test_an_address_is_checked(self, url: str) -> None:
        with pytest.raises(ValidationError):
            SourcegraphInstance(url=url)


class TestStream:
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["matches", "progress", "done"]),
                st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1),
            ),
            max_size=5,
        ),
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.integers(1, 7),
    )
    def test_events_are_read_however_the_network_cuts_them(
        self, wanted: list[tuple[str, list[str]]], newline: str, size: int
    ) -> None:
        """Also with U+2028 and its kin, which are no line ends here, and with multi-byte letters cut in two."""
        lines = []
        for name, data in wanted:
            lines += [f"event: {name}", ":comment", *(f"data: {each}" for each in data), ""]
        raw = "".join(line + newline for line in lines).encode()

        read = list(events(raw[at : at + size] for at in range(0, len(raw), size)))

        assert read == [(name, "\n".join(data)) for name, data in wanted]

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [("7", 7.0), (None, 0.0), ("soon", 0.0), ("-1", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
    )
    def test_retry_after_is_a_number_or_a_date(self, value: str | None, seconds: float) -> None:
        assert retry_after(value) == seconds
