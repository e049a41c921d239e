"""Which changes need no git to be added. That the diff is the same: tests/test_diff_collection.py."""

from __future__ import annotations

import pytest

from flows.gitindex import IndexEntry
from flows.layers import Entry
from flows.plain_changes import is_plain


def base(*paths: bytes, rules: tuple[bytes, ...] = (), mode: int = 0o100644) -> dict[bytes, IndexEntry]:
    found = {path: IndexEntry(path, mode, "0" * 40) for path in paths}
    return found | {path: IndexEntry(path, 0o100644, "0" * 40, skip_worktree=True) for path in rules}


def plain(there: dict[bytes, IndexEntry], **changed: Entry) -> bool:
    entries = {name.encode(): entry for name, entry in changed.items()}
    return is_plain(there, entries, there.keys())


FILE = Entry("file", 0o666, size=10)


def test_edits_new_files_and_removals_are_plain() -> None:
    assert plain(base(b"a", b"b"), **{"a": FILE, "b": Entry("gone"), ".github/new.yml": FILE, "d": Entry("folder")})


def test_a_new_file_under_an_ignore_file_is_not_but_an_edit_is() -> None:
    there = base(b"a", rules=(b".gitignore",))

    assert plain(there, a=FILE)
    assert not plain(there, a=FILE, b=FILE)


@pytest.mark.parametrize("name", [".gitattributes", "d/.gitattributes", ".gitmodules", ".gitignore", "d/.GitIgnore"])
def test_a_change_of_the_rules_is_not(name: str) -> None:
    assert not plain(base(), **{name: FILE})


def test_attributes_above_a_change_are_not() -> None:
    assert not plain(base(b"d/a", rules=(b".gitattributes",)), **{"d/a": FILE})


def test_what_replaces_a_submodule_is_not() -> None:
    assert not plain(base(b"a", mode=0o160000), a=FILE)


@pytest.mark.parametrize("name", ["é", "a\\b", "a:b", "n\nl", ".GIT/x", "d/.git. /x", "git~1"])
def test_a_name_that_git_may_refuse_is_not(name: str) -> None:
    assert not plain(base(), **{name: FILE})


def test_a_link_with_a_name_of_gits_own_is_not() -> None:
    assert plain(base(), a=Entry("link"))
    assert not plain(base(), **{"gitmod~1": Entry("link")})


def test_much_is_not() -> None:
    assert not plain(base(), **{str(number): FILE for number in range(1000)})
    assert not plain(base(), a=Entry("file", size=100 << 20))
