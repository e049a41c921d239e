"""The report's page, written piece by piece: as large as its limits allow, at flat memory.

The page needs nothing beside it and asks nobody: its policy (CSP) forbids every request, and every script and style
but its own.
"""

from __future__ import annotations

import hashlib
import shlex
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from blocks.blobs import Blobs
from blocks.store import ArtifactMissing, StoreTrouble

from ..batches.causes import Cause, causes, what_to_do
from ..batches.records import Blob as BlobRecord
from ..batches.records import RecordError
from ..batches.results import RunManifest, StepReference, WorkspaceResult, read_step_result
from ..ledger import Ledger
from ..step_cache import stored
from .text import cut, element, esc
from .workspace import TEXT_CHARACTERS, Content, Step, pill, workspace

_READERS = 8
"""Workspaces that are read from the store at the same time: a bucket answers slowly, and many at once."""

_NAMED = 20
"""Workspaces that a cause names."""


@dataclass(frozen=True)
class ReportLimits:
    """How much a report holds. What is beyond is left out, and said so where it is missing."""

    workspaces: int = 10_000
    diff_bytes: int = 200_000
    """Of one workspace."""
    diffs_bytes: int = 24_000_000
    """Of all workspaces together."""
    output_bytes: int = 4_000
    """The end of a stream of a step."""
    outputs_of: int = 100
    """How many workspaces show the output of their steps; of one that failed, the message has it in any case."""


DEFAULT_LIMITS = ReportLimits()


def write_report(ledger: Ledger, out: BinaryIO, limits: ReportLimits = DEFAULT_LIMITS) -> None:
    """Write the report of a run as it is in the store now, ended or not. Raises the store's errors, RecordError.

    A record of a step, or a diff, that cannot be read is missing in the report, which says why.
    """
    manifest = ledger.manifest()
    for piece in _page(manifest, ledger, limits):
        out.write(piece.encode("utf-8", "replace"))


def is_current(beginning: bytes) -> bool:
    """Whether a report that begins like this was written with the styles and scripts of this program."""
    return beginning.startswith(_opening().encode())


def content_policy() -> str:
    """The page's policy, for its own head and for a server's header: nothing but its own style and script."""
    hashes = {
        name: b64encode(hashlib.sha256(_asset(f"page.{name}").encode()).digest()).decode() for name in ("css", "js")
    }
    return (
        f"default-src 'none'; style-src 'sha256-{hashes['css']}'; script-src 'sha256-{hashes['js']}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _page(manifest: RunManifest, ledger: Ledger, limits: ReportLimits) -> Iterator[str]:
    yield _opening()
    yield from _head(manifest)
    yield f"<body>{_summary(manifest, ledger)}{_causes(manifest)}{_tools(manifest)}<main>"
    shown = _sorted(manifest.workspaces)[: limits.workspaces]
    reader = _Reader(ledger, manifest, limits)
    for (number, result), content in zip(shown, reader.read(shown), strict=True):
        yield workspace(manifest, number, result, content)
    yield "</main>"
    if rest := len(manifest.workspaces) - len(shown):
        yield element("p", f"{rest} more workspaces are not on this page: batchwright show {esc(manifest.run_id)}")
    yield element("script", _asset("page.js"))
    yield "</body></html>\n"


def _opening() -> str:
    digest = hashlib.sha256((_asset("page.css") + _asset("page.js")).encode()).hexdigest()
    return f"<!doctype html>\n<!-- batchwright report, page {digest[:16]} -->\n"


def _head(manifest: RunManifest) -> Iterator[str]:
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{esc(content_policy())}">'
    yield '<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width">'
    yield element("title", esc(f"{manifest.name}: {manifest.state}"))
    yield element("style", _asset("page.css"))
    yield "</head>"


def _summary(manifest: RunManifest, ledger: Ledger) -> str:
    began = f"{manifest.started_at:%Y-%m-%d %H:%M:%S} UTC"
    took = f", {(manifest.ended_at - manifest.started_at).total_seconds():.0f} s" if manifest.ended_at else ", running"
    return element(
        "header",
        element("h1", esc(manifest.name), " ", pill(manifest.state)),
        element("p", esc(manifest.headline)),
        element(
            "p", esc(f"run {manifest.run_id} · {began}{took} · {_approval(ledger)}").removesuffix(" · "), class_="dim"
        ),
    )


def _approval(ledger: Ledger) -> str:
    try:
        approval = ledger.approval()
    except (ArtifactMissing, RecordError):
        return ""
    return "waits for an approval" if approval.decision == "asked" else approval.sentence


def _causes(manifest: RunManifest) -> str:
    todo = what_to_do(manifest)
    if not todo:
        return ""
    whole = [element("pre", esc(cut(manifest.failure.message, TEXT_CHARACTERS)))] if manifest.failure else []
    numbers = {result.title: number for number, result in enumerate(manifest.workspaces, 1)}
    found = [_cause(cause, numbers) for cause in causes(manifest.workspaces)]
    return element("section", element("h2", "What to do"), element("p", esc(todo)), *whole, *found, id="todo")


def _cause(cause: Cause, numbers: dict[str, int]) -> str:
    named = ", ".join(
        element("a", esc(result.title), href=f"#w{numbers[result.title]}") for result in cause.workspaces[:_NAMED]
    )
    more = len(cause.workspaces) - _NAMED
    return element(
        "div",
        element("h3", esc(f"{len(cause.workspaces)} × {cause.title}")),
        element("p", esc(cause.advice.replace("*", ""))),
        element("p", named, f" and {more} more" if more > 0 else ""),
        element("pre", esc(cut(cause.message, TEXT_CHARACTERS))),
        class_="cause",
    )


def _tools(manifest: RunManifest) -> str:
    states = sorted({result.state for result in manifest.workspaces})
    buttons = [
        element("button", esc(state), type="button", data_state=state, aria_pressed="false")
        for state in ("all", *states, "changed")
    ]
    return element(
        "div",
        *buttons,
        '<input id="search" type="search" placeholder="Search repository, branch, failure" aria-label="Search">',
        '<label><input id="sides" type="checkbox" checked> side by side</label> <span id="count" class="dim"></span>',
        class_="tools",
        hidden="",
    )


def _sorted(results: Sequence[WorkspaceResult]) -> list[tuple[int, WorkspaceResult]]:
    """The workspaces with their numbers; what failed comes first."""
    order = {"failed": 0, "cancelled": 1, "completed": 2}
    return sorted(enumerate(results, 1), key=lambda entry: order[entry[1].state])


class _Reader:
    """Reads what the store has of workspaces, some ahead of the writing."""

    def __init__(self, ledger: Ledger, manifest: RunManifest, limits: ReportLimits) -> None:
        self._ledger, self._manifest, self._limits = ledger, manifest, limits
        self._blobs = Blobs(ledger.store)
        self._left = limits.diffs_bytes

    def read(self, shown: Sequence[tuple[int, WorkspaceResult]]) -> Iterator[Content]:
        """The content of each, in order. What is in memory is one round."""
        remaining = iter([result for _, result in shown])
        place = 0
        with ThreadPoolExecutor(_READERS, thread_name_prefix="report") as pool:
            while some := list(islice(remaining, _READERS)):
                rooms = [self._room_for(result) for result in some]
                with_output = [place + n < self._limits.outputs_of for n in range(len(some))]
                place += len(some)
                yield from pool.map(self._content, some, rooms, with_output)

    def _room_for(self, result: WorkspaceResult) -> int:
        """How many bytes of this diff the page takes."""
        size = result.diff.size_bytes if result.diff else 0
        taken = min(size, self._limits.diff_bytes, self._left)
        self._left -= taken
        return taken

    def _content(self, result: WorkspaceResult, room: int, with_output: bool) -> Content:
        steps = tuple(self._step(reference, with_output=with_output) for reference in result.steps)
        if result.diff is None:
            return Content(steps)
        try:
            diff = self._beginning(result.diff, room)
        except StoreTrouble as error:
            return Content(steps, left_out=f"the diff cannot be read: {error}")
        if room < result.diff.size_bytes:
            diff = diff[: diff.rfind("\n") + 1]
            command = f"batchwright diff {self._manifest.run_id} {shlex.quote(result.title)}"
            return Content(
                steps, diff, f"{result.diff.size_bytes - room} more bytes of the diff are left out here: {command}"
            )
        return Content(steps, diff)

    def _step(self, reference: StepReference, *, with_output: bool) -> Step:
        try:
            result = read_step_result(self._ledger.store.get(reference.key))
            output = self._output(result.stdout, result.stderr) if with_output and reference.how != "skipped" else ""
        except (StoreTrouble, RecordError) as error:
            return Step(reference, None, trouble=f"its record cannot be read: {error}")
        return Step(reference, result, output=output)

    def _output(self, *streams: BlobRecord | None) -> str:
        """The ends of what a step wrote. Long streams are left out: they would be read from their beginning."""
        limit = self._limits.output_bytes
        texts = [
            self._blobs.get(stored(stream)).decode("utf-8", "replace").rstrip("\n")
            for stream in streams
            if stream is not None and 0 < stream.size_bytes <= 16 * limit
        ]
        return "\n".join(text if len(text) <= limit else f"(...)\n{text[-limit:]}" for text in texts if text)

    def _beginning(self, blob: BlobRecord, size: int) -> str:
        if not size:
            return ""
        beginning = _Beginning(size)
        self._blobs.copy_to(stored(blob), beginning)
        return beginning.content.decode("utf-8", "replace")


class _Beginning:
    """Takes the first bytes of a stream of any size."""

    def __init__(self, size: int) -> None:
        self._size, self.content = size, bytearray()

    def write(self, content: bytes, /) -> None:
        self.content += content[: self._size - len(self.content)]


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
