"""The two consoles: results go to standard output, everything said beside them to standard error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

PIPE_COLUMNS = 160
"""How wide tables are where no terminal says it."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else PIPE_COLUMNS)


output = _console(stderr=False)
errors = _console(stderr=True)


def print_json(content: Any) -> None:
    """Machine-readable output: one JSON document."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=True) + "\n")


def read_text(path: Path) -> str:
    """The text of a file, or of standard input for ``-``. Raises BadInput."""
    from .errors import BadInput

    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a batch spec file, or - for standard input") from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from error
