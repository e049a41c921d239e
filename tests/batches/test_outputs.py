"""Outputs of a step: formats, what they see, and that reading them back changes nothing."""

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.errors import TemplateError
from flows.batches.gojson import MAX_DEPTH
from flows.batches.outputs import OutputError, OutputTooLarge, render_outputs
from flows.batches.results import StepResult, read_step_result
from flows.batches.spec import Output
from flows.batches.template import StepContext, StepState, render_step


def _render(stdout: str = "", previous: dict[str, object] | None = None, **outputs: Output) -> dict[str, Any]:
    return render_outputs(outputs, StepContext(step=StepState(stdout=stdout), outputs=previous or {}), 0)


def _stdout(format: Any) -> Output:
    return Output(value="${{ step.stdout }}", format=format)


def test_text_is_kept_as_it_is() -> None:
    assert _render(" x\n", a=_stdout("text"), b=_stdout("")) == {"a": " x\n", "b": " x\n"}


def test_json_numbers_are_floats_and_yaml_integers_are_integers() -> None:
    """Upstream's users rely on it: `3` of JSON does not equal the literal 3, that of YAML does."""
    outputs = _render("[1, 1.5]", j=_stdout("json"), y=_stdout("yaml"))

    assert [type(each) for each in outputs["j"]] == [float, float]
    assert [type(each) for each in outputs["y"]] == [int, float]


def test_only_the_first_value_or_document_is_read() -> None:
    assert _render('{"k": 1} }{', a=_stdout("json")) == {"a": {"k": 1}}
    assert _render("a: 1\n---\n[\n", a=_stdout("yaml")) == {"a": {"a": 1}}


@pytest.mark.parametrize(
    ("format", "stdout", "problem"),
    [
        ("json", "nope", "invalid character 'o' in literal null (expecting 'u')"),
        ("json", "", "EOF"),
        ("json", "{", "unexpected EOF"),
        ("yaml", "", "EOF"),
        ("yaml", "# only a comment\n", "EOF"),
        ("yaml", "a: [", "line"),
        ("yaml", "a: .inf", "unsupported value"),
        ("yaml", "a: 1\na: 2\n", "already defined"),
    ],
)
def test_a_text_that_is_not_of_its_format_is_an_error(format: str, stdout: str, problem: str) -> None:
    with pytest.raises(OutputError) as caught:
        _render(stdout, a=_stdout(format))

    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"output 'a' is no {format.upper()}: ")


def test_null_is_a_value() -> None:
    assert _render("null", a=_stdout("yaml"), b=_stdout("json")) == {"a": None, "b": None}


def test_outputs_see_those_of_earlier_steps_and_those_written_before_them() -> None:
    outputs = _render(
        previous={"a": "0"},
        a=Output(value="${{ outputs.a }}1"),
        b=Output(value="${{ outputs.a }}2"),
    )

    assert outputs == {"a": "01", "b": "012"}


def test_the_outputs_of_earlier_steps_are_not_changed() -> None:
    previous: dict[str, object] = {"a": "0"}

    _render(previous=previous, a=Output(value="1"))

    assert previous == {"a": "0"}


def test_a_template_error_names_the_output() -> None:
    with pytest.raises(TemplateError, match=r"steps\.1\.outputs\.a\.value: .*no entry for key \"none\""):
        render_outputs({"a": Output(value="${{ outputs.none }}")}, StepContext(), 1)


def test_the_deepest_json_that_is_taken_can_be_stored_and_rendered() -> None:
    time = datetime.now(UTC)
    outputs = _render("[" * MAX_DEPTH + "]" * MAX_DEPTH, a=_stdout("json"))

    stored = StepResult(index=0, state="completed", started_at=time, ended_at=time, outputs=outputs).encode()

    again = read_step_result(stored).outputs
    assert render_step("${{ outputs.a }}", StepContext(outputs=again), "run") == "[" * MAX_DEPTH + "]" * MAX_DEPTH


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(_VALUES)
def test_a_stored_output_renders_exactly_as_the_fresh_one(value: Any) -> None:
    """Upstream turns the integers of YAML into floats when it reads a cached result."""
    time = datetime.now(UTC)
    stored = StepResult(index=0, state="completed", started_at=time, ended_at=time, outputs={"a": value})

    again = read_step_result(stored.encode()).outputs

    template = "${{ outputs.a }}"
    fresh = render_step(template, StepContext(outputs={"a": value}), "run")
    assert render_step(template, StepContext(outputs=again), "run") == fresh
    assert repr(again) == repr({"a": value})


@pytest.mark.parametrize(
    ("format", "stdout", "told"),
    [
        ("json", "[" + "1," * 4_194_304 + "1]", "has 8,388,611 characters, and 8,388,608 are the most (json)"),
        ("yaml", "x" * 524_289, "has 524,289 characters, and 524,288 are the most (yaml)"),
        ("text", "x" * 8_388_609, "has 8,388,609 characters"),
    ],
)
def test_an_output_that_would_take_minutes_to_read_is_refused(format: str, stdout: str, told: str) -> None:
    with pytest.raises(OutputTooLarge) as caught:
        _render(stdout, a=_stdout(format))

    assert told in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


def test_outputs_are_not_too_large_together() -> None:
    with pytest.raises(OutputTooLarge, match="output '4' and those before it have more than 33,554,432 characters"):
        _render("x" * 8_000_000, **{str(number): _stdout("text") for number in range(5)})
