"""The results of a run as files: what `--out` writes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ..batches.results import RunManifest
from ..ledger import Ledger
from .errors import BadInput


def check_folder(folder: Path) -> None:
    """Tell now what would keep ``export`` from writing when all is done. Raises BadInput."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise BadInput(f"--out {folder}: {there} is no folder that can be written; name another one")


def export(ledger: Ledger, manifest: RunManifest, folder: Path) -> None:
    """Write ``changesets/<n>.json``, ``changesets/<n>.patch`` and ``report.json``, replacing those of an earlier run.

    Raises BadInput if the folder cannot be written, the store's errors.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
            changesets = Path(scratch, "changesets")
            changesets.mkdir()
            for key in ledger.changeset_keys(manifest):
                (changesets / key.rsplit("/", 1)[1]).write_bytes(ledger.store.get(key))
            if (folder / "changesets").is_dir():
                shutil.rmtree(folder / "changesets")
            changesets.rename(folder / "changesets")
            report = Path(scratch, "report.json")
            report.write_bytes(manifest.encode())
            os.replace(report, folder / "report.json")
    except OSError as error:
        raise BadInput(f"--out {folder}: {error.strerror}; name a folder that can be written") from error
