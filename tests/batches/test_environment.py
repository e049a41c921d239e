"""A step's variables: static ones, and those that come from outside by name."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.environment import OuterEntryError, canonical, is_static, outer_names, parse_outer, resolve
from flows.batches.spec import EnvEntry

A, USER = EnvEntry(name="A", value="b"), EnvEntry(name="USER", value=None)


def test_a_name_takes_the_outer_value() -> None:
    assert resolve([A, USER], {"USER": "ada", "A": "outer"}) == {"A": "b", "USER": "ada"}


def test_a_name_that_is_unset_outside_is_empty_and_still_there() -> None:
    assert resolve([USER], {}) == {"USER": ""}


def test_later_duplicates_win() -> None:
    static = EnvEntry(name="USER", value="eve")

    assert resolve([static, USER], {"USER": "ada"}) == {"USER": "ada"}
    assert resolve([USER, static], {"USER": "ada"}) == {"USER": "eve"}


def test_values_from_outside_are_taken_as_they_are() -> None:
    """Only text of the spec is a template."""
    assert resolve([USER], {"USER": "${{ repository.name }}"}) == {"USER": "${{ repository.name }}"}


def test_outer_names_are_told_once_in_order() -> None:
    other = EnvEntry(name="OTHER", value=None)

    assert outer_names([USER, A, other, USER]) == ("USER", "OTHER")


def test_outer_entries_are_split_at_the_first_equals_sign() -> None:
    assert parse_outer(["A=b=c", "EMPTY=", "=C:=x", "A=d"]) == {"A": "d", "EMPTY": "", "": "C:=x"}


def test_an_outer_entry_without_equals_sign_is_refused() -> None:
    with pytest.raises(OuterEntryError, match='unable to parse environment variable "TOKEN"; write it as NAME=VALUE'):
        parse_outer(["A=b", "TOKEN"])


def test_the_refusal_survives_pickling() -> None:
    error = OuterEntryError("TOKEN")

    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_canonical_form_is_an_object_if_all_is_static() -> None:
    assert canonical([A, EnvEntry(name="A", value="c")]) == {"A": "c"}
    assert canonical([A, USER]) == [{"A": "b"}, "USER"]
    assert canonical([]) == {}


@given(st.lists(st.builds(EnvEntry, name=st.sampled_from("ABC"), value=st.none() | st.text())))
def test_every_variable_is_resolved_once(entries: list[EnvEntry]) -> None:
    resolved = resolve(entries, {"A": "outer"})

    assert resolved.keys() == {entry.name for entry in entries}
    assert is_static(entries) == (not outer_names(entries)) == isinstance(canonical(entries), dict)
