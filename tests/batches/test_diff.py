"""Diffs, against git itself: real repositories, names and contents of every kind."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.batches.diff import Changes, DiffError, DiffStat, changes, parse, split_by_group, statistics
from flows.batches.spec import Group

_GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.com",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.com",
}
_LONG = "".join(f"line {number}\n" for number in range(40)).encode()
_EVERYTHING = {
    b"kept": _LONG,
    b"a/x": b"1\n",
    b"b/x": b"1\n",
    b"mode": b"1\n",
    b"gone": b"1\n2\n",
    b"gone empty": b"",
    b"old name": _LONG,
    b"old dir/edited": _LONG + b"end\n",
    b"becomes link": b"x\n",
    b"binary": bytes(range(256)),
    b"binary gone": bytes(range(255, -1, -1)) * 40,
    b"header like": b"-- foo\n",
}


def _git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=_GIT_ENVIRONMENT, check=True, capture_output=True).stdout


def _write(folder: Path, files: dict[bytes, bytes]) -> None:
    for name, content in files.items():
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def _committed(folder: Path, files: dict[bytes, bytes]) -> None:
    _git(folder, "init", "--quiet")
    _write(folder, files)
    _git(folder, "add", "--all", "--force")
    _git(folder, "commit", "--quiet", "--allow-empty", "-m", "base")


def _diff(folder: Path) -> bytes:
    _git(folder, "add", "--all", "--force")
    return _git(folder, "diff", "--cached", "--no-prefix", "--binary")


def _status(folder: Path) -> Changes:
    """What git says in `--name-status -z`: one letter and one or two names for each change."""
    words = iter(_git(folder, "diff", "--cached", "--name-status", "-M", "-z").split(b"\0")[:-1])
    lists: dict[str, list[str]] = {"modified": [], "added": [], "deleted": [], "renamed": []}
    for letter in words:
        name = next(words) if not letter.startswith(b"R") else (next(words), next(words))[1]
        for list_name in {"M": ["modified"], "A": ["added"], "D": ["deleted"], "R": ["renamed"]}.get(
            chr(letter[0]), ["deleted", "added"]
        ):
            lists[list_name].append(name.decode("utf-8", "surrogateescape"))
    return Changes.model_validate(lists)


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A repository with a staged change of every kind."""
    _committed(tmp_path, _EVERYTHING)
    for name in ("gone", "gone empty", "becomes link", "binary gone"):
        (tmp_path / name).unlink()
    (tmp_path / "old name").rename(tmp_path / "new name")
    (tmp_path / "old dir").rename(tmp_path / "neuer Ördner")
    (tmp_path / "mode").chmod(0o755)
    (tmp_path / "becomes link").symlink_to("kept")
    _write(
        tmp_path,
        {
            b"a/x": b"2\n",
            b"b/x": b"2",
            b"neuer \xc3\x96rdner/edited": _LONG + b"other end\n",
            b"binary": bytes(range(1, 256)),
            b"header like": b"-- bar\n++ baz\n",
            b'quo"te\\tab\there\nline': b"x\n",
            b"not utf-8 \xff": b"x\n",
            b"empty": b"",
            b"no newline": b"x",
            b"crlf": b"a\r\nb\r\n",
        },
    )
    return tmp_path


def test_a_diff_of_every_kind_of_change_is_read_as_git_means_it(everything: Path) -> None:
    diff = _diff(everything)

    found = changes(diff)

    said = _status(everything)
    assert {name: sorted(paths) for name, paths in found} == {name: sorted(paths) for name, paths in said}
    assert {"new name", "neuer Ördner/edited"} <= set(found.renamed)
    assert 'quo"te\\tab\there\nline' in found.added
    assert "not utf-8 \udcff" in found.added
    assert "becomes link" in found.added
    assert "becomes link" in found.deleted


def test_joining_the_entries_gives_the_diff_back(everything: Path) -> None:
    diff = _diff(everything)

    assert b"".join(file.raw for file in parse(diff)) == diff


def test_lines_are_counted_as_git_counts_them(everything: Path) -> None:
    diff = _diff(everything)
    rows = _git(everything, "diff", "--cached", "--numstat").split(b"\n")[:-1]
    counted = [row.split(b"\t")[:2] for row in rows if not row.startswith(b"-")]

    stat = statistics(diff)

    # A type change is one row for git, with the lines of both of its entries.
    assert stat.added_lines == sum(int(added) for added, _ in counted)
    assert stat.deleted_lines == sum(int(deleted) for _, deleted in counted)
    assert stat.files == len(rows)


def test_modes_and_binary_contents_are_told(everything: Path) -> None:
    files = {(file.path, file.kind): file for file in parse(_diff(everything))}

    assert (files["mode", "modified"].old_mode, files["mode", "modified"].new_mode) == ("100644", "100755")
    assert (files["a/x", "modified"].old_mode, files["a/x", "modified"].new_mode) == ("100644", "100644")
    assert files["becomes link", "added"].new_mode == "120000"
    assert files["becomes link", "deleted"].new_mode is None
    assert files["binary", "modified"].is_binary
    assert files["binary gone", "deleted"].is_binary
    assert not files["a/x", "modified"].is_binary


def test_a_nested_repository_is_an_added_git_link(tmp_path: Path) -> None:
    _committed(tmp_path, {b"f": b"1\n"})
    (tmp_path / "nested").mkdir()
    _committed(tmp_path / "nested", {b"g": b"1\n"})
    subprocess.run(["git", "-C", str(tmp_path), "add", "nested"], env=_GIT_ENVIRONMENT, check=True, capture_output=True)

    (file,) = parse(_git(tmp_path, "diff", "--cached", "--no-prefix", "--binary"))

    assert (file.kind, file.path, file.new_mode, file.added_lines) == ("added", "nested", "160000", 1)


_NAME = st.lists(
    st.binary(min_size=1, max_size=8).filter(
        lambda part: part not in (b".", b"..") and part.lower() != b".git" and not {0, 0x2F} & set(part)
    ),
    min_size=1,
    max_size=2,
).map(b"/".join)
_CONTENT = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"", b"x", b"--- a", b"+++ b", b"@@ -1 +1 @@", b"diff --git x x", b"y\r"]), max_size=6
    ).map(b"\n".join),
)


def _without_folders_as_files(files: dict[bytes, bytes]) -> dict[bytes, bytes]:
    folders = {name.partition(b"/")[0] for name in files if b"/" in name}
    return {name: content for name, content in files.items() if name not in folders}


_TREE = st.dictionaries(_NAME, _CONTENT, max_size=4).map(_without_folders_as_files)


@settings(max_examples=40, deadline=None)
@given(before=_TREE, after=_TREE)
def test_any_two_trees_give_a_diff_that_is_read_as_git_means_it(
    before: dict[bytes, bytes], after: dict[bytes, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _committed(folder, before)
        for entry in folder.iterdir():
            if entry.name != ".git":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        _write(folder, after)

        diff = _diff(folder)
        status = _status(folder)

    assert {name: sorted(paths) for name, paths in changes(diff)} == {name: sorted(paths) for name, paths in status}
    assert b"".join(file.raw for file in parse(diff)) == diff


_ENTRIES = st.sampled_from(
    [
        b"diff --git f f\nindex 1..2 100644\n--- f\n+++ f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
        b"diff --git d/e d/e\nold mode 100644\nnew mode 100755\n",
        b"diff --git a b a b\nnew file mode 100644\nindex 0000000..e69de29\n",
        b"diff --git d/x e/x\nsimilarity index 100%\nrename from d/x\nrename to e/x\n",
        b'diff --git "d/\\303\\274" "d/\\303\\274"\nindex 1..2 100644\n'
        b'--- "d/\\303\\274"\n+++ "d/\\303\\274"\n@@ -1 +1 @@\n--- x\n+++ y\n\\ No newline at end of file\n',
        b"diff --git d/b d/b\nindex 1..2 100644\n"
        b"GIT binary patch\nliteral 2\nJcmZQb0ssJH0Am0E\n\nliteral 0\nHcmV?d00001\n\n",
    ]
)


@given(st.lists(_ENTRIES, max_size=8).map(b"".join), st.data())
def test_reading_raises_nothing_but_a_diff_error(diff: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(diff)))
    length = data.draw(st.integers(0, 8))
    damaged = diff[:position] + data.draw(st.binary(max_size=8)) + diff[position + length :]

    try:
        files = parse(damaged)
    except DiffError as error:
        place = error.offset
    else:
        place = files[-1].end if files else 0
        assert b"".join(file.raw for file in files) == damaged
        assert all(file.path for file in files)
    assert 0 <= place <= len(damaged)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_diff_or_a_diff_error(content: bytes) -> None:
    try:
        parse(b"diff --git " + content)
        parse(content)
    except DiffError:
        return
    assert content == b""


@given(
    st.lists(_ENTRIES, max_size=8),
    st.lists(
        st.builds(
            Group,
            directory=st.sampled_from(["d", "/d/", "./d", "~/e", "a b", "zzz", ".", "/"]),
            branch=st.sampled_from(["one", "two", "base"]),
        ),
        max_size=4,
    ),
)
def test_splitting_keeps_every_entry_whole_and_in_order(entries: list[bytes], groups: list[Group]) -> None:
    parts = split_by_group(b"".join(entries), "base", groups)

    split = {branch: [file.raw for file in parse(part)] for branch, part in parts.items()}
    assert sorted(entry for kept in split.values() for entry in kept) == sorted(entries)
    assert all(part for part in parts.values())
    for kept in split.values():
        rest = iter(entries)
        assert all(entry in rest for entry in kept)


@pytest.mark.parametrize(
    ("directory", "held"),
    [
        (".github", ".github/x"),
        ("a", "a/x"),
        ("d/", "d/x"),
        ("./d", "d/x"),
        ("././/d", "d/x"),
        ("/d", "d/x"),
        ("~/d", "d/x"),
        ("d/e", "d/e/x"),
    ],
)
def test_a_groups_folder_is_meant_from_the_root(directory: str, held: str) -> None:
    diff = f"diff --git {held} {held}\nold mode 100644\nnew mode 100755\n".encode()

    assert split_by_group(diff, "base", [Group(directory=directory, branch="g")]) == {"g": diff}


@pytest.mark.parametrize("directory", [".", "/", "./", "..", "x", "d/x"])
def test_a_group_without_such_a_folder_gets_nothing(directory: str) -> None:
    diff = b"diff --git d/x d/x\nold mode 100644\nnew mode 100755\n"

    assert split_by_group(diff, "base", [Group(directory=directory, branch="g")]) == {"base": diff}


@pytest.mark.parametrize(
    ("diff", "offset"),
    [
        (b"garbage", 0),
        (b"diff --git f f\nold mode 100644\nnew mode 100755\ngarbage\n", 47),
        (b"diff --git a/f b/f\nold mode 100644\nnew mode 100755\n", 0),
        (b"diff --git f f\nrename from f\n", 0),
        (b"diff --git f f\n--- f\n+++ f\nno hunk\n", 27),
        (b"diff --git f f\n--- f\n+++ f\n@@ -1 +1 @@\n-a\n", 42),
        (b"diff --git f f\n--- f\n+++ f\n@@ -1 +1 @@\n-a\n*b\n", 42),
        (b"diff --git f f\n--- f\n+++ f\n@@ -1,2 +1 @@\n-a\n+b\n+c\n-d\n", 41),
        (b"diff --git f f\n--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", 0),
        (b'diff --git "f "f\nold mode 100644\n', 0),
        (b"diff --cc f\nindex 1,2..3\n", 0),
        (b"diff --git f f\n--- f\n+++ f\n@@ -1,99999999999 +1 @@\n-a\n", 27),
    ],
)
def test_a_malformed_diff_is_refused_with_the_place(diff: bytes, offset: int) -> None:
    with pytest.raises(DiffError) as caught:
        parse(diff)

    assert caught.value.offset == offset
    assert f"byte {offset}" in str(caught.value)


def test_a_copy_counts_as_a_rename() -> None:
    """Upstream's rule goes by the names alone."""
    diff = b"diff --git f g\nsimilarity index 100%\ncopy from f\ncopy to g\n"

    assert changes(diff) == Changes(renamed=("g",))
    assert parse(diff)[0].kind == "copied"


def test_an_empty_diff_has_no_entries() -> None:
    assert parse(b"") == ()
    assert changes(b"") == Changes()
    assert statistics(b"") == DiffStat()
    assert split_by_group(b"", "base", []) == {}


def test_what_was_parsed_is_not_parsed_again() -> None:
    files = parse(b"diff --git f f\nold mode 100644\nnew mode 100755\n")

    assert changes(files) == Changes(modified=("f",))
    assert statistics(files) == DiffStat(files=1)


@pytest.fixture(scope="module")
def large() -> bytes:
    lines = 200_000
    text = (
        b"diff --git f f\nindex 1..2 100644\n--- f\n+++ f\n@@ -0,0 +1,%d @@\n" % lines + b"+%s\n" % (b"x" * 48) * lines
    )
    patch = b"diff --git b b\nindex 1..2 100644\nGIT binary patch\nliteral 9\n" + b"z%s\n" % (b"a" * 65) * lines + b"\n"
    return text + patch


def test_a_large_diff_takes_seconds_not_minutes(large: bytes) -> None:
    """Some 23 MB; the bound is wide for slow machines, and far below anything that is not linear."""
    started = time.monotonic()

    stat = statistics(large)

    assert stat == DiffStat(files=2, added_lines=200_000)
    assert time.monotonic() - started < 5
