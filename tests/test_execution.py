"""The steps of a workspace, with a runtime without an engine."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from blocks.blobs import Blobs
from blocks.folder import FolderStore
from blocks.runtime import RuntimeUnavailable
from blocks.store import StoreUnavailable
from flows.batches.errors import PermanentError, TemplateError, TimeIsUp
from flows.batches.outputs import OutputError
from flows.batches.steps import Outside
from flows.execution import Limits
from flows.step_cache import stored
from tests.fakes import FakeRuntime
from tests.workbench import Workbench, finish, spec_of


def test_the_diff_is_cumulative(bench: Workbench) -> None:
    run = bench.run(spec_of("write a.txt one", "write b.txt two\ndelete src/old.py"))

    assert run.failure is None
    assert bench.diff(run.results[0]).count("diff --git") == 1
    last = run.executed
    assert last is not None
    assert (last.changes.added, last.changes.deleted) == (("a.txt", "b.txt"), ("src/old.py",))
    assert bench.leftovers() == []


def test_a_failed_step_ends_the_workspace_and_keeps_what_was_done(bench: Workbench, runtime: FakeRuntime) -> None:
    spec = spec_of("write a.txt one", "out looking\nerr broken\nexit 3", "write never.txt x")

    first = bench.run(spec)
    again = bench.run(spec)

    assert [result.state for result in first.results] == ["completed", "failed"]
    assert first.failure is not None
    assert first.failure.reason == "step_failed"
    assert first.failure.message.endswith("Command failed with exit code 3.")
    assert "\tbroken" in first.failure.message
    assert again.cached == {0}
    assert len(runtime.ran) == 3  # both steps, then only the failed one


def test_the_same_steps_on_the_same_inputs_run_once(bench: Workbench, runtime: FakeRuntime) -> None:
    spec = spec_of("write a.txt one", "write b.txt two")
    bench.run(spec)

    again = bench.run(spec)

    assert again.is_cached
    assert again.cached == {0, 1}
    assert (len(runtime.ran), runtime.rooms) == (2, 1)
    assert bench.diff(again.executed).count("diff --git") == 2


def test_editing_a_later_step_repeats_no_earlier_one(bench: Workbench, runtime: FakeRuntime) -> None:
    bench.run(spec_of("write a.txt one", "write b.txt two"))

    edited = bench.run(spec_of("write a.txt one", "cat a.txt\nwrite c.txt three"))

    assert edited.cached == {0}
    assert edited.executed is not None
    assert edited.executed.changes.added == ("a.txt", "c.txt")
    assert edited.executed.stdout is not None
    assert bench.blobs.get(stored(edited.executed.stdout)) == b"one\n"


def test_an_edited_step_that_changes_nothing_new_lets_later_ones_be(bench: Workbench, runtime: FakeRuntime) -> None:
    """The key covers what a step reads, not how it came about."""
    bench.run(spec_of("write a.txt one", "write b.txt two"))

    edited = bench.run(spec_of("out other\nwrite a.txt one", "write b.txt two"))

    assert edited.cached == {1}


def test_an_output_too_large_for_a_template_is_refused(
    bench: Workbench, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.execution._LARGEST_TEXT_BYTES", 10)
    spec = spec_of("out 0123456789", '{run: "out ${{ previous_step.stdout }}", container: i}')

    with pytest.raises(PermanentError, match=r"a step's stdout of 11 bytes, and 10 is the most; let the step print"):
        bench.run(spec)


def test_a_workspace_without_time_begins_no_step(bench: Workbench, runtime: FakeRuntime) -> None:
    """However short the step would be."""
    run = bench.open(spec_of("out x"), limits=Limits(workspace_seconds=0.01))
    time.sleep(0.02)

    with pytest.raises(TimeIsUp) as caught:
        run.run_step(0)

    failure = run.fail(caught.value)
    assert failure.reason == "timed_out"
    assert failure.message == "Timeout reached. Execution took longer than 10ms."
    assert not runtime.ran


def test_a_message_that_quotes_a_step_has_an_end(bench: Workbench, runtime: FakeRuntime) -> None:
    number = "9" * 100_000
    run = bench.open(spec_of("out x"))

    failure = run.fail(OutputError("x", "json", f"cannot read {number}"))

    assert "(... " in failure.message
    assert len(failure.message) < 33_000


def test_ignored_files_survive_a_resume(bench: Workbench, runtime: FakeRuntime) -> None:
    """Also on another machine: what git ignores is in the layer, not in the diff."""
    bench.run(spec_of("write .gitignore build\nwrite build/x compiled", "exit 1"))
    shutil.rmtree(bench.home / "checkouts")

    resumed = bench.run(spec_of("write .gitignore build\nwrite build/x compiled", "cat build/x\nexit 1"))

    assert resumed.cached == {0}
    assert resumed.failure is not None
    assert "\tcompiled" in resumed.failure.message


def test_a_layer_too_large_to_keep_makes_the_step_run_again(bench: Workbench, runtime: FakeRuntime) -> None:
    bench.run(spec_of("write a.txt one", "exit 1"), layer_bytes=1)

    again = bench.run(spec_of("write a.txt one", "cat a.txt"), layer_bytes=1)

    assert again.cached == set()
    assert again.failure is None


def test_without_the_cache_every_step_runs(bench: Workbench, runtime: FakeRuntime) -> None:
    spec = spec_of("write a.txt one")
    bench.run(spec)

    bench.run(spec, use_cache=False)

    assert len(runtime.ran) == 2


def test_a_false_condition_starts_nothing_and_asks_for_no_image(bench: Workbench, runtime: FakeRuntime) -> None:
    spec = spec_of("out first", '{run: "out x", container: "missing:1", if: "${{ eq previous_step.stdout \\"no\\" }}"}')

    run = bench.run(spec)

    assert run.failure is None
    assert run.results[1].state == "skipped"
    assert run.results[1].skip_reason.endswith("→ false")
    assert runtime.images["missing:1"] == 0


def test_a_workspace_whose_steps_are_all_skipped_is_complete(bench: Workbench, runtime: FakeRuntime) -> None:
    run = bench.run(spec_of('{run: "out x", container: i, if: "${{ eq repository.branch \\"x\\" }}"}'))

    assert run.failure is None
    assert run.executed is None
    assert not runtime.ran


def test_previous_step_is_the_last_one_that_ran(bench: Workbench, runtime: FakeRuntime) -> None:
    skipped = '{run: "out no", container: i, if: "${{ eq repository.branch \\"x\\" }}"}'

    bench.run(spec_of("out hello", skipped, "write got ${{ previous_step.stdout }}"))

    assert runtime.scripts[-1] == "write got hello"


def test_outputs_are_rendered_anew_from_a_cached_result(bench: Workbench, runtime: FakeRuntime) -> None:
    def spec(field: str) -> str:
        output = '{value: "${{ step.stdout }}", format: json}'
        return spec_of(
            f"{{run: 'out {{\"n\": 1234567}}', container: i, outputs: {{{field}: {output}}}}}",
            f"write n ${{{{ outputs.{field}.n }}}}",
        )

    bench.run(spec("first"))
    run = bench.run(spec("second"))

    assert run.cached == {0, 1}
    assert json.loads(json.dumps(run.outputs)) == {"second": {"n": 1234567.0}}
    assert runtime.scripts == ['out {"n": 1234567}', "write n 1.234567e+06"]


def test_an_output_that_does_not_render_fails_the_workspace_and_keeps_the_step(
    bench: Workbench, runtime: FakeRuntime
) -> None:
    spec = spec_of('{run: "out x", container: i, outputs: {o: {value: "${{ outputs.nope }}"}}}')
    run = bench.open(spec)

    with pytest.raises(TemplateError) as caught:
        finish(run, spec)
    failure = run.fail(caught.value)
    run.close()

    assert failure.reason == "outputs"
    assert "nope" in failure.message
    with pytest.raises(TemplateError):
        bench.run(spec)
    assert len(runtime.ran) == 1


@pytest.mark.parametrize(
    ("script", "reason", "message"),
    [
        ("oom", "out_of_memory", "Out of memory"),
        ("exit 1", "step_failed", "exit code 1."),
        ("sleep 60", "timed_out", "Execution took longer than 100ms."),
    ],
)
def test_ends_are_told_apart(bench: Workbench, script: str, reason: str, message: str) -> None:
    run = bench.run(spec_of(script), limits=Limits(step_seconds=0.1))

    assert run.failure is not None
    assert run.failure.reason == reason
    assert message in run.failure.message


def test_after_trouble_a_step_begins_again_on_a_fresh_layer_in_a_new_room(bench: Workbench) -> None:
    """The steps before are not repeated."""
    runtime = FakeRuntime(None, RuntimeUnavailable("the engine was restarted"))
    bench.runtime = runtime
    spec = spec_of("write a.txt one", "write b.txt two")
    run = bench.open(spec)

    run.set_up()
    run.run_step(0)
    with pytest.raises(RuntimeUnavailable):
        run.run_step(1)
    run.run_step(1)
    run.close()

    assert runtime.scripts == ["write a.txt one", "write b.txt two", "write b.txt two"]
    assert (runtime.rooms, runtime.open_rooms) == (2, 0)
    assert run.results[1].attempts == 2
    assert run.executed is not None
    assert run.executed.changes.added == ("a.txt", "b.txt")


class AwayForOneWrite(FolderStore):
    """A store that does not answer the write number ``away``, from 0."""

    away = -1
    writes = 0

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        self._answer()
        return super().put(key, content, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> bool:
        self._answer()
        return super().put_file(key, path, if_absent=if_absent)

    def _answer(self) -> None:
        self.writes += 1
        if self.writes == self.away + 1:
            raise StoreUnavailable(self.location, "it does not answer")


@pytest.mark.parametrize("ending", ["out done", "exit 3"])
def test_what_a_container_left_is_stored_later_when_the_store_is_away(bench: Workbench, ending: str) -> None:
    """Whatever write is lost, the step does not run again."""
    bench.store = store = AwayForOneWrite(bench.folder / "away")
    bench.blobs = Blobs(store)
    bench.runtime = runtime = FakeRuntime()
    spec = spec_of("write a.txt one", f"write b.txt two\n{ending}", "write c.txt three")
    whole = bench.run(spec, use_cache=False)
    writes, before, lost = store.writes, len(runtime.scripts), 0
    for store.away in range(writes):
        store.writes = 0
        run = bench.open(spec, use_cache=False)
        run.set_up()
        for index in range(3):
            try:
                run.run_step(index)
            except StoreUnavailable:
                lost += 1
                run.run_step(index)
            if run.done:
                break
        run.close()

        assert [result.state for result in run.results] == [result.state for result in whole.results]
        assert [result.diff for result in run.results] == [result.diff for result in whole.results]
        assert {result.attempts for result in run.results} == {1}
        assert not run.cached

    assert lost == writes
    assert len(runtime.scripts) == before * (1 + writes)


class TestSecrets:
    OUTSIDE = Outside.of(secrets={"TOKEN": "s3cret-value", "OTHER": "unasked-value"}, variables={"USER": "ada"})

    def test_a_step_sees_what_it_asks_for_and_people_do_not(self, bench: Workbench, runtime: FakeRuntime) -> None:
        spec = spec_of('{run: "env TOKEN\\nenv USER\\nenv NONE", container: i, env: [TOKEN, USER, NONE]}')

        run = bench.run(spec, outside=self.OUTSIDE)

        assert runtime.ran[0].environment == {"TOKEN": "s3cret-value", "USER": "ada", "NONE": ""}
        result = run.results[0]
        assert result.rendered is not None
        assert result.rendered.environment == {"TOKEN": "${{ secrets.TOKEN }}", "USER": "ada", "NONE": ""}
        kept = b"".join(path.read_bytes() for path in bench.folder.joinpath("store").rglob("*") if path.is_file())
        assert b"s3cret-value" not in kept
        assert b"${{ secrets.TOKEN }}" in kept
        assert not any("s3cret-value" in line for line in bench.shown)

    def test_a_diff_with_a_secret_stops_the_workspace(self, bench: Workbench) -> None:
        spec = spec_of('{run: "write config token=s3cret-value", container: i, env: [TOKEN]}', "out never")

        run = bench.run(spec, outside=self.OUTSIDE)

        assert run.failure is not None
        assert run.failure.reason == "secret_in_diff"
        assert "TOKEN" in run.failure.message
        kept = b"".join(path.read_bytes() for path in bench.folder.joinpath("store").rglob("*") if path.is_file())
        assert b"s3cret-value" not in kept

    def test_an_ignored_file_with_a_secret_is_not_kept(self, bench: Workbench) -> None:
        spec = spec_of('{run: "write .gitignore npmrc\\nwrite npmrc s3cret-value", container: i, env: [TOKEN]}')

        run = bench.run(spec, outside=self.OUTSIDE)

        assert run.failure is None
        assert run.results[0].layer is None

    def test_a_value_from_outside_is_no_template(self, bench: Workbench, runtime: FakeRuntime) -> None:
        spec = spec_of('{run: "env USER", container: i, env: [USER]}')

        bench.run(spec, outside=Outside.of(secrets={}, variables={"USER": "${{ repository.name }}"}))

        assert runtime.ran[0].environment == {"USER": "${{ repository.name }}"}
