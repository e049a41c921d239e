"""The ${{ }} language: as Go's text/template where Go is the reference, and what we decided beyond it."""

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.errors import TemplateError
from flows.batches.template import (
    ChangesetContext,
    ContextKind,
    StepContext,
    StepState,
    check,
    dry_run,
    parse,
    render_changeset,
    render_step,
    variables,
)

GO = json.loads((Path(__file__).parent / "go_templates.json").read_text())
"""Recorded from Go 1.26's text/template with upstream's functions, in the context below; by topic."""

CONTEXT = StepContext(
    batch_change_name="tidy",
    batch_change_description="Tidy all",
    repository_name="code.example.com/acme/widget",
    repository_branch="main",
    search_result_paths=("b/z.go", "a.go"),
    path="pkg/web",
    steps=StepState(modified=("README.md", "b c.txt")),
    previous_step=StepState(modified=("README.md",), stdout="out\n"),
    step=StepState(modified=("cur.txt", "b.txt")),
    outputs={
        "greeting": "hi",
        "flag": "false",
        "count": 3.0,
        "ratio": 1.5,
        "big": 12345678901.0,
        "negative": -2.5,
        "integer": 7,
        "nothing": None,
        "list": ["x", "y"],
        "object": {"b": 2.0, "a": {"deep": "v"}},
        "empty_object": {},
        "nested": [{"n": "one"}, {"n": "two"}],
        "mixed": [1.0, "a", None, True, [{"k": None}]],
    },
)


def failure(template: str, context: StepContext = CONTEXT) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        render_step(template, context)
    return caught.value


def cases(outcome: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{topic}: {case['template']}"[:80])
        for topic, recorded in GO.items()
        for case in recorded
        if outcome in case
    ]


@pytest.mark.parametrize("case", cases("out"))
def test_renders_as_go_does(case: dict[str, Any]) -> None:
    assert render_step(case["template"], CONTEXT) == case["out"]


@pytest.mark.parametrize("case", cases("error"))
def test_fails_with_the_message_and_line_of_go(case: dict[str, Any]) -> None:
    error = failure(case["template"])

    assert error.message.partition("; write index outputs")[0] == case["error"]
    assert error.line == case["line"]


class TestContexts:
    @pytest.mark.parametrize(
        "template",
        ["${{ previous_step.stdout }}", "${{ step.stdout }}", "${{ steps.stdout }}", "${{ .PreviousStep.Stdout }}"],
    )
    def test_previous_step_and_step_do_not_exist_in_a_changeset_template(self, template: str) -> None:
        render_step(template, CONTEXT)

        with pytest.raises(TemplateError):
            render_changeset(template, ChangesetContext())

    def test_batch_change_link_renders_to_itself(self) -> None:
        assert render_changeset("See ${{ batch_change_link }}.", ChangesetContext()) == (
            "See ${{ batch_change_link }}."
        )

    def test_a_changeset_field_is_trimmed_as_go_trims(self) -> None:
        assert render_changeset("\u00a0\n ${{ steps.path }}\x1f \t", ChangesetContext(path="a b")) == "a b\x1f"

    def test_a_step_field_keeps_its_white_space(self) -> None:
        assert render_step("\n ${{ steps.path }} \n", StepContext(path="a")) == "\n a \n"

    @pytest.mark.parametrize("branch", ["main", "refs/heads/main"])
    def test_the_branch_is_short(self, branch: str) -> None:
        assert render_step("${{ repository.branch }}", StepContext(repository_branch=branch)) == "main"
        assert render_changeset("${{ .Repository.Branch }}", ChangesetContext(repository_branch=branch)) == "main"

    def test_search_result_paths_are_sorted_by_their_bytes(self) -> None:
        context = StepContext(search_result_paths=("\U0001f600", "\uffff", "b", "B"))

        assert render_step("${{ repository.search_result_paths }}", context) == "B b \uffff \U0001f600"

    def test_everything_is_empty_before_any_step(self) -> None:
        template = '${{ previous_step.stdout }}${{ join steps.added_files "," }}${{ step.deleted_files }}${{ outputs }}'

        assert render_step(template, StepContext()) == "[]map[]"


class TestLaziness:
    def test_a_stream_is_read_only_if_the_template_asks_for_it_and_then_once(self) -> None:
        reads: list[str] = []

        def read() -> str:
            reads.append("stdout")
            return "text"

        context = StepContext(previous_step=StepState(stdout=read))

        assert render_step("${{ previous_step.stderr }}${{ len previous_step.modified_files }}", context) == "0"
        assert reads == []
        assert render_step("${{ previous_step.stdout }}${{ .PreviousStep.Stdout }}", context) == "texttext"
        assert reads == ["stdout"]

    def test_outputs_are_loaded_one_by_one(self) -> None:
        class Outputs(Mapping[str, object]):
            def __getitem__(self, key: str) -> object:
                assert key != "expensive", "no other output may be loaded"
                return {"wanted": {"field": 1}}[key]

            def __contains__(self, key: object) -> bool:
                return key in ("wanted", "expensive")

            def __iter__(self) -> Iterator[str]:
                return iter(("wanted", "expensive"))

            def __len__(self) -> int:
                return 2

        context = StepContext(outputs=Outputs())

        assert render_step('${{ outputs.wanted.field }}${{ index outputs "absent" }}', context) == "1<no value>"


class TestValues:
    def test_integers_and_floats_are_different_types(self) -> None:
        context = StepContext(outputs={"yaml": 1234567, "json": 1234567.0})

        assert render_step("${{ outputs.yaml }} ${{ outputs.json }}", context) == "1234567 1.234567e+06"
        assert render_step("${{ eq outputs.yaml 1234567 }}", context) == "true"
        assert "float64 and int" in failure("${{ eq outputs.json 1234567 }}", context).message

    def test_an_integer_beyond_64_bits_signed_is_a_uint64(self) -> None:
        context = StepContext(outputs={"n": 2**64 - 1})

        assert render_step('${{ outputs.n }} ${{ printf "%T" outputs.n }} ${{ lt 1 outputs.n }}', context) == (
            "18446744073709551615 uint64 true"
        )

    def test_a_map_may_have_keys_that_are_no_strings(self) -> None:
        context = StepContext(outputs={"m": {1: "one", "k": "v"}, "s": {"1": "one"}})

        assert (
            render_step("${{ outputs.m.k }} ${{ index outputs.m 1 }} ${{ index outputs.m true }}", context)
            == "v one <no value>"
        )
        assert "value has type int; should be string" in failure("${{ index outputs.s 1 }}", context).message

    def test_not_a_number_and_infinity_print(self) -> None:
        context = StepContext(outputs={"f": [float("nan"), float("inf"), float("-inf")]})

        assert render_step("${{ outputs.f }}", context) == "[NaN +Inf -Inf]"

    def test_bytes_that_are_no_utf_8_survive(self) -> None:
        text = b"a\xff\xc3(".decode("utf-8", "surrogateescape")
        context = StepContext(outputs={"t": text})

        assert render_step('${{ outputs.t }}|${{ len outputs.t }}|${{ printf "%q" outputs.t }}', context) == (
            text + '|4|"a\\xff\\xc3("'
        )
        assert render_step('${{ "\\xff" }}', context).encode("utf-8", "surrogateescape") == b"\xff"


class TestErrors:
    def test_the_message_about_a_missing_output_names_the_safe_form(self) -> None:
        error = failure("${{ outputs.version }}")

        assert str(error) == (
            'at <outputs>: map has no entry for key "version"; write index outputs "version" where it may be missing'
        )
        assert render_step('${{ index outputs "version" }}', CONTEXT) == "<no value>"

    def test_no_safe_form_is_named_where_a_name_is_wrong(self) -> None:
        assert str(failure("${{ repository.nam }}")) == 'at <repository>: map has no entry for key "nam"'

    def test_an_error_carries_field_and_line_and_survives_pickling(self) -> None:
        with pytest.raises(TemplateError) as caught:
            render_step("a\n${{ nope }}", CONTEXT, "steps.0.run")

        error = pickle.loads(pickle.dumps(caught.value))
        assert (error.field, error.line) == ("steps.0.run", 2)
        assert str(error) == 'steps.0.run: function "nope" not defined'

    def test_an_action_that_is_never_closed_names_where_it_began(self) -> None:
        with pytest.raises(TemplateError, match=r"unclosed action started at steps\.0\.run:2"):
            check("a\n${{ 1\n\n", ContextKind.STEP, "steps.0.run")

    def test_a_message_stays_short(self) -> None:
        assert len(failure("${{ 1" + "0" * 100_000 + " }}").message) < 600
        assert len(failure("${{ index 1 " + "2 " * 100_000 + " }}").message) < 1200


class TestLimits:
    """Specs are untrusted: no template may hang or exhaust the host."""

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("${{ range 1000000000 }}${{ range 1000000000 }}${{ break }}${{ end }}${{ end }}", "evaluations"),
            ('${{ $x := "aaaaaaaa" }}${{ range 100 }}${{ $x = print $x $x }}${{ end }}', "a text longer than"),
            ('${{ range 1000 }}${{ printf "%1000000d" 1 }}${{ end }}', "a text longer than"),
            (
                '${{ $x := printf "%9000d" 1 }}${{ range 9 }}${{ $x = replace $x "" $x }}${{ end }}',
                "a text longer than",
            ),
            ('${{ $x := printf "%999999d" 1 }}${{ range 9999 }}${{ $y := js $x }}${{ end }}', "characters of text"),
            ('${{ $x := printf "%999999d" 1 }}${{ range 9999 }}${{ $y := len (split $x "") }}${{ end }}', "of text"),
            (
                '${{ define "t" }}${{ template "t" . }}${{ end }}${{ template "t" . }}',
                "exceeded maximum template depth",
            ),
            ("${{ " + "(" * 500 + "1" + ")" * 500 + " }}", "max expression depth exceeded"),
            ("${{ if 1 }}" * 500 + "${{ end }}" * 500, "blocks nest too deeply"),
            ("${{ if 0 }}" + "${{ else if 0 }}" * 500 + "${{ end }}", "blocks nest too deeply"),
            ("${{ $x := 1 }}" * 1100, "more than 1000 variables"),
        ],
    )
    def test_too_much_work_is_an_error(self, template: str, message: str) -> None:
        assert message in failure(template).message

    def test_a_value_that_nests_too_deeply_is_an_error(self) -> None:
        value: object = "x"
        for _ in range(5000):
            value = [value]

        assert "nests too deeply" in failure("${{ outputs.deep }}", StepContext(outputs={"deep": value})).message

    def test_what_nests_deeply_but_not_too_deeply_renders(self) -> None:
        template = "${{ if 1 }}" * 90 + "${{ " + "(" * 9 + "1" + ")" * 9 + " }}" + "${{ end }}" * 90

        assert render_step(template, CONTEXT) == "1"

    def test_a_large_script_renders(self) -> None:
        files = tuple(f"some/folder/file_{number}.txt" for number in range(20_000))
        context = StepContext(steps=StepState(modified=files))

        text = render_step("${{ range steps.modified_files }}touch ${{ . }}\n${{ end }}", context)

        assert text.count("\n") == 20_000


class TestVariables:
    @pytest.mark.parametrize(
        ("template", "names"),
        [
            ("no action", set()),
            ("${{ previous_step.stdout }}", {"previous_step.stdout"}),
            ('${{ index outputs "x" }}${{ outputs.a.b }}', {"outputs", "outputs.a"}),
            ('${{ if eq (len steps.added_files) 1 }}${{ join step.modified_files "" }}${{ end }}', None),
            ("${{ (repository).name }}${{ $x := batch_change.name }}${{ $x }}", {"repository", "batch_change.name"}),
            ("${{ range .PreviousStep.Stdout }}${{ . }}${{ $.Outputs.x }}${{ end }}", {"previous_step", "outputs"}),
            ('${{ define "t" }}${{ outputs.x }}${{ end }}', {"outputs.x"}),
            ("${{ with 1 }}${{ . }}${{ else }}${{ step.stderr }}${{ end }}", {"step.stderr"}),
            ('${{ print "previous_step.stdout" }}', set()),
        ],
    )
    def test_names_what_a_template_reads(self, template: str, names: set[str] | None) -> None:
        expected = {"steps.added_files", "step.modified_files"} if names is None else names

        assert variables(template, ContextKind.STEP) == expected

    @pytest.mark.parametrize("template", ["${{ . }}", "${{ print $ }}", '${{ template "t" . }}'])
    def test_a_template_that_hands_on_the_context_reads_everything(self, template: str) -> None:
        assert variables(template, ContextKind.CHANGESET) == set(ContextKind.CHANGESET.variables)


class TestDryRun:
    @pytest.mark.parametrize(
        "text",
        [
            "name: x\n# ${{ outputs.anything.at.all }} ${{ OUTPUTS.x nonsense }}",
            "${{ index steps.nothing 4 }}${{INDEX bogus}}${{\n indexes }}",
            "${{ batch_change_link }}${{ previous_step.stdout }}${{ step.stderr }}${{ .Repository.Name }}",
            "a } b }} ${{ join repository.search_result_paths `}` }}",
        ],
    )
    def test_lets_pass_what_upstream_lets_pass(self, text: str) -> None:
        dry_run(text)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("# ${{ nope }}", "unknown templating variable: 'nope'"),
            ("${{ repository.nam }}", "unknown templating variable: 'repository.nam'"),
            ("${{ steps.stdout }}", "unknown templating variable: 'steps.stdout'"),
            ("a\n${{ if }}", "template: validateBatchSpecTemplate:2: missing value for if"),
            (
                "a\né ${{ len 3 }}",
                'template: validateBatchSpecTemplate:2:7: executing "validateBatchSpecTemplate" at <len 3>: '
                "error calling len: len of type int",
            ),
            (
                '${{ define "t" }}${{ .X }}${{ end }}${{ template "t" 1 }}',
                'template: validateBatchSpecTemplate:1:21: executing "t" at <.X>: can\'t evaluate field X in type int',
            ),
        ],
    )
    def test_reports_as_upstream(self, text: str, message: str) -> None:
        with pytest.raises(TemplateError) as caught:
            dry_run(text)

        assert caught.value.message == f"validating batch spec template: {message}"

    def test_takes_linear_time(self) -> None:
        with pytest.raises(TemplateError):
            dry_run("${{ index " * 50_000 + "} ${{ outputs." * 50_000)


plain_text = st.text().filter(lambda text: "${{" not in text)
language = st.lists(
    st.sampled_from(
        [
            *("${{", "}}", "${{- ", " -}}", "/*", "*/", " ", "\n", "(", ")", "|", ",", ":=", "=", "$x", "$", "."),
            *("if", "else", "end", "range", "with", "define", "template", "block", "break", "nil", "true"),
            *('"a"', '"', "`", "'a'", "'", "1", "0x", "1.5e", "-", "outputs", ".x", "eq", "print", "printf", "é", "\\"),
        ]
    )
).map("".join)


@given(plain_text)
def test_text_without_an_action_renders_to_itself(text: str) -> None:
    assert render_step(text, StepContext()) == text


@given(plain_text, plain_text)
def test_text_around_an_action_is_kept(before: str, after: str) -> None:
    assert render_step(before + " ${{ 1 }} " + after, StepContext()) == f"{before} 1 {after}"


@given(st.one_of(st.text(), language, language.map(lambda text: "${{ " + text + " }}")))
def test_any_text_is_a_template_or_a_template_error(text: str) -> None:
    try:
        check(text, ContextKind.STEP)
    except TemplateError:
        return
    try:
        render_step(text, CONTEXT)
    except TemplateError:
        return


@given(st.text())
def test_a_quoted_string_reads_back_as_it_was(text: str) -> None:
    context = StepContext(outputs={"text": text})

    quoted = render_step('${{ printf "%q" outputs.text }}', context)

    assert render_step(f"${{{{ {quoted} }}}}", context) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_reads_back_as_it_was(number: float) -> None:
    shown = render_step("${{ outputs.n }}", StepContext(outputs={"n": number}))

    assert float(shown) == number
    assert len(shown.lstrip("-").replace(".", "").split("e")[0].strip("0")) <= 17


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_an_integer_literal_is_its_value(number: int) -> None:
    assert render_step(f"${{{{ {number} }}}} ${{{{ {number:#o} }}}}", StepContext()) == f"{number} {number}"


@given(st.lists(st.text(max_size=5)), st.text(max_size=3))
def test_join_and_split_are_those_of_the_text(items: list[str], separator: str) -> None:
    context = StepContext(steps=StepState(modified=tuple(items)), outputs={"separator": separator})

    joined = render_step("${{ join steps.modified_files outputs.separator }}", context)

    assert joined == separator.join(items)


def test_a_parsed_template_is_frozen() -> None:
    template = parse("${{ 1 }}", ContextKind.STEP)

    with pytest.raises(AttributeError):
        template.text = ""  # type: ignore[misc]
