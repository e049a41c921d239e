"""Code hosts on the command line: stored blocks, or an address whose token comes from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr, ValidationError

from .. import settings
from ..batches.records import explain
from .errors import BadInput

if TYPE_CHECKING:
    from ..publish_changesets import HostBlock

Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        metavar="KIND=ADDRESS|BLOCK",
        help="Where the repositories are; may be given more than once. A stored block (`github-host/NAME`), or "
        "github=, gitlab=, gitea= or git= with an address (git= also with a folder); #NAMES behind it says what the "
        "names of its repositories begin with. Tokens: GITHUB_TOKEN, GITLAB_TOKEN, GITEA_TOKEN, GIT_TOKEN.",
        show_default=False,
    ),
]

_TOKENS: Mapping[str, tuple[str, ...]] = {
    "github": ("GITHUB_TOKEN", "GH_TOKEN"),
    "gitlab": ("GITLAB_TOKEN",),
    "gitea": ("GITEA_TOKEN", "FORGEJO_TOKEN"),
    "git": ("GIT_TOKEN",),
}


def host_blocks(given: list[str] | None) -> list[HostBlock]:
    """The blocks for ``--host``. Raises BadInput."""
    if not given:
        raise BadInput("no code host: give --host, for example --host github=https://github.com")
    return [_stored(each) if "=" not in each else _described(each) for each in given]


def _described(text: str) -> HostBlock:
    from blocks.gitea_host import Gitea
    from blocks.github_host import GitHub
    from blocks.gitlab_host import GitLab
    from blocks.plain_git_host import PlainGit

    kind, _, address = text.partition("=")
    url, _, names = address.partition("#")
    if kind not in _TOKENS:
        raise BadInput(f"--host {kind}=...: there is github=, gitlab=, gitea= and git=")
    token = _token(kind)
    try:
        if kind == "git":
            return PlainGit(url=url, names=names, token=token)
        if token is None:
            raise BadInput(f"--host {kind}=...: no token; set {_TOKENS[kind][0]}")
        if kind == "github":
            return GitHub(url=url, names=names, token=token)
        return (
            GitLab(url=url, names=names, token=token) if kind == "gitlab" else Gitea(url=url, names=names, token=token)
        )
    except ValidationError as error:
        raise BadInput(f"--host {kind}=...: {explain(error)}") from error


def _token(kind: str) -> SecretStr | None:
    environment = settings.environment()
    found = next((environment[name] for name in _TOKENS[kind] if environment.get(name)), None)
    return SecretStr(found) if found else None


def _stored(text: str) -> HostBlock:
    from blocks.gitea_host import Gitea
    from blocks.github_host import GitHub
    from blocks.gitlab_host import GitLab
    from blocks.plain_git_host import PlainGit

    block_type, _, name = text.partition("/")
    known: dict[str, type[HostBlock]] = {
        block.get_block_type_slug(): block for block in (GitHub, GitLab, Gitea, PlainGit)
    }
    if block_type not in known or not name:
        raise BadInput(f"--host {text}: neither KIND=ADDRESS nor a stored block ({', '.join(known)})/NAME")
    try:
        found = known[block_type].load(name)
    except ValueError as error:
        raise BadInput(f"--host: {error}") from error
    assert isinstance(found, known[block_type])  # a coroutine only where an event loop runs
    return found
