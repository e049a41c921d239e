"""The report in the store, beside the run's records: written when the run ends, written anew when it is outdated."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from blocks.store import ArtifactMissing

from ..ledger import Ledger
from .page import is_current, write_report

_NAME = "report.html"


def keep_report(ledger: Ledger) -> None:
    """Write the report of the run into its store. Raises the store's errors, RecordError, OSError."""
    with tempfile.TemporaryDirectory(prefix="batchwright-report-") as scratch:
        file = Path(scratch, _NAME)
        with file.open("wb") as out:
            write_report(ledger, out)
        ledger.store.put_file(ledger.key(_NAME), file)


def copy_report(ledger: Ledger, out: BinaryIO) -> None:
    """Write the report into an empty file, open for reading too: as the store has it,
    unless the run goes on or an older program wrote it.

    Raises the store's errors (ArtifactMissing: there is no such run), RecordError.
    """
    if ledger.manifest().ended_at is not None:
        with suppress(ArtifactMissing):
            ledger.store.copy_to(ledger.key(_NAME), out)
        out.seek(0)
        if is_current(out.read(200)):
            return
    out.seek(0)
    out.truncate()
    write_report(ledger, out)
