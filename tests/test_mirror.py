"""Mirrors: branches and commits of real repositories, over the file system and over HTTP with credentials."""

import contextlib
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.sources import Credentials, RepositoryLocation, location
from flows.batches.errors import PermanentError, TemporaryError
from flows.gitcommand import GitFailed, GitTooLarge, GitUnavailable
from flows.mirror import Branch, BranchNotFound, Mirror, NoDefaultBranch
from tests.engines import make_certificates
from tests.githttp import GitServer
from tests.gitrepos import add_bomb, commit_files, make_repository, run_git

TOKEN = "tok3n-0f-ada-XYZ"


def mirror_of(repository: Path, folder: Path) -> Mirror:
    return Mirror(folder / "mirrors", location("acme/app", str(repository)))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_repository(tmp_path / "app", {"README.md": "hello\n", "web/a.js": "x"})
    return tmp_path / "app"


def test_branches_are_resolved_to_commits(repository: Path, tmp_path: Path) -> None:
    main = run_git(repository, "rev-parse", "HEAD")
    dev = commit_files(repository, {"b": "b"}, branch="team/dev")
    run_git(repository, "checkout", "--quiet", "main")
    mirror = mirror_of(repository, tmp_path)

    assert mirror.default_branch() == Branch("main", main)
    assert mirror.resolve("team/dev") == mirror.resolve("refs/heads/team/dev") == Branch("team/dev", dev)
    with pytest.raises(BranchNotFound, match=r'^no branch matching "nope" found for repository acme/app$'):
        mirror.resolve("nope")


def test_a_repository_that_lists_more_than_any_memory_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.mirror.MOST_LISTED_BYTES", 1_000_000)
    make_repository(tmp_path / "app", {"a": "x\n"})
    bomb = add_bomb(tmp_path / "app")
    run_git(tmp_path / "app", "branch", "bomb", bomb)
    mirror = mirror_of(tmp_path / "app", tmp_path)
    mirror.fetch(bomb)

    with pytest.raises(GitTooLarge, match="it lists more than 1,000,000 bytes of paths"):
        mirror.files(bomb)
    with pytest.raises(GitTooLarge, match="it lists more than"):
        mirror.grep(bomb, "x", regexp=False, case_sensitive=True)


def test_a_moving_branch_is_seen_at_one_moment(repository: Path, tmp_path: Path) -> None:
    mirror = mirror_of(repository, tmp_path)
    before = mirror.default_branch()

    commit_files(repository, {"b": "b"})

    assert mirror.default_branch() == before
    assert mirror_of(repository, tmp_path).default_branch() != before


def test_a_detached_head_means_the_branch_that_is_there(repository: Path, tmp_path: Path) -> None:
    run_git(repository, "branch", "aside")
    run_git(repository, "checkout", "--quiet", "--detach")

    assert mirror_of(repository, tmp_path).default_branch().name == "main"


def test_a_head_on_no_branch_is_no_default_branch(repository: Path, tmp_path: Path) -> None:
    run_git(repository, "symbolic-ref", "HEAD", "refs/heads/unborn")

    with pytest.raises(NoDefaultBranch, match="acme/app has no default branch"):
        mirror_of(repository, tmp_path).default_branch()


def test_an_empty_repository_says_so(tmp_path: Path) -> None:
    make_repository(tmp_path / "empty")

    with pytest.raises(NoDefaultBranch, match="is empty: it has no commit"):
        mirror_of(tmp_path / "empty", tmp_path).default_branch()


def test_revisions_are_branches_tags_or_commits(repository: Path, tmp_path: Path) -> None:
    head = run_git(repository, "rev-parse", "HEAD")
    run_git(repository, "tag", "v1")
    run_git(repository, "tag", "--annotate", "--message=x", "v2")
    mirror = mirror_of(repository, tmp_path)

    assert [mirror.resolve_revision(name) for name in ("main", "v1", "v2", head)] == [head] * 4
    assert mirror.resolve_revision("v3") is None


def test_one_commit_is_fetched_without_history_or_tags(repository: Path, tmp_path: Path) -> None:
    first = run_git(repository, "rev-parse", "HEAD")
    run_git(repository, "tag", "v1")
    second = commit_files(repository, {"b": "b"})
    mirror = mirror_of(repository, tmp_path)

    mirror.fetch(second)

    assert mirror.files(second) == ("README.md", "b", "web/a.js")
    assert run_git(mirror.git_dir, "rev-list", "--all") == second
    assert first not in run_git(mirror.git_dir, "for-each-ref")


def test_any_commit_can_be_fetched_not_just_a_branchs(repository: Path, tmp_path: Path) -> None:
    first = run_git(repository, "rev-parse", "HEAD")
    commit_files(repository, {"README.md": None})
    mirror = mirror_of(repository, tmp_path)

    mirror.fetch(first)

    assert "README.md" in mirror.files(first)


def test_a_fetched_commit_needs_no_server_any_more(repository: Path, tmp_path: Path) -> None:
    mirror = mirror_of(repository, tmp_path)
    commit = mirror.default_branch().commit
    mirror.fetch(commit)
    repository.rename(tmp_path / "away")

    mirror_of(repository, tmp_path).fetch(commit)


def test_a_commit_that_is_not_there_is_an_error_that_stays(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(GitFailed):
        mirror_of(repository, tmp_path).fetch("1" * 40)


def test_bare_repositories_and_those_of_others_can_be_read(tmp_path: Path) -> None:
    make_repository(tmp_path / "app", {"a": "a"}, bare=True)
    if os.geteuid() == 0:  # nobody else can give files away
        for path in (tmp_path / "app", *(tmp_path / "app").rglob("*")):
            os.chown(path, 12345, 12345)
    mirror = mirror_of(tmp_path / "app", tmp_path)

    mirror.fetch(mirror.default_branch().commit)


def test_nothing_of_the_source_repository_is_run(repository: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\ntouch {tmp_path}/canary\nexec "$@"\n')
    script.chmod(0o755)
    for name in (
        "uploadpack.packObjectsHook",
        "core.fsmonitor",
        "core.sshCommand",
        "core.gitProxy",
        "core.alternateRefsCommand",
    ):
        run_git(repository, "config", name, str(script))
    mirror = mirror_of(repository, tmp_path)

    mirror.fetch(mirror.default_branch().commit)

    assert not (tmp_path / "canary").exists()


def test_what_a_killed_fetch_left_is_no_obstacle(repository: Path, tmp_path: Path) -> None:
    first = run_git(repository, "rev-parse", "HEAD")
    mirror = mirror_of(repository, tmp_path)
    mirror.fetch(first)
    (mirror.git_dir / "shallow.lock").write_text("")
    (mirror.git_dir / "refs/batchwright" / f"{'1' * 40}.lock").write_text("")

    mirror.fetch(commit_files(repository, {"b": "b"}))

    assert not list(mirror.git_dir.rglob("*.lock"))


def _fetch(repository: Path, folder: Path, commit: str) -> None:
    mirror_of(repository, folder).fetch(commit)


def test_processes_and_threads_can_fetch_at_the_same_time(repository: Path, tmp_path: Path) -> None:
    commits = [run_git(repository, "rev-parse", "HEAD")] + [commit_files(repository, {"n": str(n)}) for n in range(5)]
    others = [
        multiprocessing.get_context("spawn").Process(target=_fetch, args=(repository, tmp_path, commit))
        for commit in commits[:2]
    ]
    for other in others:
        other.start()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda commit: _fetch(repository, tmp_path, commit), commits * 2))
    for other in others:
        other.join()

    assert [other.exitcode for other in others] == [0, 0]
    assert all(mirror_of(repository, tmp_path).files(commit) for commit in commits)


def test_files_are_blobs_with_names_that_templates_can_take(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (repository / "l").symlink_to("README.md")
    (repository / os.fsdecode(b"bad-\xff")).write_text("")
    commit = commit_files(repository, {"ä\n": "x"})
    mirror = mirror_of(repository, tmp_path)
    mirror.fetch(commit)

    assert mirror.files(commit) == ("README.md", "l", "web/a.js", "ä\n")
    assert "not UTF-8" in caplog.text


def test_contents_are_searched_line_by_line_in_text_files(repository: Path, tmp_path: Path) -> None:
    commit = commit_files(repository, {"a[1].txt": "Größe 10\nx.y\n", "b.bin": b"\0x.y\n", "sub/c.txt": "größe\nxzy\n"})
    mirror = mirror_of(repository, tmp_path)
    mirror.fetch(commit)

    def grep(pattern: str, *, regexp: bool = False, case: bool = False, paths: tuple[str, ...] = ()) -> set[str]:
        return set(mirror.grep(commit, pattern, regexp=regexp, case_sensitive=case, paths=paths))

    assert grep("x.y") == {"a[1].txt"}
    assert grep("x.y", regexp=True) == {"a[1].txt", "sub/c.txt"}
    assert grep("GRÖSSE|GRÖßE", regexp=True) == {"a[1].txt", "sub/c.txt"}
    assert grep("größe", case=True) == {"sub/c.txt"}
    assert grep("x.y", regexp=True, paths=("a[1].txt",)) == {"a[1].txt"}
    assert grep("-e") == set()
    assert grep("nothing of this") == set()
    with pytest.raises(GitFailed):
        grep("(", regexp=True)


def test_entries_of_the_root_have_a_kind(repository: Path, tmp_path: Path) -> None:
    (repository / "link").symlink_to("README.md")
    commit = commit_files(repository, {".batchignore": ""})
    mirror = mirror_of(repository, tmp_path)
    mirror.fetch(commit)

    kinds = [mirror.root_entry_kind(commit, name) for name in (".batchignore", "web", "link", "nope", "a.js")]

    assert kinds == ["blob", "tree", "symlink", None, None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    make_repository(tmp_path / "served/acme/app.git", {"README.md": "secret plans\n"}, bare=True)
    with GitServer(tmp_path / "served", "ada", TOKEN).running() as running:
        yield running


def private(server: GitServer, token: str | None, folder: Path) -> Mirror:
    credentials = Credentials("ada", SecretStr(token)) if token else Credentials()
    return Mirror(folder / "mirrors", RepositoryLocation("acme/app", f"{server.url}/acme/app.git", credentials))


def traces(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_private_repository_opens_with_its_token(server: GitServer, tmp_path: Path) -> None:
    mirror = private(server, TOKEN, tmp_path)

    branch = mirror.default_branch()
    mirror.fetch(branch.commit)

    assert mirror.files(branch.commit) == ("README.md",)


def test_a_server_with_a_certificate_of_a_companys_own_is_trusted_on_request(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_SSL_CAINFO of the worker names the authority; without it nothing is sent there, the token least of all."""
    make_certificates(tmp_path / "tls")
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
    with GitServer(tmp_path / "served", "ada", TOKEN, certificate=tmp_path / "tls").running() as secure:
        with pytest.raises(PermanentError, match="certificate"):
            private(secure, TOKEN, tmp_path).default_branch()
        assert secure.requests == []
        monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "tls/ca.pem"))
        mirror = private(secure, TOKEN, tmp_path)
        commit = mirror.default_branch().commit
        mirror.fetch(commit)

    assert mirror.files(commit) == ("README.md",)


@pytest.mark.parametrize("token", ["wr0ng-t0ken-of-eve", None])
def test_a_wrong_token_is_an_error_that_stays_and_does_not_show_it(
    server: GitServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, token: str | None
) -> None:
    caplog.set_level(logging.DEBUG)
    mirror = private(server, token, tmp_path)

    with pytest.raises(PermanentError, match=r"Authentication failed|could not read Username") as caught:
        mirror.default_branch()

    assert "wr0ng" not in f"{caught.value}{caught.value!r}{caplog.text}{mirror._location!r}"


def test_the_token_is_on_no_command_line_in_no_file_and_in_no_log(
    server: GitServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mirror = private(server, TOKEN, tmp_path)
    seen: set[bytes] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    seen.add((process / "cmdline").read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(5):
        private(server, TOKEN, tmp_path).default_branch()
    mirror.fetch(mirror.default_branch().commit)
    stop.set()
    watcher.join()

    assert any(b"ls-remote" in line for line in seen)
    assert not any(TOKEN.encode() in line for line in seen)
    assert TOKEN.encode() not in traces(tmp_path / "mirrors")
    assert server.url.encode() not in traces(tmp_path / "mirrors")
    assert TOKEN not in caplog.text


def test_trouble_of_the_server_is_worth_another_try(server: GitServer, tmp_path: Path) -> None:
    server.status = 503

    with pytest.raises(GitUnavailable) as caught:
        private(server, TOKEN, tmp_path).default_branch()

    assert isinstance(caught.value, TemporaryError)


def test_a_repository_that_is_not_there_is_an_error_that_stays(server: GitServer, tmp_path: Path) -> None:
    at = RepositoryLocation("x", f"{server.url}/nope.git", Credentials("ada", SecretStr(TOKEN)))

    with pytest.raises(GitFailed, match="not found"):
        Mirror(tmp_path, at).default_branch()


def test_a_server_that_gives_no_single_commits_gives_its_branches(tmp_path: Path) -> None:
    """A dumb HTTP server: plain files, no negotiation."""
    commit = make_repository(tmp_path / "app", {"a": "a"}, bare=True)
    run_git(tmp_path / "app", "update-server-info")
    with _plain_files(tmp_path) as url:
        mirror = Mirror(tmp_path / "mirrors", location("app", f"{url}/app"))

        mirror.fetch(mirror.default_branch().commit)

    assert mirror.files(commit) == ("a",)


@contextlib.contextmanager
def _plain_files(folder: Path) -> Iterator[str]:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_ssh_key_is_a_private_file_for_the_time_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ssh runs the far side of git here, and notes how it was called."""
    commit = make_repository(tmp_path / "app", {"a": "a"}, bare=True)
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.write_text(
        f"""#!/bin/sh
printf '%s\\n' "$*" >> {tmp_path}/calls
while [ $# -gt 1 ]; do
  if [ "$1" = -i ]; then stat -c %a "$2" >> {tmp_path}/calls; cat "$2" >> {tmp_path}/keys; fi
  shift
done
exec sh -c "$1"
"""
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----"
    at = RepositoryLocation(
        "app",
        f"git@git.example.com:{tmp_path}/app",
        Credentials(ssh_key=SecretStr(key), known_hosts="git.example.com x"),
    )
    mirror = Mirror(tmp_path / "mirrors", at)

    mirror.fetch(mirror.default_branch().commit)

    calls = (tmp_path / "calls").read_text()
    assert mirror.files(commit) == ("a",)
    assert "\n600\n" in calls
    assert "BatchMode=yes" in calls
    assert "StrictHostKeyChecking=yes" in calls
    assert "PRIVATE KEY" not in calls
    assert (tmp_path / "keys").read_text().startswith(key + "\n")
    paths = {word.strip("'") for line in calls.splitlines() for word in line.split() if word.endswith("/key")}
    assert paths
    assert not any(Path(path).exists() for path in paths)
