"""The flows that propose the changes of a run on code hosts, and that look how they fare. Each chunk is one task."""

# No `from __future__ import annotations`: to serve a flow, Prefect pickles it by value, and names in text get lost.

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any
from uuid import UUID

from prefect import flow, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from blocks.artifacts import LocalArtifacts
from blocks.code_hosts import CodeHost
from blocks.gitea_host import Gitea
from blocks.github_host import GitHub
from blocks.gitlab_host import GitLab
from blocks.plain_git_host import PlainGit
from blocks.s3_artifacts import S3Artifacts

from . import settings
from .batches.errors import Stopped
from .batches.tracked import TrackedChangeset
from .cancellation import watched
from .markdown import cell
from .publishing.hosts import Hosts
from .publishing.options import PublishOptions
from .publishing.outcomes import Counts, Outcome
from .publishing.publisher import Publisher
from .publishing.tables import headline, outcome_row, tracked_row
from .publishing.tracking import Tracking
from .publishing.upkeep import Keeper, Selection
from .summaries import artifact_key

HostBlock = GitHub | GitLab | Gitea | PlainGit

DEFAULTS = PublishOptions()

TABLE_ROWS = 5_000
LINKED_ROWS = 500
"""On the page: the dashboard loads it whole."""


@flow(name="publish-changesets", flow_run_name="publish {run}", persist_result=False)
def publish_changesets(
    run: str,
    code_hosts: list[HostBlock],
    artifacts: LocalArtifacts | S3Artifacts,
    options: PublishOptions = DEFAULTS,
    dry_run: bool = False,
) -> State[Any]:
    """Propose the changesets of a run on their code hosts, and bring those that are there up to date.

    Args:
        run: The run's id, the beginning of it, or `last`.
        code_hosts: Where the repositories are. The one whose names a repository's name begins with has it.
        artifacts: Where the run's results are kept, and what was published.
        options: How to publish.
        dry_run: Only tell what would happen.
    """
    stop = Event()
    with connected(code_hosts, stop) as hosts:
        publisher = Publisher(artifacts.store(), run, hosts, options, settings.home(), dry_run=dry_run, stop=stop)
        try:
            with watched(UUID(str(runtime.flow_run.id)), stop):
                outcomes = _published(publisher)
        except (KeyboardInterrupt, Stopped):
            return Cancelled(message="Publishing was stopped; publish again, and nothing is done twice.")
    counts = Counts.of(outcomes)
    name = publisher.run.batch_change
    create_table_artifact(
        key=artifact_key(name, "planned" if dry_run else "published"),
        table=[dict(outcome_row(outcome)) for outcome in outcomes[:TABLE_ROWS]],
        description=counts.headline,
    )
    if not dry_run:
        _show(Tracking(artifacts.store(), name))
    message = f"{'would be: ' if dry_run else ''}{counts.headline}"
    return Failed(message=message) if counts.trouble else Completed(message=message)


def _published(publisher: Publisher) -> list[Outcome]:
    outcomes = []
    for numbers in publisher.chunks():
        outcomes += publish_chunk(numbers[0], numbers[-1], publisher)
    return [*outcomes, *tidy(publisher)]


@task(name="publish", task_run_name="changesets {first}-{last}", cache_policy=NO_CACHE, persist_result=False)
def publish_chunk(first: int, last: int, publisher: Publisher) -> list[Outcome]:
    """Bring some changesets about; what befalls one of them is in its outcome."""
    return list(publisher.publish(range(first, last + 1)))


@task(name="tidy", task_run_name="changesets that are no more", cache_policy=NO_CACHE, persist_result=False)
def tidy(publisher: Publisher) -> list[Outcome]:
    """What becomes of the changesets that the run has no more."""
    return list(publisher.tidy())


@flow(name="refresh-changesets", persist_result=False)
def refresh_changesets(
    code_hosts: list[HostBlock],
    artifacts: LocalArtifacts | S3Artifacts,
    batch_changes: list[str] | None = None,
) -> State[Any]:
    """Look at the changesets of batch changes on their code hosts: review, checks, merge conflicts.

    Args:
        code_hosts: Where the repositories are.
        artifacts: Where it is kept what was published.
        batch_changes: The names of the batch changes. Empty: all that the store has changesets of.
    """
    store = artifacts.store()
    found = [Tracking(store, name) for name in batch_changes] if batch_changes else Tracking.of_all(store)
    trouble, stop = 0, Event()
    with connected(code_hosts, stop) as hosts:
        try:
            with watched(UUID(str(runtime.flow_run.id)), stop):
                for tracking in found:
                    trouble += refresh(tracking.batch_change, Keeper(tracking, Hosts(hosts), settings.home(), stop))
                    _show(tracking)
        except (KeyboardInterrupt, Stopped):
            return Cancelled(message="Looking at the changesets was stopped; what was seen is noted.")
    message = f"{len(found)} batch changes"
    return (
        Failed(message=f"{message}; {trouble} changesets could not be looked at")
        if trouble
        else Completed(message=message)
    )


@task(name="refresh", task_run_name="{batch_change}", cache_policy=NO_CACHE, persist_result=False)
def refresh(batch_change: str, keeper: Keeper) -> int:
    """Look at all live changesets of a batch change; gives how many could not be looked at."""
    return Counts.of(keeper.each(keeper.refresh, Selection(), per_minute=None)).trouble


def propose(
    ended: State[Any],
    run_id: str,
    code_hosts: list[HostBlock] | None,
    artifacts: LocalArtifacts | S3Artifacts,
    options: PublishOptions,
) -> State[Any]:
    """Publish a run that has ended, if it ended well and there is a code host; how the whole ends."""
    if not (code_hosts and ended.is_completed()):
        return ended
    published = publish_changesets(run_id, code_hosts, artifacts, options, return_state=True)
    kind = Completed if published.is_completed() else Cancelled if published.is_cancelled() else Failed
    return kind(message=f"{ended.message}; {published.message}")


@contextmanager
def connected(blocks: Sequence[HostBlock], stop: Event) -> Iterator[list[CodeHost]]:
    """The code hosts that some blocks describe; their connections are closed at the end. ``stop`` ends all waiting."""
    hosts: list[CodeHost] = [block.connect(stop) for block in blocks]
    try:
        yield hosts
    finally:
        for host in hosts:
            host.disconnect()


def _show(tracking: Tracking) -> None:
    """The table artifact of a batch change's changesets, and a page with links (a table's cells are plain text)."""
    changesets = [tracked for _, tracked in tracking.changesets()]
    name, told = tracking.batch_change, headline(changesets)
    rows = [dict(tracked_row(tracked)) for tracked in changesets[:TABLE_ROWS]]
    create_table_artifact(key=artifact_key(name, "changesets"), table=rows, description=told)
    create_markdown_artifact(
        key=artifact_key(name, "changesets", "links"), markdown=_page(told, changesets), description=told
    )


def _page(told: str, changesets: Sequence[TrackedChangeset]) -> str:
    lines = [told, "", "| repository | branch | state | |", "|---|---|---|---|"]
    for tracked in changesets[:LINKED_ROWS]:
        url = (
            tracked.url
            if tracked.url.startswith(("https://", "http://")) and not set(tracked.url) & set(" ()<>|")
            else ""
        )
        link = f"[open]({url})" if url else ""
        lines.append(f"| {cell(tracked.repository)} | {cell(tracked.branch)} | {tracked.state} | {link} |")
    if len(changesets) > LINKED_ROWS:
        lines.append(f"\n_and {len(changesets) - LINKED_ROWS} more: `batchwright status`_")
    return "\n".join(lines) + "\n"
