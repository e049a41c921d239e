"""What several commands ask for: repositories, a store, how much at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import SecretStr, ValidationError

from .. import settings
from ..batches.records import explain
from .console import read_text
from .errors import BadInput

if TYPE_CHECKING:
    from prefect.blocks.core import Block

    from blocks.artifacts import LocalArtifacts
    from blocks.repositories import RepositoryFolder, RepositoryList
    from blocks.s3_artifacts import S3Artifacts
    from blocks.sourcegraph import SourcegraphInstance

    AnyRepositories = RepositoryFolder | RepositoryList | SourcegraphInstance

_One = TypeVar("_One", bound="Block")
_Other = TypeVar("_Other", bound="Block")

Repositories = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|FILE",
        help="Where repositories come from: a folder of git repositories, or a YAML list of names with git URLs. "
        "Default: the current folder.",
        show_default=False,
    ),
]
Instance = Annotated[
    str | None,
    typer.Option(
        metavar="URL|BLOCK",
        help="A Sourcegraph instance, instead of --repositories: its address (the token is in SRC_ACCESS_TOKEN, the "
        "executors' in EXECUTOR_FRONTEND_PASSWORD), or a stored block as `sourcegraph-instance/NAME`.",
        show_default=False,
    ),
]
AllowUnsupported = Annotated[
    bool, typer.Option("--allow-unsupported", help="Also repositories whose code host cannot have changesets.")
]
Only = Annotated[str, typer.Option(metavar="GLOB", help="Only the repositories whose names match, to try things out.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, help="How much to do at the same time.")]
AllowIgnored = Annotated[bool, typer.Option("--allow-ignored", help="Also repositories that hold a .batchignore file.")]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|s3://BUCKET/PREFIX|BLOCK",
        help="Where results are kept: a folder, a bucket (credentials and endpoint from the usual AWS variables), or a "
        "stored block as `s3-artifacts/NAME`. Default: a folder in the state folder.",
        show_default=False,
    ),
]


def repositories_path(where: str | None) -> Path:
    """The folder or file that ``--repositories`` names. Raises BadInput if there is none."""
    path = Path(where or ".").expanduser().resolve()
    if not path.exists():
        raise BadInput(f"--repositories {where}: no such folder or file; name a folder of repositories or a list")
    return path


def repository_source(path: Path) -> RepositoryFolder | RepositoryList:
    """The block for ``--repositories``. Raises BadInput."""
    from blocks.repositories import RepositoryFolder, RepositoryList

    if path.is_dir():
        return RepositoryFolder(folder=str(path))
    return RepositoryList(repositories=read_text(path))


def check_source(repositories: str | None, instance: str | None) -> None:
    """Tell what is wrong with the choice as far as that can be said without Prefect. Raises BadInput."""
    if instance is None:
        repositories_path(repositories)
    elif repositories is not None:
        raise BadInput("--repositories and --instance both say where repositories come from: give one of the two")


def chosen_source(repositories: str | None, instance: str | None) -> AnyRepositories:
    """The block for ``--repositories`` or ``--instance``. Raises BadInput."""
    check_source(repositories, instance)
    return repository_source(repositories_path(repositories)) if instance is None else instance_block(instance)


def instance_block(where: str) -> SourcegraphInstance:
    """The block for ``--instance``. Raises BadInput."""
    from blocks.sourcegraph import SourcegraphInstance

    if stored := stored_block("--instance", where, SourcegraphInstance, SourcegraphInstance):
        return stored
    token, executor_token = settings.instance_tokens()
    if not token:
        raise BadInput("--instance: no access token; set SRC_ACCESS_TOKEN to one of the instance's (scope user:all)")
    secret = SecretStr(executor_token) if executor_token else None
    try:
        return SourcegraphInstance(url=where, token=SecretStr(token), executor_token=secret)
    except ValidationError as error:
        raise BadInput(f"--instance {where}: {explain(error)}") from error


def artifact_store(where: str | None) -> LocalArtifacts | S3Artifacts:
    """The block for ``--store``. Raises BadInput."""
    from blocks.artifacts import LocalArtifacts
    from blocks.s3_artifacts import S3Artifacts

    if where is None:
        return LocalArtifacts(folder=str(settings.home() / "store"))
    if where.startswith("s3://"):
        bucket, _, prefix = where.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadInput(f"--store {where}: no bucket; write s3://BUCKET or s3://BUCKET/PREFIX")
        try:
            return S3Artifacts(bucket=bucket, prefix=prefix.strip("/"))
        except ValidationError as error:
            raise BadInput(f"--store {where}: {explain(error)}") from error
    if stored := stored_block("--store", where, LocalArtifacts, S3Artifacts):
        return stored
    return LocalArtifacts(folder=str(Path(where).expanduser().absolute()))


def stored_block(option: str, where: str, one: type[_One], other: type[_Other]) -> _One | _Other | None:
    """The stored block that ``where`` names as TYPE/NAME, if it does so. Raises BadInput if there is none."""
    block_type, _, name = where.partition("/")
    for block in (one, other):
        if block_type == block.get_block_type_slug():
            try:
                found = block.load(name)
            except ValueError as error:
                raise BadInput(f"{option}: {error}") from error
            assert isinstance(found, block)  # a coroutine only where an event loop runs
            return found
    return None
