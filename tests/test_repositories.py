"""Repository blocks: names, addresses, and credentials that nobody gets to see."""

import pickle
from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr

from blocks.repositories import RepositoryFolder, RepositoryList
from blocks.sources import Credentials, RepositoryLocation, SourceError, host_of, location, name_of
from tests.gitrepos import make_repository, run_git

KEY = "OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize("block", [RepositoryFolder, RepositoryList], indirect=True)
class TestBlocks(BlockStandardTestSuite):
    """Prefect's own demands on a block's documentation."""

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        assert block._logo_url is None  # pictures would be fetched from somewhere when tests run

    @pytest.fixture
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        return request.param


def test_names_are_paths_below_the_folder(tmp_path: Path) -> None:
    make_repository(tmp_path / "github.com/acme/app", {"a": "a"})
    make_repository(tmp_path / "github.com/acme/lib.git", {"a": "a"}, bare=True)
    make_repository(tmp_path / "tool")
    (tmp_path / "no/repository").mkdir(parents=True)

    found = RepositoryFolder(folder=str(tmp_path)).locations()

    assert found == {
        "github.com/acme/app": RepositoryLocation("github.com/acme/app", str(tmp_path / "github.com/acme/app")),
        "github.com/acme/lib": RepositoryLocation("github.com/acme/lib", str(tmp_path / "github.com/acme/lib.git")),
        "tool": RepositoryLocation("tool", str(tmp_path / "tool")),
    }


def test_what_lies_inside_of_a_repository_is_its_own_business(tmp_path: Path) -> None:
    make_repository(tmp_path / "app")
    make_repository(tmp_path / "app/vendor/lib")

    assert set(RepositoryFolder(folder=str(tmp_path)).locations()) == {"app"}


def test_a_folder_that_is_a_repository_is_one_of_them(tmp_path: Path) -> None:
    make_repository(tmp_path / "app")
    make_repository(tmp_path / "app/sub/lib")

    assert set(RepositoryFolder(folder=str(tmp_path / "app")).locations()) == {"app", "sub/lib"}


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    make_repository(tmp_path / "outside")
    (tmp_path / "src/x").mkdir(parents=True)
    (tmp_path / "src/link").symlink_to(tmp_path / "outside")
    (tmp_path / "src/x/.git").symlink_to(tmp_path / "outside/.git")

    assert RepositoryFolder(folder=str(tmp_path / "src")).locations() == {}


def test_two_repositories_of_one_name_are_an_error(tmp_path: Path) -> None:
    make_repository(tmp_path / "app")
    make_repository(tmp_path / "app.git", {"a": ""}, bare=True)

    with pytest.raises(SourceError, match="have the name app"):
        RepositoryFolder(folder=str(tmp_path)).locations()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no folder .*nope"):
        RepositoryFolder(folder=str(tmp_path / "nope")).locations()


@pytest.mark.parametrize(
    "text",
    [
        "- https://github.com/acme/app.git\n- {name: tools, url: 'git@git.example.com:acme/tools.git'}",
        "github.com/acme/app: https://github.com/acme/app.git\ntools: {url: 'git@git.example.com:acme/tools.git'}",
        "repositories:\n- https://github.com/acme/app.git\n- name: tools\n  url: git@git.example.com:acme/tools.git",
        '["https://github.com/acme/app.git", {"name": "tools", "url": "git@git.example.com:acme/tools.git"}]',
    ],
)
def test_lists_have_several_forms(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.yaml").write_text(text)
    expected = {
        "github.com/acme/app": RepositoryLocation("github.com/acme/app", "https://github.com/acme/app.git"),
        "tools": RepositoryLocation("tools", "git@git.example.com:acme/tools.git"),
    }

    assert RepositoryList(repositories=text).locations() == expected
    assert RepositoryList(file=str(tmp_path / "list.yaml")).locations() == expected


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"repositories": "just text"}, "neither a list of addresses nor a mapping"),
        ({"repositories": "- [1]"}, "entry 1 of the list"),
        ({"repositories": "- {name: 5, url: 'https://x/y'}"}, "the name in entry 1"),
        ({"repositories": "- {name: x, url: 'https://x/y', branch: z}"}, "entry 1 of the list"),
        ({"repositories": "- https://x/y\n- https://x/y.git"}, "two repositories of the list have the name x/y"),
        ({"repositories": "a: [\nb: https://u:hunter2@x/y"}, r"not valid YAML \(line"),
        ({"file": "/no/such/list.yaml"}, "/no/such/list.yaml cannot be read"),
        ({}, "give one of the two"),
    ],
)
def test_a_list_that_is_wrong_says_where_and_shows_no_secret(block: dict[str, str], message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        RepositoryList(**block).locations()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "ext::sh -c touch",
        "ext::x",
        "ftp://x/y",
        "git://x/y",
        "relative/path",
        "--upload-pack=x",
        "https://",
        "https://-x/y",
        "https://x:port/y",
        "https://x/y?token=hunter2",
        "file://host/x",
        "https://x/a b",
        "-oProxyCommand=x:y",
        "",
    ],
)
def test_addresses_that_git_must_not_see_are_refused(address: str) -> None:
    with pytest.raises(SourceError) as caught:
        location("app", address)

    assert "hunter2" not in str(caught.value)
    assert "app" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "url", "username", "token"),
    [
        ("https://ada:s%40crets@x.org:8443/y", "https://x.org:8443/y", "ada", "s@crets"),
        ("https://tok3n@x.org/y", "https://x.org/y", "", "tok3n"),
        ("ssh://git:hunter2@x.org/y", "ssh://git@x.org/y", None, None),
        ("git@x.org:y", "git@x.org:y", None, None),
        ("file:///srv/y", "file:///srv/y", None, None),
        ("/srv/y", "/srv/y", None, None),
    ],
)
def test_credentials_are_taken_out_of_addresses(
    address: str, url: str, username: str | None, token: str | None
) -> None:
    found = location("y", address)

    assert found.url == url
    secret = found.credentials.token.get_secret_value() if found.credentials.token else None
    assert (found.credentials.username or None, secret) == (username or None, token)


def test_names_and_hosts_of_addresses() -> None:
    assert name_of("ssh://git@git.example.com:22/acme/app.git") == "git.example.com/acme/app"
    assert name_of("git@git.example.com:acme/app.git") == "git.example.com/acme/app"
    assert name_of("/srv/git/app.git") == "srv/git/app"
    assert host_of("https://Git.example.com:8443/x") == "git.example.com:8443"
    assert host_of("git@git.example.com:x") == "git.example.com"
    assert host_of("/x") == ""


def test_credentials_are_chosen_by_name_then_host() -> None:
    key = f"-----BEGIN {KEY}\nabc\n-----END {KEY}"
    block = RepositoryList(
        repositories="[https://a.org/x, {name: special, url: 'https://a.org/y'}, 'git@b.org:z', 'https://c.org/w']",
        credentials={"a.org": "t0ken", "special": "ada:pa:ss", "b.org": key},
        known_hosts="b.org ssh-ed25519 AAAA",
    )

    assert {name: at.credentials for name, at in block.locations().items()} == {
        "a.org/x": Credentials(token=SecretStr("t0ken")),
        "special": Credentials("ada", SecretStr("pa:ss")),
        "b.org/z": Credentials(ssh_key=SecretStr(key), known_hosts=block.known_hosts),
        "c.org/w": Credentials(),
    }


def test_credentials_have_to_fit_the_address() -> None:
    with pytest.raises(SourceError, match=r"a\.org/x is reached by ssh, but its credentials are no private key"):
        RepositoryList(repositories="- git@a.org:x", credentials={"a.org": "hunter2"}).locations()
    with pytest.raises(SourceError, match=r"the credentials of a\.org/x are a private key"):
        RepositoryList(repositories="- https://a.org/x", credentials={"a.org": f"-----BEGIN {KEY}"}).locations()


def test_secrets_are_in_no_repr() -> None:
    block = RepositoryList(repositories="- https://ada:hunter2@a.org/x", credentials={"b.org": "hunter2"})

    assert "hunter2" not in f"{block!r}{block}{block.locations()!r}"
    assert "hunter2" not in block.model_dump_json(include={"credentials"})


def test_the_credentials_are_secrets_for_prefect() -> None:
    """Named so, Prefect stores them encrypted and shows stars."""
    assert RepositoryList.model_json_schema()["secret_fields"] == ["credentials.*"]


def test_blocks_survive_pickling(tmp_path: Path) -> None:
    make_repository(tmp_path / "app")
    run_git(tmp_path / "app", "commit", "--quiet", "--allow-empty", "--message=x")
    block = RepositoryFolder(folder=str(tmp_path))

    assert pickle.loads(pickle.dumps(block)).locations() == block.locations()
