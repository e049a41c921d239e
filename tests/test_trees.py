from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flows import gitindex
from flows.gitcommand import ObjectReader
from flows.gitindex import IndexEntry
from flows.gitpack import NewObjects
from flows.trees import make_tree
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

    objects = NewObjects()
    tree = make_tree(entries, objects)
    objects.write(folder / ".git")

    assert tree == run_git(folder, "write-tree", "--missing-ok")
    assert run_git(folder, "ls-tree", "-r", "-t", tree) or not entries


@given(st.lists(st.tuples(st.sampled_from(["blob", "tree"]), st.binary(max_size=5000)), max_size=20))
@settings(max_examples=40, deadline=None)
def test_a_written_pack_is_one_that_git_reads_and_verifies(tmp_path_factory, contents) -> None:
    folder: Path = tmp_path_factory.mktemp("packs") / "repository"
    make_repository(folder)
    objects = NewObjects()
    names = {}
    with ObjectReader(folder / ".git") as reader:  # it runs before there is a pack
        for kind, content in contents:
            content = content if kind == "blob" else b""
            names[objects.add(kind, content)] = kind, content
            objects.write(folder / ".git")
            objects.add(kind, content)
        objects.write(folder / ".git")

        assert {name: reader.read(name) for name in names} == names
    for index in (folder / ".git" / "objects" / "pack").glob("*.idx"):
        assert run_git(folder, "verify-pack", str(index)) == ""
    run_git(folder, "fsck", "--strict")


def test_many_and_large_objects_are_in_one_pack(tmp_path: Path) -> None:
    make_repository(tmp_path / "repository")
    git_dir = tmp_path / "repository" / ".git"
    objects = NewObjects()
    contents = [b"%d" % number * (number % 97) for number in range(3000)] + [b"x" * 5_000_000, b""]
    names = {objects.add("blob", content): content for content in contents}
    objects.write(git_dir)

    (pack,) = (git_dir / "objects" / "pack").glob("*.pack")
    assert run_git(tmp_path / "repository", "verify-pack", str(pack)) == ""
    with ObjectReader(git_dir) as reader:
        assert all(reader.read(name) == ("blob", content) for name, content in names.items())
