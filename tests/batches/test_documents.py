"""YAML as upstream's parser reads it; what it cannot mean is refused with the line."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.documents import LONGEST_TEXT, Json, parse
from flows.batches.errors import Fault, SpecError


def faults_of(text: str) -> tuple[Fault, ...]:
    with pytest.raises(SpecError) as caught:
        parse(text)
    return caught.value.faults


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("on", "on"),
        ("~", None),
        ("010", 8),
        ("08", 8),
        ("0o17", 15),
        ("-0x1_F", -31),
        ("0b101", 5),
        ("1e3", 1000),
        (".5", 0.5),
        (".5_0", 0.5),
        ("._5", "._5"),
        ("1e400", "1e400"),
        ("3.19", 3.19),
        ("1.2.3", "1.2.3"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", float(2**64)),
        ("9" * 5000, "9" * 5000),
        ("2024-1-2", "2024-01-02T00:00:00Z"),
        ("2024-02-30", "2024-02-30"),
        ("2024-01-02 03:04:05.60", "2024-01-02T03:04:05.6Z"),
        ("2024-01-02T03:04:05+02:00", "2024-01-02T03:04:05+02:00"),
        ("2024-01-02T03:04:05", "2024-01-02T03:04:05"),
        ("!!float 1", 1.0),
        ("!!int '1'", 1),
        ("!!str 2024-01-02", "2024-01-02"),
        ("!custom 1", "1"),
        ("!!binary /w==", "\ufffd"),
        ("'2024-01-02'", "2024-01-02"),
    ],
)
def test_a_scalar_means_what_it_means_upstream(scalar: str, value: Json) -> None:
    found = parse(f"a: {scalar}\n").data

    assert found == {"a": value}


def test_only_the_first_document_counts() -> None:
    assert parse("a: 1\n---\nb: 2\n").data == {"a": 1}


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "\ufeff"])
def test_a_text_without_content_is_null(text: str) -> None:
    assert parse(text).data is None


def test_a_text_after_the_document_is_refused() -> None:
    assert faults_of('{"a": 1}\n{"b": 2}\n')[0].line == 2


def test_keys_become_text() -> None:
    """JSON has no other keys."""
    assert parse("{1: a, true: b, 1.5: c, 010: d}").data == {"1": "a", "true": "b", "1.5": "c", "8": "d"}


@pytest.mark.parametrize("key", ["~", "[a]", "{a: b}"])
def test_a_key_that_is_no_text_is_refused(key: str) -> None:
    assert faults_of(f"a: 1\n? {key}\n: 2\n")[0].line == 2


def test_every_duplicate_key_is_told_with_both_lines() -> None:
    found = faults_of("a: 1\nb: {c: 1, c: 2}\na: 2\n")

    assert [(fault.message, fault.line) for fault in found] == [
        ('yaml: line 3: mapping key "a" already defined at line 1', 3),
        ('yaml: line 2: mapping key "c" already defined at line 2', 2),
    ]


def test_merged_keys_give_way_to_own_ones_and_to_earlier_merged_ones() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2, <<: *x}\nz: {<<: [*y, *x], c: 3, d: 3}\n"

    data = parse(text).data

    assert isinstance(data, dict)
    assert data["z"] == {"c": 3, "d": 3, "b": 2, "a": 1}


@pytest.mark.parametrize("value", ["1", "", "[1]", "*list"])
def test_only_mappings_can_be_merged(value: str) -> None:
    (fault,) = faults_of(f"list: &list [1]\na:\n  <<: {value}\n")

    assert "map merge requires map" in fault.message
    assert fault.line == 3


def test_a_quoted_merge_key_is_a_key() -> None:
    assert parse('"<<": {a: 1}').data == {"<<": {"a": 1}}


@pytest.mark.parametrize("number", [".inf", "-.INF", ".nan"])
def test_a_number_that_json_does_not_have_is_refused(number: str) -> None:
    assert faults_of(f"a:\n  - 1\n  - {number}\n") == (
        Fault("a.1", f"unsupported value: {number} (JSON has no such number)", 3),
    )


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}", "a: &a {b: {<<: *a}}"])
def test_a_value_cannot_contain_itself(text: str) -> None:
    assert len(faults_of(text)) == 1


@pytest.mark.parametrize(
    "line", ["a{n}: &a{n} [{uses}]", "a{n}: &a{n} {{<<: [{uses}]}}"], ids=["values", "merged mappings"]
)
def test_aliases_that_multiply_are_refused_at_once(line: str) -> None:
    lines = ["a0: &a0 {x: 1}", *(line.format(n=n, uses=",".join([f"*a{n - 1}"] * 9)) for n in range(1, 12))]
    start = time.monotonic()

    found = faults_of("\n".join(lines))

    assert "excessive aliasing" in found[0].message
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("text", ["[" * 10_000, "a: " + "{a: " * 10_000, "- " * 10_000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested deeper than 100 levels" in faults_of(text)[0].message


def test_a_very_long_text_is_refused() -> None:
    assert "is longer than" in faults_of("a" * (LONGEST_TEXT + 1))[0].message


@pytest.mark.parametrize("text", ["a: 1\nb: \x00\n", "a: 1\nb: \x07\n", "a: 1\nb: \ud800\n"])
def test_a_character_that_yaml_does_not_have_is_refused_with_its_line(text: str) -> None:
    assert faults_of(text)[0].line == 2


def test_a_character_may_be_two_escapes_as_in_json() -> None:
    assert parse('{"a": "\\ud83d\\ude00"}').data == {"a": "\U0001f600"}


def test_half_a_character_is_refused() -> None:
    assert "invalid Unicode" in faults_of('{"a": "\\ud83d"}')[0].message


def test_a_syntax_fault_has_its_line_and_says_what_to_do_about_tabs() -> None:
    (fault,) = faults_of("name: a\non:\n\t- repository: x\n")

    assert fault.line == 3
    assert fault.message.startswith("yaml: line 3: ")
    assert fault.message.endswith("; indent with spaces, not with tabs")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: b\t\nc: d\n", {"a": "b", "c": "d"}),
        ("a:\tb\t# comment\n", {"a": "b"}),
        ("a: b\tc\n", {"a": "b\tc"}),
        ("a: b\n  \tc\n", {"a": "b c"}),
        ("a: b\n\n\n  c\n", {"a": "b\n\nc"}),
        ("a: b\r\n  c\r\nd: e\r\n", {"a": "b c", "d": "e"}),
        ("a\n--- b\n", "a"),
        ("a\n... \n", "a"),
    ],
)
def test_tabs_and_line_breaks_are_taken_as_upstream_takes_them(text: str, data: Json) -> None:
    assert parse(text).data == data


def test_a_tab_is_no_indentation_of_a_plain_text() -> None:
    assert faults_of("- a: b\n\t c\n")[0].line == 2


def test_a_colon_may_stand_in_plain_text_of_a_flow_mapping() -> None:
    assert parse("{container: alpine:3, on: [http://x]}").data == {"container": "alpine:3", "on": ["http://x"]}


def test_every_value_has_its_line() -> None:
    document = parse("a:\n  - b:\n      c\n  - run: |\n      one\n      two\nd: [1,\n 2]\n")

    assert document.line_of(("a", "0", "b")) == 2
    assert document.line_of(("a", "1", "run")) == 4
    assert document.line_of(("a", "1", "run"), within=2) == 6
    assert document.line_of(("d", "1")) == 8
    assert document.line_of(("d", "missing")) == 7
    assert document.line_of(("missing",)) == 1


def test_a_merged_value_has_the_line_where_it_is_written() -> None:
    document = parse("x: &x\n  a: 1\n  b: 1\ny:\n  <<: *x\n")

    assert document.line_of(("y", "b")) == 3


texts = st.text(st.characters(exclude_characters="\x7f", codec="utf-8"))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_is_yaml(value: Json) -> None:
    found = parse(json.dumps(value)).data

    assert found == value


@given(st.text(st.sampled_from("ab01: -[]{}#&*!|>'\"%@`,?\n\t.~<=\\x\ud800\x00é")) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(SpecError):
        parse(text)
