"""What the benchmarks' commands have in common: options, and a folder that goes when they end."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.removal import remove_tree


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all commands know."""
    parser.add_argument(
        "--cgroup",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="count the CPU time of this cgroup instead of the whole machine's; may be given more than once",
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where to work (default: the temporary folder); not on an overlay"
    )


@contextmanager
def temporary_folder(parent: Path | None) -> Iterator[Path]:
    """A folder for everything that a benchmark makes."""
    folder = Path(tempfile.mkdtemp(prefix="batchwright-benchmark-", dir=parent)).resolve()
    try:
        yield folder
    finally:
        remove_tree(folder)
