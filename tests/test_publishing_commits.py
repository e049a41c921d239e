"""The commit of a changeset spec: what git itself would have made, from the base and the diff, without a checkout."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.sources import location
from flows.batches.errors import ChangesetError
from flows.mirror import Mirror
from flows.publishing.commits import CommitSpec, bare_repository, build_commit
from tests.gitrepos import commit_files, make_repository, run_git
from tests.proposals import diff_of

WHEN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ODD = [
    "a b",
    "tab\tname",
    'quo"te',
    "new\nline",
    "dir/ümlaut",
    "-dash",
    "dir/sub/x y",
    "a/b",
    "back\\slash",
    "\udcff\udcfe",
]
BASE = {
    "README.md": "hello\n",
    "src/main.py": "print(1)\n",
    "a b": "1\n",
    "dir/ümlaut": b"\0\1\2",
    "crlf.txt": "a\r\nb\r\n",
}


def spec_of(base: str, diff: bytes, **fields: object) -> CommitSpec:
    known = {"message": "Change it", "author_name": "Grace", "author_email": "grace@example.com", "time": WHEN}
    return CommitSpec(base=base, diff=diff, **{**known, **fields})  # type: ignore[arg-type]


class Bench:
    """A source repository, its mirror, and a place to build commits."""

    def __init__(self, folder: Path, files: dict[str, str | bytes]) -> None:
        self.folder, self.path = folder, "acme/app"
        self.work = folder / "acme/app.work"
        self.base = make_repository(self.work, files)
        self.mirror = Mirror(folder / "mirrors", location("acme/app", str(self.work)))
        self.mirror.fetch(self.base)

    def diff(self, files: dict[str, str | bytes | None]) -> bytes:
        return diff_of(self.folder, self.path, self.base, files)

    def tree_of(self, spec: CommitSpec) -> str:
        with bare_repository(self.folder / "scratch", self.mirror.git_dir) as git_dir:
            commit = build_commit(git_dir, spec)
            return run_git(git_dir, "rev-parse", f"{commit}^{{tree}}")

    def expected_tree(self, files: dict[str, str | bytes | None]) -> str:
        run_git(self.work, "checkout", "--quiet", "--detach", self.base)
        for name, content in files.items():
            file = self.work / name
            if content is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        run_git(self.work, "add", "--all", "--force")
        tree = run_git(self.work, "write-tree")
        run_git(self.work, "reset", "--quiet", "--hard", self.base)
        run_git(self.work, "checkout", "--quiet", "main")
        return tree


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("commits"), dict(BASE))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    added=st.dictionaries(st.sampled_from(ODD), st.binary(max_size=40), max_size=4),
    removed=st.sets(st.sampled_from(sorted(BASE)), max_size=2),
)
def test_the_tree_is_what_git_makes_of_the_same_files(bench: Bench, added: dict[str, bytes], removed: set[str]) -> None:
    files: dict[str, str | bytes | None] = {**added, **dict.fromkeys(removed - added.keys())}
    diff = bench.diff(files)
    if not diff:
        return

    assert bench.tree_of(spec_of(bench.base, diff)) == bench.expected_tree(files)


def test_modes_links_and_renames_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"tool.sh": "#!/bin/sh\n", "big.txt": "line\n" * 50, "file": "x\n", "link": "was a file\n"})
    work = bench.work
    (work / "tool.sh").chmod(0o755)
    (work / "big.txt").rename(work / "moved.txt")
    (work / "file").unlink()
    (work / "file").mkdir()
    (work / "file" / "inside").write_text("now a folder\n")
    (work / "link").unlink()
    (work / "link").symlink_to("tool.sh")
    run_git(work, "add", "--all")
    expected = run_git(work, "write-tree")
    diff = (run_git(work, "diff", "--cached", "--no-prefix", "--binary") + "\n").encode()

    assert b"rename from big.txt" in diff
    assert bench.tree_of(spec_of(bench.base, diff)) == expected


def test_the_same_spec_gives_the_same_commit(bench: Bench) -> None:
    spec = spec_of(bench.base, bench.diff({"README.md": "other\n"}))
    with bare_repository(bench.folder / "one", bench.mirror.git_dir) as one:
        first = build_commit(one, spec)
        raw = run_git(one, "cat-file", "commit", first)
    with bare_repository(bench.folder / "two", bench.mirror.git_dir) as two:
        second = build_commit(two, spec)

    assert first == second
    assert raw.splitlines()[1:] == [
        f"parent {bench.base}",
        f"author Grace <grace@example.com> {int(WHEN.timestamp())} +0000",
        f"committer Grace <grace@example.com> {int(WHEN.timestamp())} +0000",
        "",
        "Change it",
    ]


def test_the_mirror_stays_as_it_is(bench: Bench) -> None:
    def everything() -> list[str]:
        return sorted(str(path) for path in bench.mirror.git_dir.rglob("*"))

    before = everything()
    bench.tree_of(spec_of(bench.base, bench.diff({"README.md": "other\n"})))

    assert everything() == before


def test_a_repository_has_no_say_in_its_commits(tmp_path: Path) -> None:
    """Hooks, filters, attributes and settings of a repository are its own business."""
    attributes = "* text=auto eol=crlf filter=evil ident\n*.bin working-tree-encoding=UTF-16\n"
    bench = Bench(tmp_path, {".gitattributes": attributes, "x.txt": "$Id$\n", "y.bin": "plain\n".encode("utf-16")})
    evil = tmp_path / "ran"
    for name in ("applypatch-msg", "pre-commit", "post-commit", "reference-transaction", "post-index-change"):
        hook = bench.mirror.git_dir / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch '{evil}'\n")
        hook.chmod(0o755)
    run_git(bench.mirror.git_dir, "config", "filter.evil.clean", f"touch '{evil}'; cat")
    run_git(bench.mirror.git_dir, "config", "filter.evil.smudge", f"touch '{evil}'; cat")
    diff = (
        b"diff --git x.txt x.txt\nindex 055c872..0000000 100644\n--- x.txt\n+++ x.txt\n@@ -1 +1 @@\n-$Id$\n+one\r\n"
        b"diff --git y.bin y.bin\nindex 6690b73..0000000 100644\n--- y.bin\n+++ y.bin\n@@ -1 +1 @@\n-plain\n+still\n"
    )

    with bare_repository(tmp_path / "scratch", bench.mirror.git_dir) as git_dir:
        commit = build_commit(git_dir, spec_of(bench.base, diff))
        content = [run_git(git_dir, "cat-file", "blob", f"{commit}:{name}") for name in ("x.txt", "y.bin")]

    assert content == ["one", "still"]
    assert not evil.exists()


def adds(name: str) -> bytes:
    """A diff that adds a file."""
    return f"diff --git {name} {name}\nnew file mode 100644\n--- /dev/null\n+++ {name}\n@@ -0,0 +1 @@\n+x\n".encode()


@pytest.mark.parametrize(
    ("diff", "says"),
    [
        (b"not a diff\n", "cannot be read"),
        (adds(".git/config"), "does not apply"),
        (adds("a/../../x"), "does not apply"),
        (b"diff --git a b\n--- README.md\n+++ README.md\n@@ -1 +1 @@\n-not there\n+x\n", "does not apply"),
        (adds("README.md/x"), "but there is 'README.md'"),
        (adds("src"), "but there is 'src/main.py'"),
    ],
)
def test_a_diff_that_does_not_fit_is_refused(bench: Bench, diff: bytes, says: str) -> None:
    with (
        bare_repository(bench.folder / "bad", bench.mirror.git_dir) as git_dir,
        pytest.raises(ChangesetError, match=says),
    ):
        build_commit(git_dir, spec_of(bench.base, diff))


@pytest.mark.parametrize(
    "fields", [{"author_name": "A <b>"}, {"author_email": "a@b\ncommitter x"}, {"author_name": "A\0"}]
)
def test_an_author_cannot_break_out_of_its_line(bench: Bench, fields: dict[str, str]) -> None:
    spec = spec_of(bench.base, bench.diff({"README.md": "other\n"}), **fields)

    with bare_repository(bench.folder / "bad", bench.mirror.git_dir) as git_dir, pytest.raises(ChangesetError):
        build_commit(git_dir, spec)


def test_the_cost_is_the_change_not_the_repository(tmp_path: Path) -> None:
    """Of a large repository only the folders above the change are read, and only their trees are written."""
    files: dict[str, str | bytes] = {f"d{n % 50}/f{n}": f"{n}\n" for n in range(1000)}
    bench = Bench(tmp_path, files)

    with bare_repository(tmp_path / "scratch", bench.mirror.git_dir) as git_dir:
        build_commit(git_dir, spec_of(bench.base, bench.diff({"d7/f7": "changed\n"})))
        made = [path for path in (git_dir / "objects").rglob("*") if path.is_file() and path.name != "alternates"]
        index = (git_dir / "index").stat().st_size

    assert len(made) <= 5, "a blob, two trees, a commit (or one pack of them with its index)"
    assert index < 300


def test_a_later_commit_of_the_branch_is_no_base(bench: Bench) -> None:
    """A base that the mirror does not have is told, not guessed."""
    elsewhere = commit_files(bench.work, {"z": "z"}, branch="elsewhere")
    run_git(bench.work, "checkout", "--quiet", "main")
    diff = bench.diff({"README.md": "other\n"})

    with (
        bare_repository(bench.folder / "bad", bench.mirror.git_dir) as git_dir,
        pytest.raises(ChangesetError, match="not complete"),
    ):
        build_commit(git_dir, spec_of(elsewhere, diff))
    assert os.listdir(bench.folder / "bad") == []
