"""`batchwright publish`, `status`, `close`, `merge` and `detach`: changesets on code hosts."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .. import settings
from .console import errors, output, print_json
from .errors import FAILED, INTERRUPTED
from .hosts import Hosts, host_blocks
from .inspect import RunName
from .sources import Store, artifact_store
from .validate import AsJson

if TYPE_CHECKING:
    from blocks.code_hosts import CodeHost

    from ..publishing.outcomes import Outcome
    from ..publishing.tables import Row
    from ..publishing.upkeep import Keeper, Verb

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the batch change.")]
Only = Annotated[str, typer.Option(metavar="GLOB", help="Only the repositories whose names match.")]
Branch = Annotated[str, typer.Option(metavar="GLOB", help="Only the branches whose names match.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would happen, and change nothing.")]
PerMinute = Annotated[float, typer.Option(min=0.1, metavar="NUMBER", help="How many at most in a minute.")]

_STYLES = {"conflict": "yellow", "failed": "bold red", "left": "dim", "kept": "dim", "unpublished": "dim"}
_EVERY_STATE = {"open": "green", "merged": "magenta", "closed": "red", "conflict": "yellow", "failed": "bold red"}


class Undecided(enum.StrEnum):
    """What becomes of changesets for which `published` says nothing."""

    leave = "leave"
    draft = "draft"
    publish = "publish"


class Method(enum.StrEnum):
    """How to merge."""

    merge = "merge"
    squash = "squash"
    rebase = "rebase"


def register(app: typer.Typer) -> None:
    for command in (publish, status, close, merge, detach):
        app.command()(command)


def publish(
    run: RunName,
    host: Hosts = None,
    dry_run: DryRun = False,
    only: Only = "*",
    undecided: Annotated[
        Undecided, typer.Option(help="What becomes of changesets for which the spec's `published` says nothing.")
    ] = Undecided.leave,
    close_removed: Annotated[
        bool, typer.Option("--close-removed", help="Close changesets that were published and are in this run no more.")
    ] = False,
    detach_removed: Annotated[
        bool, typer.Option("--detach-removed", help="Let go of them instead: the host keeps them as they are.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace commits that somebody else put on a changeset's branch.")
    ] = False,
    reopen: Annotated[
        bool, typer.Option("--reopen", help="Open again what was closed, let go of, or is gone.")
    ] = False,
    no_rebase: Annotated[
        bool, typer.Option("--no-rebase", help="Leave changesets alone of which only the base has moved.")
    ] = False,
    older: Annotated[bool, typer.Option("--older", help="Also where a later run was published already.")] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Also if the run did not complete: publish what it has.")
    ] = False,
    fork: Annotated[bool, typer.Option("--fork", help="Push to forks, unless the spec's `fork` says no.")] = False,
    fork_owner: Annotated[str, typer.Option(metavar="OWNER", help="Who owns them. Default: the token's user.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="A label for every review request.")] = None,
    reviewer: Annotated[list[str] | None, typer.Option(help="Whom to ask for a review.")] = None,
    assignee: Annotated[list[str] | None, typer.Option(help="Whom to assign.")] = None,
    link: Annotated[str, typer.Option(metavar="URL", help="What review requests link to, in their last line.")] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="How many changesets at a time.")] = 4,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Propose the changesets of a run on their code hosts. Again: brings them up to date; what is right is left."""
    from ..publishing.options import PublishOptions
    from ..publishing.publisher import Publisher

    options = PublishOptions(
        only=only,
        undecided=undecided.value,
        foreign_commits="overwrite" if overwrite else "stop",
        removed="close" if close_removed else "detach" if detach_removed else "keep",
        reopen=reopen,
        rebase=not no_rebase,
        older=older,
        incomplete=incomplete,
        fork=fork or bool(fork_owner),
        fork_owner=fork_owner,
        labels=tuple(label or ()),
        reviewers=tuple(reviewer or ()),
        assignees=tuple(assignee or ()),
        link=link,
        changesets_at_once=jobs,
    )
    with _connected(host) as (hosts, stop):
        artifacts = artifact_store(store).store()
        publisher = Publisher(artifacts, run, hosts, options, settings.home(), dry_run=dry_run, stop=stop)

        def outcomes() -> Iterator[Outcome]:
            for numbers in publisher.chunks():
                yield from publisher.publish(numbers)
            yield from publisher.tidy()

        _tell(outcomes(), total=publisher.run.count, dry_run=dry_run, as_json=as_json)


def status(
    name: Name,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the code hosts first.")] = False,
    host: Hosts = None,
    only: Only = "*",
    branch: Branch = "*",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show the changesets of a batch change: where they are, what reviewers and checks say, whether they conflict."""
    from ..publishing.tables import headline, tracked_row
    from ..publishing.tracking import NothingTracked, Tracking
    from ..publishing.upkeep import Selection

    tracking, chosen = Tracking(artifact_store(store).store(), name), Selection(only, branch)
    if refresh or host:
        with _keeper(name, host, store) as keeper:
            for outcome in keeper.each(keeper.refresh, chosen, per_minute=None):
                if outcome.done == "failed":
                    errors.print(f"{outcome.repository} {outcome.branch}: {outcome.reason}", style="red", markup=False)
    found = [tracked for _, tracked in tracking.changesets() if chosen.takes(tracked)]
    if not found and not tracking.documents():
        raise NothingTracked(name, tracking.store.location)
    if as_json:
        print_json([tracked.model_dump(mode="json") for tracked in found])
        return
    output.print(_table([tracked_row(tracked) for tracked in found], "state", _EVERY_STATE))
    seen = max((tracked.refreshed_at for tracked in found if tracked.refreshed_at), default=None)
    output.print(headline(found) + (f"; looked at {seen:%Y-%m-%d %H:%M} UTC" if seen else ""), markup=False)


def close(
    name: Name,
    host: Hosts = None,
    only: Only = "*",
    branch: Branch = "*",
    per_minute: PerMinute = 60,
    dry_run: DryRun = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Close the changesets of a batch change. Publishing does not open them again, unless it is told to."""
    with _keeper(name, host, store, dry_run=dry_run) as keeper:
        _on_each(keeper, keeper.close, only, branch, per_minute, dry_run=dry_run, as_json=as_json)


def merge(
    name: Name,
    host: Hosts = None,
    only: Only = "*",
    branch: Branch = "*",
    method: Annotated[Method, typer.Option(help="How.")] = Method.merge,
    approved: Annotated[bool, typer.Option("--approved", help="Only those that somebody approved.")] = False,
    per_minute: PerMinute = 20,
    dry_run: DryRun = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Merge the changesets that are green: ready, no conflicts, no check fails or runs, nobody asked for changes."""
    with _keeper(name, host, store, dry_run=dry_run) as keeper:
        _on_each(
            keeper,
            lambda key: keeper.merge(key, method=method.value, approved=approved),
            only,
            branch,
            per_minute,
            dry_run=dry_run,
            as_json=as_json,
        )


def detach(name: Name, only: Only = "*", branch: Branch = "*", dry_run: DryRun = False, store: Store = None) -> None:
    """Let go of changesets: the code hosts keep them as they are. Publishing takes them up only with --reopen."""
    from ..publishing.hosts import Hosts as NoHosts
    from ..publishing.tracking import Tracking
    from ..publishing.upkeep import Keeper

    keeper = Keeper(Tracking(artifact_store(store).store(), name), NoHosts(()), settings.home(), dry_run=dry_run)
    _on_each(keeper, keeper.detach, only, branch, None, dry_run=dry_run, as_json=False)


def _on_each(
    keeper: Keeper, verb: Verb, only: str, branch: str, per_minute: float | None, *, dry_run: bool, as_json: bool
) -> None:
    from ..publishing.upkeep import Selection

    outcomes = keeper.each(verb, Selection(only, branch), per_minute=per_minute)
    _tell(outcomes, total=None, dry_run=dry_run, as_json=as_json)


@contextmanager
def _connected(given: list[str] | None) -> Iterator[tuple[list[CodeHost], Event]]:
    """The code hosts, and what ends all waiting for them."""
    from ..publish_changesets import connected

    stop = Event()
    with connected(host_blocks(given), stop) as hosts:
        yield hosts, stop


@contextmanager
def _keeper(name: str, given: list[str] | None, store: str | None, *, dry_run: bool = False) -> Iterator[Keeper]:
    from ..publishing.hosts import Hosts as AllHosts
    from ..publishing.tracking import Tracking
    from ..publishing.upkeep import Keeper

    with _connected(given) as (hosts, stop):
        tracking = Tracking(artifact_store(store).store(), name)
        yield Keeper(tracking, AllHosts(hosts), settings.home(), stop, dry_run=dry_run)


def _tell(outcomes: Iterable[Outcome], *, total: int | None, dry_run: bool, as_json: bool) -> None:
    """Show outcomes as they come, then all of them. Ends with exit code 1 if one needs a person."""
    from ..publishing.outcomes import Counts
    from ..publishing.tables import outcome_row

    found: list[Outcome] = []
    try:
        with errors.status("asking the code hosts") as shown:
            for outcome in outcomes:
                found.append(outcome)
                shown.update(f"{len(found)}{f' of {total}' if total else ''} changesets")
    except KeyboardInterrupt:
        errors.print("interrupted: do it again, and nothing is done twice", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    counts = Counts.of(found)
    if as_json:
        print_json([outcome.model_dump(mode="json") for outcome in found])
    else:
        output.print(_table([outcome_row(outcome) for outcome in found], "outcome", _STYLES))
        output.print(f"{'would be: ' if dry_run else ''}{counts.headline}", markup=False)
    sys.stdout.flush()
    if counts.trouble:
        raise typer.Exit(FAILED)


def _table(rows: list[Row], coloured: str, styles: dict[str, str]) -> Table:
    """A table of the columns that say something."""
    names = [name for name in (rows[0] if rows else {}) if any(row[name] for row in rows)]
    table = Table(box=None, pad_edge=False)
    for name in names:
        options: dict[str, Any] = {"no_wrap": True} if name == "url" else {"overflow": "fold"}
        table.add_column(name, **options)
    for row in rows:
        table.add_row(*(Text(row[name], styles.get(row[name], "") if name == coloured else "") for name in names))
    return table
