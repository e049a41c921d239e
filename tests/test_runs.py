"""A whole run without Prefect and without an engine: many workspaces, one ledger."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Lock

import pytest

from blocks.folder import FolderStore
from blocks.repositories import RepositoryFolder
from blocks.runtime import RuntimeUnavailable
from blocks.store import StoreFull, StoreUnavailable
from flows.batches.errors import ResolutionError
from flows.batches.loading import load_spec
from flows.batches.mounts import MountError
from flows.batches.results import Failure, RunManifest
from flows.ledger import Ledger
from flows.runs import BatchRun, run_id_of
from flows.shards import ShardRun
from flows.shares import Options, Surroundings
from tests.fakes import FakeRuntime
from tests.gitrepos import commit_files, make_repository, run_git

TEMPLATE = 'changesetTemplate: {title: T, body: B, branch: "b${{ steps.path }}", commit: {message: M}}'
EVERYWHERE = "on: [{repositoriesMatchingQuery: 'repo:acme'}]"
ONE_AT_A_TIME = Options(workspaces_at_once=1)


class Place:
    """Repositories acme/a, acme/b and acme/c, a store, and runs on them."""

    def __init__(self, folder: Path, repositories: Path, runtime: FakeRuntime) -> None:
        self.folder, self.runtime = folder, runtime
        self.store = FolderStore(folder / "store")
        shutil.copytree(repositories, folder / "src")

    @contextmanager
    def open(
        self,
        text: str,
        options: Options = ONE_AT_A_TIME,
        *,
        spec_folder: Path | None = None,
        run_id: str = "run",
        shards: int = 1,
    ) -> Iterator[BatchRun]:
        """A run that has found its workspaces and begun."""
        around = self.surroundings(spec_folder=spec_folder)
        with BatchRun(run_id, text, load_spec(text), options, around) as run:
            run.find_workspaces()
            run.begin(shards=shards)
            yield run

    def surroundings(self, *, home: str = "home", spec_folder: Path | None = None) -> Surroundings:
        """The outside of a run; ``home`` is another one on another machine."""
        return Surroundings(
            repositories=RepositoryFolder(folder=str(self.folder / "src")),
            runtime=self.runtime,
            store=self.store,
            home=self.folder / home,
            spec_folder=spec_folder,
        )

    def run(
        self, text: str, options: Options = ONE_AT_A_TIME, *, spec_folder: Path | None = None, run_id: str = "run"
    ) -> RunManifest:
        """A run from its beginning to its end."""
        with self.open(text, options, spec_folder=spec_folder, run_id=run_id) as run:
            run.run_workspaces(run.run_workspace)
            return run.finish()

    def manifest(self) -> RunManifest:
        return Ledger(self.store, "run").manifest()

    def changesets(self) -> list[str]:
        ledger = Ledger(self.store, "run")
        return [key.rsplit("/", 1)[1] for key in ledger.changeset_keys(ledger.manifest())]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied."""
    folder = tmp_path_factory.mktemp("repositories")
    for name in ("a", "b", "c"):
        make_repository(folder / "acme" / name, {"README.md": f"{name}\n"})
    return folder


@pytest.fixture
def place(tmp_path: Path, repositories: Path, runtime: FakeRuntime) -> Place:
    return Place(tmp_path, repositories, runtime)


def spec_of(*scripts: str, on: str = EVERYWHERE, more: str = "", template: str = TEMPLATE) -> str:
    """A batch spec whose steps run these scripts, each one YAML text in double quotes."""
    steps = "\n".join(f'  - {{container: image, run: "{script}"}}' for script in scripts)
    return "\n".join(("name: change", on, "steps:", steps, more, template))


def only_in(repository: str, script: str, otherwise: str = "out fine") -> str:
    """A script that differs in one repository."""
    return rf"${{{{ if eq repository.name \"{repository}\" }}}}{script}${{{{ else }}}}{otherwise}${{{{ end }}}}"


def states(manifest: RunManifest) -> dict[str, str]:
    return {result.title: result.state for result in manifest.workspaces}


def test_every_workspace_runs_and_its_changesets_are_numbered_in_order(place: Place) -> None:
    manifest = place.run(spec_of("write x ${{ repository.name }}"))

    assert manifest.state == "completed"
    assert manifest.failure is None
    assert [(result.title, result.changeset_specs) for result in manifest.workspaces] == [
        ("acme/a", (1,)),
        ("acme/b", (2,)),
        ("acme/c", (3,)),
    ]
    assert (manifest.step_counts.executed, manifest.changeset_specs) == (3, 3)
    assert manifest == place.manifest()
    assert place.changesets() == ["1.json", "1.patch", "2.json", "2.patch", "3.json", "3.patch"]
    assert b"+acme/b\n" in place.store.get("runs/run/changesets/2.patch")


def test_the_store_has_the_spec_as_it_was_given(place: Place) -> None:
    text = spec_of("out x") + "\n# a remark\n"

    place.run(text)

    assert place.store.get("runs/run/spec.yaml").decode() == text


def test_a_failing_workspace_leaves_the_others_alone(place: Place) -> None:
    manifest = place.run(spec_of("write x 1", only_in("acme/a", "exit 4")))

    assert states(manifest) == {"acme/a": "failed", "acme/b": "completed", "acme/c": "completed"}
    assert manifest.state == "failed"
    assert manifest.failure is None
    assert manifest.workspaces[0].failure is not None
    assert manifest.workspaces[0].failure.message.endswith("exit code 4.")
    assert [step.how for step in manifest.workspaces[0].steps] == ["executed", "failed"]
    assert [result.changeset_specs for result in manifest.workspaces] == [(), (1,), (2,)]


def test_errors_can_be_skipped(place: Place) -> None:
    options = Options(workspaces_at_once=1, skip_errors=True)

    manifest = place.run(spec_of("write x 1", only_in("acme/a", "exit 4")), options)

    assert states(manifest)["acme/a"] == "failed"
    assert manifest.state == "completed"
    assert manifest.changeset_specs == 2


def test_the_first_failure_can_stop_all(place: Place) -> None:
    """What runs is stopped, what has not begun is left out, what had completed stays."""
    options = Options(workspaces_at_once=1, fail_fast=True)
    step = only_in("acme/b", "exit 4", only_in("acme/a", "write x 1", "sleep 60"))

    manifest = place.run(spec_of(step), options)

    assert states(manifest) == {"acme/a": "completed", "acme/b": "failed", "acme/c": "cancelled"}
    assert manifest.state == "failed"
    assert manifest.changeset_specs == 1
    assert place.runtime.open_rooms == 0


def test_a_workspace_that_was_never_begun_has_a_record(place: Place) -> None:
    with place.open(spec_of("write x 1")) as run:
        run.cancel.set()
        run.run_workspaces(run.run_workspace)
        manifest = run.finish()

    assert set(states(manifest).values()) == {"cancelled"}
    assert manifest.state == "cancelled"
    assert place.runtime.ran == []
    assert place.manifest() == manifest


def test_as_many_workspaces_run_at_once_as_was_said(place: Place) -> None:
    barrier, lock, running, most = Barrier(2, timeout=10), Lock(), 0, 0

    with place.open(spec_of("out x"), Options(workspaces_at_once=2)) as run:
        numbers = iter(range(1, 4))

        def run_one(number: int) -> object:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                count = next(numbers)
            if count <= 2:
                barrier.wait()
            result = run.run_workspace(number)
            with lock:
                running -= 1
            return result

        run.run_workspaces(run_one)  # type: ignore[arg-type]  # it is a WorkspaceResult

    assert most == 2


def test_a_second_run_takes_everything_from_the_cache(place: Place) -> None:
    text = spec_of("write x 1", only_in("acme/c", "exit 4"))
    place.run(text, run_id="first")

    again = place.run(text)

    assert [[step.how for step in result.steps] for result in again.workspaces] == [
        ["cached", "cached"],
        ["cached", "cached"],
        ["cached", "failed"],
    ]
    assert len(place.runtime.ran) == 7
    assert again.changeset_specs == 2
    assert place.changesets() == ["1.json", "1.patch", "2.json", "2.patch"]


def test_changesets_with_the_same_branch_fail_the_run(place: Place) -> None:
    """One message for all of them, and none is kept: which one would be the right one?"""
    commit_files(place.folder / "src/acme/a", {"x/package.json": "{}", "y/package.json": "{}", "z": ""})
    more = "workspaces: [{rootAtLocationOf: package.json, in: acme/a}]"
    template = TEMPLATE.replace("b${{ steps.path }}", "same")

    manifest = place.run(spec_of("write ${{ steps.path }}new 1", more=more, template=template))

    assert (manifest.state, manifest.changeset_specs, place.changesets()) == ("failed", 0, [])
    assert manifest.failure is not None
    assert manifest.failure.reason == "changesets"
    assert 'acme/a: 2 changeset specs have the branch "same"' in manifest.failure.message
    assert {result.changeset_specs for result in manifest.workspaces} == {()}
    assert manifest == place.manifest()


def test_imported_changesets_come_last(place: Place) -> None:
    more = "importChangesets: [{repository: acme/c, externalIDs: [7, '8']}]"

    manifest = place.run(spec_of("write x 1", on="on: [{repository: acme/a}]", more=more))

    assert manifest.changeset_specs == 3
    assert manifest.workspaces[0].changeset_specs == (1,)
    assert place.changesets() == ["1.json", "1.patch", "2.json", "3.json"]
    assert place.store.get("runs/run/changesets/3.json") == b'{\n "baseRepository": "acme/c",\n "externalID": "8"\n}\n'


def test_a_spec_may_only_import(place: Place) -> None:
    manifest = place.run("name: change\nimportChangesets: [{repository: acme/c, externalIDs: [7]}]\n")

    assert (manifest.state, manifest.workspaces, manifest.changeset_specs) == ("completed", (), 1)


def test_a_changeset_template_that_does_not_render_is_the_workspaces_failure(place: Place) -> None:
    """Its steps stay in the cache: mending the template runs nothing again."""
    broken = TEMPLATE.replace("title: T", 'title: "${{ index (split repository.name \\"/\\") 5 }}"')
    manifest = place.run(spec_of("write x 1", template=broken), run_id="first")

    mended = place.run(spec_of("write x 1"))

    assert set(states(manifest).values()) == {"failed"}
    assert {result.failure.reason for result in manifest.workspaces if result.failure} == {"changesets"}
    assert mended.state == "completed"
    assert (mended.step_counts.executed, mended.step_counts.cached) == (0, 3)


def test_a_workspace_without_a_change_has_no_changeset(place: Place) -> None:
    manifest = place.run(spec_of(only_in("acme/b", "write x 1")))

    assert [result.changeset_specs for result in manifest.workspaces] == [(), (1,), ()]
    assert [result.diff is None for result in manifest.workspaces] == [True, False, True]


def test_groups_split_a_workspace_into_several_changesets(place: Place) -> None:
    more = "transformChanges: {group: [{directory: docs, branch: docs}, {directory: src, branch: src}]}"

    manifest = place.run(
        spec_of(r"write docs/a 1\nwrite src/a 1\nwrite a 1", on="on: [{repository: acme/a}]", more=more)
    )

    assert manifest.workspaces[0].changeset_specs == (1, 2, 3)
    patches = [place.store.get(f"runs/run/changesets/{number}.patch") for number in (1, 2, 3)]
    assert [patch.split(b"\n", 1)[0] for patch in patches] == [
        b"diff --git a a",
        b"diff --git docs/a docs/a",
        b"diff --git src/a src/a",
    ]


class TestTheManifest:
    def test_of_a_running_run_has_the_workspaces_that_ended(self, place: Place) -> None:
        seen = []

        with place.open(spec_of("write x 1")) as run:

            def run_one(number: int) -> object:
                seen.append(place.manifest())
                return run.run_workspace(number)

            run.run_workspaces(run_one)  # type: ignore[arg-type]  # it is a WorkspaceResult
            seen.append(place.manifest())
            run.finish()

        assert {manifest.state for manifest in seen} == {"running"}
        assert {manifest.ended_at for manifest in seen} == {None}
        assert [list(states(manifest)) for manifest in seen] == [
            [],
            ["acme/a"],
            ["acme/a", "acme/b"],
            ["acme/a", "acme/b", "acme/c"],
        ]

    @pytest.mark.parametrize(
        ("error", "state", "reason", "message"),
        [
            (StoreUnavailable("bucket x", "no answer"), "failed", "infrastructure", "bucket x: no answer"),
            (KeyboardInterrupt(), "cancelled", "cancelled", "The run was stopped."),
        ],
    )
    def test_of_a_run_that_was_stopped_says_why(
        self, place: Place, error: BaseException, state: str, reason: str, message: str
    ) -> None:
        def run_all(run: BatchRun) -> None:
            def run_one(number: int) -> object:
                if number == 2:
                    raise error
                return run.run_workspace(number)

            run.run_workspaces(run_one)  # type: ignore[arg-type]  # it is a WorkspaceResult

        with pytest.raises(type(error)), place.open(spec_of("write x 1")) as run:
            run_all(run)
        manifest = place.manifest()

        assert (manifest.state, states(manifest)["acme/a"]) == (state, "completed")
        assert manifest.ended_at is not None
        assert manifest.failure is not None
        assert (manifest.failure.reason, manifest.failure.message) == (reason, message)
        assert place.changesets() == []

    def test_is_not_written_before_the_run_begins(self, place: Place) -> None:
        text = spec_of("out x", on="on: [{repository: acme/none}]")

        with pytest.raises(ResolutionError, match='"acme/none" not found'):
            place.run(text)

        assert list(place.store.list_keys()) == []


class TestWorkspaces:
    def test_of_several_branches_are_told_apart(self, place: Place) -> None:
        repository = place.folder / "src/acme/a"
        commit_files(repository, {"new": "1\n"}, branch="dev")
        run_git(repository, "checkout", "--quiet", "main")
        template = TEMPLATE.replace("b${{ steps.path }}", "b-${{ repository.branch }}")

        manifest = place.run(
            spec_of("write x 1", on="on: [{repository: acme/a, branches: [main, dev]}]", template=template)
        )

        assert states(manifest) == {"acme/a@dev": "completed", "acme/a@main": "completed"}
        assert sorted(result.branch for result in manifest.workspaces) == ["dev", "main"]
        assert place.manifest() == manifest

    def test_that_ask_to_be_left_alone_are(self, place: Place) -> None:
        commit_files(place.folder / "src/acme/b", {".batchignore": ""})

        with place.open(spec_of("write x 1")) as run:
            ignored = run.resolution.ignored
            run.run_workspaces(run.run_workspace)
            manifest = run.finish()
        allowed = place.run(spec_of("write x 1"), Options(workspaces_at_once=1, allow_ignored=True), run_id="allowed")

        assert ignored == (("acme/b", "there is a .batchignore in its root"),)
        assert list(states(manifest)) == ["acme/a", "acme/c"]
        assert list(states(allowed)) == ["acme/a", "acme/b", "acme/c"]

    def test_can_be_tried_out_on_some_repositories(self, place: Place) -> None:
        manifest = place.run(spec_of("write x 1"), Options(only="acme/{a,c}"))

        assert list(states(manifest)) == ["acme/a", "acme/c"]

    @pytest.mark.parametrize(
        ("on", "only", "message"),
        [
            ("on: [{repositoriesMatchingQuery: 'repo:nobody'}]", "*", "matches nothing that it could run on"),
            (EVERYWHERE, "other/*", "only 'other/*'"),
        ],
    )
    def test_there_must_be_one(self, place: Place, on: str, only: str, message: str) -> None:
        """A spec that matches nothing is a mistake, told before anything is kept."""
        with pytest.raises(ResolutionError) as caught:
            place.run(spec_of("write x 1", on=on), Options(only=only))

        assert message in str(caught.value)
        assert list(place.store.list_keys()) == []

    def test_that_are_all_left_out_are_told(self, place: Place) -> None:
        for name in ("a", "b", "c"):
            commit_files(place.folder / "src/acme" / name, {".batchignore": ""})

        with pytest.raises(ResolutionError, match=r"acme/b is left out: there is a \.batchignore in its root"):
            place.run(spec_of("write x 1"))


class TestMounts:
    def spec(self, path: str) -> str:
        step = f"{{container: image, run: out x, mount: [{{path: {path}, mountpoint: /tmp/tool}}]}}"
        return f"name: change\n{EVERYWHERE}\nsteps: [{step}]\n{TEMPLATE}\n"

    def test_reach_every_container(self, place: Place) -> None:
        (place.folder / "specs/tools").mkdir(parents=True)
        (place.folder / "specs/tools/a.sh").write_text("echo a\n")

        place.run(self.spec("./tools"), spec_folder=place.folder / "specs")

        mounted = {file.source for ran in place.runtime.ran for file in ran.files if file.target == "/tmp/tool"}
        assert len(mounted) == 1
        assert (mounted.pop() / "a.sh").read_text() == "echo a\n"

    def test_with_other_content_make_the_step_run_again(self, place: Place) -> None:
        tool = place.folder / "specs/tool"
        tool.parent.mkdir()
        runs = []
        for number, content in enumerate(("one", "one", "two")):
            tool.write_text(content)
            place.run(self.spec("./tool"), spec_folder=tool.parent, run_id=f"run-{number}")
            runs.append(len(place.runtime.ran))

        assert runs == [3, 3, 6]

    @pytest.mark.parametrize(
        ("path", "message"),
        [("./missing", "step 1 mount path ./missing does not exist"), ("../src", "not in the same directory")],
    )
    def test_that_cannot_be_made_stop_the_run_before_it_begins(self, place: Place, path: str, message: str) -> None:
        (place.folder / "specs").mkdir()

        with pytest.raises(MountError, match=message):
            place.run(self.spec(path), spec_folder=place.folder / "specs")

        assert list(place.store.list_keys()) == []

    def test_need_a_folder_to_be_looked_up_in(self, place: Place) -> None:
        with pytest.raises(MountError, match=r"step 1 mounts \./tool, and the batch spec lies in no folder"):
            place.run(self.spec("./tool"))


def test_trouble_of_the_runtime_fails_the_workspace_it_hits(place: Place) -> None:
    place.runtime.troubles = [None, RuntimeUnavailable("the engine went away")]

    manifest = place.run(spec_of("write x 1"))

    assert states(manifest) == {"acme/a": "completed", "acme/b": "failed", "acme/c": "completed"}
    assert manifest.workspaces[1].failure is not None
    assert manifest.workspaces[1].failure.reason == "infrastructure"
    assert [step.how for step in manifest.workspaces[1].steps] == ["failed"]
    assert manifest.workspaces[1].step_counts.executed == 0


class FullStore(FolderStore):
    """A store that has no room for keys with a certain beginning."""

    no_room_for = "nothing"

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        if key.startswith(self.no_room_for):
            raise StoreFull(self.location, "no room left")
        return super().put(key, content, if_absent=if_absent)


def test_a_store_that_becomes_full_fails_the_workspace(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullStore, "no_room_for", "steps/")
    place.store = FullStore(place.store.folder)

    manifest = place.run(spec_of("write x 1", on="on: [{repository: acme/a}]"))

    assert manifest.workspaces[0].failure is not None
    assert manifest.workspaces[0].failure.reason == "disk_full"


def test_a_store_without_room_for_records_stops_the_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the store's, also when the end cannot be noted either."""
    place.store = FullStore(place.store.folder)

    def run_until_it_is_full() -> None:
        with place.open(spec_of("write x 1")) as run:
            monkeypatch.setattr(FullStore, "no_room_for", "runs/")
            run.run_workspaces(run.run_workspace)

    with pytest.raises(StoreFull):
        run_until_it_is_full()

    assert place.manifest().state == "running"
    assert place.runtime.open_rooms == 0


def test_a_run_leaves_no_workspace_and_removes_those_of_the_dead(place: Place) -> None:
    workspaces = place.folder / "home/workspaces"
    (workspaces / "dead/layers").mkdir(parents=True)
    (workspaces / "dead.lock").touch()

    place.run(spec_of("write x 1", only_in("acme/b", "exit 1")))

    assert list(workspaces.iterdir()) == []
    assert place.runtime.reaped == 1


@pytest.mark.parametrize("name", [".hidden", "-dash", "..", "x" * 300, "_"])
def test_any_name_of_a_batch_change_will_do(place: Place, name: str) -> None:
    text = spec_of("write x 1").replace("name: change", f"name: {name!r}")
    run_id = run_id_of(name, "0b5ae3f2-0000-4000-8000-000000000000")

    manifest = place.run(text, run_id=run_id)

    assert manifest.state == "completed"
    assert Ledger(place.store, run_id).manifest() == manifest


def test_runs_of_one_minute_have_ids_of_their_own() -> None:
    """Prefect's ids begin with the time; two runs of one spec, begun at once, would share their ledger."""
    first, second = "01a21373-20a5-7704-bb8f-86ac034e67b5", "01a21373-20a5-7f30-810a-3cdfac034902"

    assert run_id_of("change", first) == "change-86ac034e67b5"
    assert run_id_of("change", first) != run_id_of("change", second)


class TestOnlyWorkspaces:
    """One workspace alone, by the name that the table shows."""

    def test_run_alone_and_lend_their_results_to_the_whole(self, place: Place) -> None:
        text = spec_of("write x 1")

        alone = place.run(text, Options(only_workspaces=("acme/b",)), run_id="alone")
        whole = place.run(text, run_id="whole")

        assert list(states(alone)) == ["acme/b"]
        assert [step.how for result in whole.workspaces for step in result.steps] == ["executed", "cached", "executed"]

    def test_that_are_not_there_are_named(self, place: Place) -> None:
        with pytest.raises(ResolutionError, match="no workspace 'acme/x'"):
            place.run(spec_of("write x 1"), Options(only_workspaces=("acme/b", "acme/x")))


class TestAnotherAttempt:
    """A run that is tried again, as by the dashboard's Retry: the same run, the same workspaces."""

    TEXT = spec_of("write x 1", only_in("acme/b", "exit 1"))

    def test_repeats_nothing_that_is_done(self, place: Place) -> None:
        """Not even the set-up, and also with the step cache switched off."""
        options = Options(workspaces_at_once=1, use_cache=False)
        place.run(self.TEXT, options)
        rooms = place.runtime.rooms

        with place.open(self.TEXT, options) as run:
            left = [run.title(number) for number in run.left]
            run.run_workspaces(run.run_workspace)
            again = run.finish()

        assert left == ["acme/b"]
        assert place.runtime.rooms == rooms + 1
        assert states(again) == {"acme/a": "completed", "acme/b": "failed", "acme/c": "completed"}
        assert again.changeset_specs == 2
        assert place.changesets() == ["1.json", "1.patch", "2.json", "2.patch"]

    def test_goes_on_with_the_commits_that_were_found_first(self, place: Place) -> None:
        """One run, one state of the world; a new run takes the new commits."""
        first = place.run(self.TEXT)
        commit_files(place.folder / "src/acme/b", {"README.md": "changed\n"})

        again = place.run(self.TEXT)
        new = place.run(self.TEXT, run_id="new")

        commits = [[result.commit for result in manifest.workspaces] for manifest in (first, again, new)]
        assert commits[0] == commits[1]
        assert commits[1][1] != commits[2][1]
        assert again.started_at == first.started_at

    def test_finds_its_changesets_again_in_the_store(self, place: Place) -> None:
        """With the outputs of the time: what another process has built is built the same here."""
        said = """, outputs: {said: {value: '${{ step.stdout }}'}}}"""
        text = spec_of(r"write x 1\nout hello").replace('hello"}', f'hello"{said}')
        text = text.replace("title: T", 'title: "${{ outputs.said }} ${{ repository.name }}"')
        place.run(text)
        before = [place.store.get(f"runs/run/changesets/{number}.json") for number in (1, 2, 3)]
        for number in (1, 2, 3):
            (place.folder / f"store/runs/run/changesets/{number}.json").unlink()

        place.run(text)

        assert [place.store.get(f"runs/run/changesets/{number}.json") for number in (1, 2, 3)] == before
        assert b"hello" in before[0]


class TestShards:
    """The same run in parts, which meet in the store: as on several machines."""

    TEXT = spec_of("write x 1", only_in("acme/b", "exit 1"))

    def shard(self, place: Place, number: int, options: Options = ONE_AT_A_TIME) -> ShardRun:
        with ShardRun("run", number, options, place.surroundings(home="elsewhere")) as part:
            part.take_workspaces()
            part.begin()
            part.run_workspaces(part.run_workspace)
        return part

    def test_come_together_as_one_run(self, place: Place) -> None:
        with place.open(self.TEXT, shards=2) as run:
            parts = [self.shard(place, number) for number in (1, 2)]
            for number in (1, 2):
                run.gather(run.shard_of(number))
            manifest = run.finish()

        assert [part.headline for part in parts] == [
            "1 of 1 workspaces completed; steps: 2 run, 0 cached, 0 skipped",
            "1 of 2 workspaces completed; steps: 4 run, 0 cached, 0 skipped",
        ]
        assert [part.state for part in parts] == ["completed", "failed"]
        assert states(manifest) == {"acme/a": "completed", "acme/b": "failed", "acme/c": "completed"}
        assert [result.changeset_specs for result in manifest.workspaces] == [(1,), (), (2,)]
        assert place.changesets() == ["1.json", "1.patch", "2.json", "2.patch"]

    def test_are_the_same_in_every_attempt(self, place: Place) -> None:
        """Whatever the number that is asked for later; only one with work left has something to do."""
        with place.open(self.TEXT, shards=3):
            self.shard(place, 1)
            self.shard(place, 2)
        with place.open(self.TEXT, shards=1) as again:
            shards, left = again.shards, again.left

        assert (shards, left) == (3, [2, 3])

    def test_do_not_repeat_what_another_machine_has_done(self, place: Place) -> None:
        with place.open(self.TEXT, shards=1):
            self.shard(place, 1)
            rooms = place.runtime.rooms

            part = self.shard(place, 1)

        assert place.runtime.rooms == rooms + 1
        assert part.headline.startswith("2 of 3 workspaces completed")

    def test_that_nobody_finished_are_failures_with_a_reason(self, place: Place) -> None:
        lost = Failure(reason="infrastructure", message="Not finished: shard 2 ended as Crashed.")
        with place.open(self.TEXT, shards=2) as run:
            self.shard(place, 1)
            run.gather(run.shard_of(1))
            for number in run.shard_of(2):
                run.leave_out(number, lost)
            manifest = run.finish()

        assert (manifest.state, manifest.changeset_specs) == ("failed", 1)
        assert {result.failure.message for result in manifest.workspaces if result.failure} == {lost.message}
