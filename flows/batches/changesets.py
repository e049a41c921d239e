"""What one workspace's diff becomes: changeset specs, one per branch; and those that are only imported.

Upstream: lib/batches/changeset_specs.go. A changeset spec without a diff is never made.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import changeset_schema
from .diff import Changes, changes, parse, split_by_group
from .documents import Json
from .errors import ChangesetError
from .glob import compile_glob
from .gojson import well_formed
from .spec import Author, BatchSpec, ChangesetTemplate, Group, ImportChangesets, Published, PublishedRule
from .template import ChangesetContext, StepState, render_changeset

DEFAULT_AUTHOR = Author(name="Sourcegraph", email="batch-changes@sourcegraph.com")
"""Who commits if neither the changesetTemplate nor the caller says."""

_HEADS = "refs/heads/"
_SOME_DIFF = "-"
"""Any text is a diff to an instance's schema."""


@dataclass(frozen=True)
class BaseRepository:
    """The repository that a changeset spec is for. ``id`` is what the reader of the spec calls it; else its name."""

    id: str
    name: str
    base_ref: str
    """With `refs/heads/`."""
    base_rev: str
    file_matches: tuple[str, ...] = ()
    """Paths that the search found."""


@dataclass(frozen=True)
class Commit:
    """The one commit of a changeset spec. ``binary`` says whether the diff is written as base64 (version 2) or text."""

    message: str
    diff: bytes = field(repr=False)
    author: Author
    binary: bool = True

    def encode(self, diff: str | None = None) -> dict[str, Json]:
        """Upstream's JSON. Bytes that are not UTF-8 are lost, also those of a diff as text.

        ``diff`` stands in place of the encoded diff, which may be large.
        """
        if diff is None:
            diff = (b64encode(self.diff) if self.binary else self.diff).decode("utf-8", "surrogateescape")
        return _without_empty(
            {
                "version": 2 if self.binary else 0,
                "message": self.message,
                "diff": diff,
                "authorName": self.author.name,
                "authorEmail": self.author.email,
            }
        )


@dataclass(frozen=True)
class ChangesetSpec:
    """A changeset to be: a branch with one commit, or (``external_id``, no commit) one that exists already."""

    repository: str
    """The repository's name."""
    repository_id: str
    external_id: str = ""
    base_rev: str = ""
    base_ref: str = ""
    head_ref: str = ""
    title: str = ""
    body: str = ""
    commit: Commit | None = None
    published: Published | None = None
    """None: decided in the UI."""
    fork: bool | None = None

    @property
    def branch(self) -> str:
        """The head branch without `refs/heads/`."""
        return self.head_ref.removeprefix(_HEADS)

    def encode(self, diff: str | None = None) -> dict[str, Json]:
        """Upstream's JSON, in upstream's order. Empty texts are left out, and bytes that are not UTF-8 lost.

        ``diff``: see ``Commit.encode``.
        """
        content = _without_empty(
            {
                "baseRepository": self.repository_id,
                "externalID": self.external_id,
                "baseRev": self.base_rev,
                "baseRef": self.base_ref,
                "headRepository": self.repository_id if self.commit else "",
                "headRef": self.head_ref,
                "title": self.title,
                "body": self.body,
                "commits": [self.commit.encode(diff)] if self.commit else [],
            }
        )
        decided: dict[str, Json] = {"published": self.published, "fork": self.fork}
        return content | {name: value for name, value in decided.items() if value is not None}


def build(
    spec: BatchSpec,
    repository: BaseRepository,
    *,
    path: str,
    outputs: Mapping[str, object],
    diff: bytes,
    fallback_author: Author | None = None,
    binary_diffs: bool = True,
) -> tuple[ChangesetSpec, ...]:
    """The changeset specs for one workspace, by branch, each as an instance takes it; none for an empty diff.

    ``diff`` and ``outputs`` are those of the last executed step, ``path`` is the workspace's. Raises ChangesetError
    (also for refs and e-mail addresses that an instance would refuse), TemplateError, DiffError.
    """
    specs = draft(
        spec,
        repository,
        path=path,
        outputs=outputs,
        diff=diff,
        fallback_author=fallback_author,
        binary_diffs=binary_diffs,
    )
    if problems := [problem for each in specs for problem in _problems(each, spec.groups)]:
        raise ChangesetError("\n".join(dict.fromkeys(problems)))
    return specs


def draft(
    spec: BatchSpec,
    repository: BaseRepository,
    *,
    path: str,
    outputs: Mapping[str, object],
    diff: bytes,
    fallback_author: Author | None = None,
    binary_diffs: bool = True,
) -> tuple[ChangesetSpec, ...]:
    """As ``build``, whatever an instance thinks of it. Raises ChangesetError (groups), TemplateError, DiffError."""
    template = spec.changeset_template
    if not diff or template is None:
        return ()
    files = parse(diff)
    context = _context(spec, repository, path, outputs, changes(files))
    texts = _render(template, context, fallback_author or DEFAULT_AUTHOR)
    groups = groups_for(spec.groups, repository.name)
    check_groups(repository.name, template.branch, groups)
    parts = split_by_group(files, texts.branch, groups)
    return tuple(
        ChangesetSpec(
            repository=repository.name,
            repository_id=repository.id,
            base_rev=repository.base_rev,
            base_ref=repository.base_ref,
            head_ref=_HEADS + branch.removeprefix(_HEADS),
            title=texts.title,
            body=texts.body,
            commit=Commit(texts.message, parts[branch], texts.author, binary_diffs),
            published=evaluate_published(template.published, repository.name, branch),
            fork=template.fork,
        )
        for branch in sorted(parts)
    )


def groups_for(groups: Iterable[Group], repository: str) -> tuple[Group, ...]:
    """The groups that apply to a repository: those that name it (no globs), and those that name none."""
    return tuple(group for group in groups if group.repository in ("", repository))


def check_groups(repository: str, template_branch: str, groups: Iterable[Group]) -> None:
    """Whether every group has a branch of its own. ``template_branch`` is not rendered. Raises ChangesetError."""
    taken: set[str] = set()
    for group in groups:
        if group.branch in taken:
            raise ChangesetError(
                f"transformChanges would lead to multiple changesets in repository {repository}"
                f' to have the same branch "{group.branch}"'
            )
        if group.branch == template_branch:
            raise ChangesetError(
                f"transformChanges group branch for repository {repository} is the same as"
                f' branch "{template_branch}" in changesetTemplate'
            )
        taken.add(group.branch)


def check_duplicates(specs: Iterable[ChangesetSpec]) -> None:
    """Whether each has a branch of its own in its repository; imports have none. Raises ChangesetError."""
    counts = Counter((spec.repository, spec.branch) for spec in specs if not spec.external_id)
    duplicates = [
        f'\t* {repository}: {count} changeset specs have the branch "{branch}"'
        for (repository, branch), count in sorted(counts.items())
        if count > 1
    ]
    if duplicates:
        raise ChangesetError(
            "\n".join(
                (
                    "Multiple changeset specs have the same branch:",
                    *duplicates,
                    "Make changesetTemplate.branch different for each of them, for example with ${{ steps.path }}.",
                )
            )
        )


def import_specs(imports: Iterable[ImportChangesets], ids: Mapping[str, str]) -> tuple[ChangesetSpec, ...]:
    """One changeset spec per external id. ``ids`` has the ids of known repositories by name. Raises ChangesetError."""
    entries = tuple(imports)
    unknown = dict.fromkeys(entry.repository for entry in entries if entry.repository not in ids)
    if unknown:
        raise ChangesetError("\n".join(f'repository "{name}" not found' for name in unknown))
    return tuple(
        ChangesetSpec(repository=entry.repository, repository_id=ids[entry.repository], external_id=external_id)
        for entry in entries
        for external_id in entry.external_ids
    )


def evaluate_published(
    published: Published | Sequence[PublishedRule] | None, repository: str, branch: str
) -> Published | None:
    """What `published` says for a repository and a head branch; None: nothing, it is decided in the UI.

    The last rule that matches wins: its glob the repository's name, and the text behind its first @ (if any) the
    branch, to the letter.
    """
    if published is None or isinstance(published, bool | str):
        return published
    branches = ("", branch, branch.removeprefix(_HEADS))
    for rule in reversed(published):
        pattern, _, suffix = rule.pattern.partition("@")
        if suffix in branches and compile_glob(pattern).match(repository):
            return rule.value
    return None


@dataclass(frozen=True)
class _Texts:
    """The rendered changesetTemplate."""

    title: str
    body: str
    branch: str
    message: str
    author: Author


def _context(
    spec: BatchSpec, repository: BaseRepository, path: str, outputs: Mapping[str, object], changed: Changes
) -> ChangesetContext:
    return ChangesetContext(
        batch_change_name=spec.name,
        batch_change_description=spec.description,
        repository_name=repository.name,
        repository_branch=repository.base_ref,
        search_result_paths=repository.file_matches,
        path=path,
        outputs=outputs,
        steps=StepState(changed.modified, changed.added, changed.deleted, changed.renamed),
    )


def _render(template: ChangesetTemplate, context: ChangesetContext, fallback_author: Author) -> _Texts:
    def rendered(text: str, name: str) -> str:
        return render_changeset(text, context, f"changesetTemplate.{name}")

    author = fallback_author
    if template.author is not None:
        author = Author(
            name=rendered(template.author.name, "commit.author.name"),
            email=rendered(template.author.email, "commit.author.email"),
        )
    return _Texts(
        title=rendered(template.title, "title"),
        body=rendered(template.body, "body"),
        branch=rendered(template.branch, "branch"),
        message=rendered(template.message, "commit.message"),
        author=author,
    )


def _problems(spec: ChangesetSpec, groups: Sequence[Group]) -> Iterator[str]:
    """What an instance would refuse, told by the field of the changesetTemplate. An empty body may be sent as such."""
    assert spec.commit is not None, "only imports have no commit"
    for name, text in (("title", spec.title), ("commit.message", spec.commit.message)):
        if not text:
            yield f"{spec.repository}: changesetTemplate.{name} renders to nothing"
    grouped = spec.branch in {group.branch.removeprefix(_HEADS) for group in groups}
    places = {
        "headRef": f"{'transformChanges.group' if grouped else 'changesetTemplate'}.branch {spec.branch!r}",
        "commits.0.authorEmail": f"changesetTemplate.commit.author.email {spec.commit.author.email!r}",
    }
    encoded = spec.encode(_SOME_DIFF)
    commit: Json = {"message": "", "authorName": "", "authorEmail": "", **spec.commit.encode(_SOME_DIFF)}
    for fault in changeset_schema.faults({"title": "", "body": "", **encoded, "commits": [commit]}):
        if fault.path:
            yield f"{spec.repository}: {places.get(fault.path, fault.path)}: {fault.message}"


def _without_empty(content: Mapping[str, Json]) -> dict[str, Json]:
    return {name: well_formed(value) for name, value in content.items() if value}
