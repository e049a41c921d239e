from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flows import gitindex
from flows.gitindex import IndexEntry
from flows.trees import write_tree
from tests.gitrepos import make_repository, run_git

# Short and alike: what matters is how names sort beside names that go on.
_NAMES = st.sampled_from([b"a", b"a-", b"a.b", b"a0", b"b", b"two words", "ä".encode(), b"\xff"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map(b"/".join)
_MODES = st.sampled_from([0o100644, 0o100755, 0o120000, 0o160000])
_OIDS = st.binary(min_size=20, max_size=20).filter(any).map(bytes.hex)


@given(st.dictionaries(_PATHS, st.tuples(_MODES, _OIDS), max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_written_tree_is_the_one_that_git_writes(tmp_path_factory, found: dict[bytes, tuple[int, str]]) -> None:
    folder: Path = tmp_path_factory.mktemp("trees") / "repository"
    make_repository(folder)
    files = [path for path in found if not any(path.startswith(other + b"/") for other in found)]
    entries = [IndexEntry(path, *found[path]) for path in files]
    (folder / ".git" / "index").write_bytes(gitindex.written(entries))

    tree = write_tree(entries, folder / ".git")

    assert tree == run_git(folder, "write-tree", "--missing-ok")
    assert run_git(folder, "ls-tree", "-r", "-t", tree) or not entries
