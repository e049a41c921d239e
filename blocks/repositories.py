"""Where repositories come from, as Prefect blocks: a folder of git repositories, or a list of git addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field, HttpUrl, SecretStr
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from blocks.sources import Credentials, RepositoryLocation, SourceError, host_of, is_ssh, location, name_of

_PRIVATE_KEY = "PRIVATE KEY-----"


class RepositoryFolder(Block):
    """Take the git repositories that lie in a folder, however deep.

    A repository's name is its path below the folder, without `.git` at the end. Both bare repositories and ones with
    files beside `.git` are found. What lies inside of a repository is not looked at, and symbolic links are not
    followed. If the folder itself is a repository, its own name is the repository's name.

    Example:
        ```python
        from blocks.repositories import RepositoryFolder

        repositories = RepositoryFolder.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Repository Folder"
    _block_type_slug = "repository-folder"
    _description = "Take the git repositories that lie in a folder, however deep."
    _documentation_url = HttpUrl("https://git-scm.com/docs/gitrepository-layout")

    folder: str = Field(description="The folder that holds the repositories, on the machine where batch changes run.")

    def locations(self) -> dict[str, RepositoryLocation]:
        """Every repository by its name. Raises SourceError."""
        root = Path(self.folder).expanduser().resolve()
        if not root.is_dir():
            raise SourceError(f"there is no folder {root}: name the folder that holds the repositories")
        found: dict[str, RepositoryLocation] = {}
        for folder in _repositories_below(root, is_root=True):
            relative = folder.relative_to(root)
            name = (root.name if folder == root else relative.as_posix()).removesuffix(".git")
            if name in found:
                raise SourceError(f"two repositories in {root} have the name {name}: {found[name].url} and {folder}")
            found[name] = location(name, str(folder))
        return found


class RepositoryList(Block):
    """Take the git repositories of a list, from one code host or many.

    The list is YAML: addresses, or names with addresses. A name that is not given is taken from the address
    (`https://github.com/acme/app.git` is `github.com/acme/app`).

    ```yaml
    - https://github.com/acme/app.git
    - name: tools
      url: git@git.example.com:acme/tools.git
    ```

    Example:
        ```python
        from blocks.repositories import RepositoryList

        repositories = RepositoryList.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Repository List"
    _block_type_slug = "repository-list"
    _description = "Take the git repositories of a list, from one code host or many."
    _documentation_url = HttpUrl("https://git-scm.com/docs/git-clone#_git_urls")

    # Not in reprs: people write passwords into addresses, although there is a better place.
    repositories: str = Field(
        default="",
        repr=False,
        description="The list as YAML text. Addresses can be https://, ssh://, git@host:path, file:/// or absolute "
        "paths.",
    )
    file: str = Field(
        default="",
        description="The path of a YAML file that holds the list, on the machine where batch changes run. "
        "It is read anew for every batch change.",
    )
    credentials: SecretDict = Field(
        default_factory=lambda: SecretDict({}),
        description="What opens the repositories, by host (`github.com`) or, for a single one, by the repository's "
        "name. A value is a token, or `username:password`, or the text of a private SSH key.",
    )
    known_hosts: str = Field(
        default="",
        repr=False,
        description="Lines of a known_hosts file that say which SSH servers to trust. If it is empty, the known_hosts "
        "file of the user who runs the worker is used.",
    )

    def locations(self) -> dict[str, RepositoryLocation]:
        """Every repository by its name. Raises SourceError."""
        found: dict[str, RepositoryLocation] = {}
        for name, address in _entries(_document(self._text())):
            name = name or name_of(address)
            if name in found:
                raise SourceError(f"two repositories of the list have the name {name}: give one of them another name")
            found[name] = self._location(name, address)
        return found

    def _text(self) -> str:
        if bool(self.repositories) == bool(self.file):
            raise SourceError("a repository list is either YAML text or the path of a file: give one of the two")
        if self.repositories:
            return self.repositories
        try:
            return Path(self.file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"the list of repositories {self.file} cannot be read: {error}") from error

    def _location(self, name: str, address: str) -> RepositoryLocation:
        plain = location(name, address)
        secrets: dict[str, str] = self.credentials.get_secret_value()
        secret = secrets.get(name) or secrets.get(host_of(plain.url)) or ""
        if is_ssh(plain.url):
            return replace(plain, credentials=_key(name, secret, self.known_hosts))
        return replace(plain, credentials=_token(name, secret)) if secret else plain


def _repositories_below(folder: Path, *, is_root: bool = False) -> Iterator[Path]:
    if _is_repository(folder):
        yield folder
        if not is_root:
            return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except PermissionError as error:
        raise SourceError(f"the folder {folder} cannot be read: {error.strerror}") from error
    for name in names:
        if name != ".git":
            yield from _repositories_below(folder / name)


def _is_repository(folder: Path) -> bool:
    """Whether git would take the folder for a repository: bare, or with a `.git` folder of its own."""
    inner = folder / ".git"
    return _is_git_dir(folder) or (not inner.is_symlink() and _is_git_dir(inner))


def _is_git_dir(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def _document(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        # The error's own text quotes the list, which may hold passwords.
        raise SourceError(f"the list of repositories is not valid YAML{where}") from None


def _entries(document: Any) -> Iterator[tuple[str, str]]:
    """The names ("" where none is given) and addresses of a list; each of its forms."""
    if isinstance(document, dict) and set(document) == {"repositories"}:
        document = document["repositories"]
    if isinstance(document, dict):
        document = [{"name": name, "url": _url_of(value)} for name, value in document.items()]
    if not isinstance(document, list):
        raise SourceError("the list of repositories is neither a list of addresses nor a mapping of names to addresses")
    for number, entry in enumerate(document, 1):
        if isinstance(entry, str):
            entry = {"url": entry}
        if not isinstance(entry, dict) or not set(entry) <= {"name", "url"} or not isinstance(entry.get("url"), str):
            raise SourceError(f"entry {number} of the list of repositories is no address, and no name with a url")
        name = entry.get("name", "")
        if not isinstance(name, str):
            raise SourceError(f"the name in entry {number} of the list of repositories is no text: put it in quotes")
        yield name, entry["url"]


def _url_of(value: Any) -> Any:
    return value["url"] if isinstance(value, dict) and set(value) == {"url"} else value


def _key(name: str, secret: str, known_hosts: str) -> Credentials:
    if secret and _PRIVATE_KEY not in secret:
        raise SourceError(
            f"{name} is reached by ssh, but its credentials are no private key: give a key, or use https://"
        )
    return Credentials(ssh_key=SecretStr(secret) if secret else None, known_hosts=known_hosts)


def _token(name: str, secret: str) -> Credentials:
    if _PRIVATE_KEY in secret:
        raise SourceError(f"the credentials of {name} are a private key, but it is not reached by ssh: give a token")
    username, colon, password = secret.strip().partition(":")
    return Credentials(username, SecretStr(password)) if colon else Credentials(token=SecretStr(username))
