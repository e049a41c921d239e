"""`if`: what is true, and what can be said before any step runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.conditions import evaluate_static, is_true, skipped_steps
from flows.batches.errors import TemplateError
from flows.batches.template import StepContext, render_step

NAMES = {
    "repository_name": "code.example.com/acme/widget",
    "batch_change_name": "tidy-up",
    "batch_change_description": "Tidy all",
}


def static(condition: str) -> bool | None:
    return evaluate_static(condition, **NAMES)


@pytest.mark.parametrize("rendered", ["true", " true\n", "\u00a0true\u2003"])
def test_only_true_is_true(rendered: str) -> None:
    assert is_true(rendered)


@pytest.mark.parametrize(
    "rendered", ["", "True", "TRUE", "yes", "1", "truetrue", "true true", "\x1ctrue", "<no value>"]
)
def test_everything_else_is_false(rendered: str) -> None:
    assert not is_true(rendered)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        " true ",
        "${{ true }}",
        '${{ "true" }}',
        "tr${{ `ue` }}",
        "${{- /* c */ -}} true",
        "${{ eq repository.name `code.example.com/acme/widget` }}",
        '${{ eq batch_change.name "tidy-up" }}',
        '${{ eq batch_change.description "Tidy all" }}',
        '${{ matches repository.name "*/acme/*" }}',
        '${{ not (matches repository.name "*/other/*") }}',
        '${{ eq (join (split repository.name "/") "-") "code.example.com-acme-widget" }}',
        '${{ eq (replace repository.name "acme" "z") "code.example.com/z/widget" }}',
        '${{ eq (join_if "-" "a" "" "b") "a-b" }}',
        '${{ ne "5" 5 }}',
        "${{ ne 5 5.0 }}",
        "${{ eq 'a' 0x61 }}",
        '${{ not "" }}',
        '${{ define "t" }}anything${{ end }}true',
    ],
)
def test_is_known_to_be_true(condition: str) -> None:
    assert static(condition) is True


@pytest.mark.parametrize(
    "condition",
    [
        " ",
        "false",
        "random",
        "${{ false }}",
        "${{ 1 }}",
        "${{ true }}${{ true }}",
        '${{ eq repository.name "other" }}',
        "${{ eq 5 5.0 }}",
        '${{ eq "5" 5 }}',
        '${{ split "true" "," }}',
        '${{ eq (split "a" ",") "a" }}',
    ],
)
def test_is_known_to_be_false(condition: str) -> None:
    assert static(condition) is False


@pytest.mark.parametrize(
    "condition",
    [
        "${{ outputs.x }}",
        "${{ steps.path }}",
        "${{ previous_step.stdout }}",
        "${{ repository.branch }}",
        "${{ repository.search_result_paths }}",
        "${{ repository }}",
        "${{ repository.name.x }}",
        "${{ .Repository.Name }}",
        "${{ (repository).name }}",
        "${{ (true) }}",
        "${{ and true true }}",
        "${{ or false true }}",
        "${{ len `a` }}",
        "${{ print true }}",
        "${{ lt 1 2 }}",
        "${{ eq 1 2 1 }}",
        "${{ eq 1 (and 1 1) }}",
        "${{ not true false }}",
        "${{ nil }}",
        "${{ 18446744073709551615 }}",
        "${{ $x := true }}true",
        "${{ if true }}true${{ end }}",
        "${{ range 1 }}true${{ end }}",
        '${{ template "t" }}${{ define "t" }}true${{ end }}',
        "${{ false | not }}",
        "${{ `x` | eq 1 1 }}",
        '${{ matches repository.name "[" }}',
        '${{ join "a" "," }}',
        "${{ split `a` }}",
        "${{ eq (split `a` `,`) (split `a` `,`) }}",
    ],
)
def test_is_left_to_the_running_step(condition: str) -> None:
    assert static(condition) is None


@pytest.mark.parametrize("condition", ["${{ bogus }}", "${{ true", "${{ repository.name | true }}", "${{ end }}"])
def test_a_condition_that_does_not_parse_is_an_error(condition: str) -> None:
    with pytest.raises(TemplateError):
        static(condition)


def test_skips_what_is_known_to_be_false_and_nothing_else() -> None:
    conditions = ["", "false", "${{ outputs.x }}", '${{ ne batch_change.name "tidy-up" }}', "true"]

    assert skipped_steps(conditions, **NAMES) == {1, 3}


def test_an_error_names_the_step() -> None:
    with pytest.raises(TemplateError, match=r"^steps\.1\.if: function \"bogus\" not defined$"):
        skipped_steps(["", "${{ bogus }}"], **NAMES)


texts = st.sampled_from(["`x`", "``", "`acme`", "`/`", "repository.name", "batch_change.name", "`code.*`"])
expressions = st.recursive(
    st.one_of(texts, st.sampled_from(["true", "false", "1", "2"])),
    lambda inner: st.builds(
        lambda form, arguments: "(" + form.format(*arguments) + ")",
        st.sampled_from(["eq {} {}", "ne {} {}", "not {}", "matches {} {}", "replace {} {} {}", "join_if {} {}"]),
        st.lists(inner, min_size=3, max_size=3),
    ),
    max_leaves=8,
)


@given(expressions)
def test_what_is_known_ahead_is_what_the_step_will_find(expression: str) -> None:
    """Unless the step would fail: equality of different types is an error only there."""
    condition = "${{ " + expression.removeprefix("(").removesuffix(")") + " }}"
    context = StepContext(repository_name=NAMES["repository_name"], batch_change_name=NAMES["batch_change_name"])
    try:
        rendered = render_step(condition, context)
    except TemplateError:
        return

    assert static(condition) in (None, is_true(rendered))
