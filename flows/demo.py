"""What the batch spec that the dashboard's form begins with needs to run: its repositories and its image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .batches.errors import TemporaryError

_ROOT = Path(__file__).parent.parent
INFRA = _ROOT / "infra"
"""Of the checkout, or what a wheel has of it."""

_SECONDS = 120


class DemoIncomplete(TemporaryError):
    """Something of the demo could not be made. Nothing but the demo needs it."""


def spec() -> str:
    """The demo's batch spec."""
    of_wheel = INFRA / "demo.yaml"
    file = of_wheel if of_wheel.exists() else _ROOT / "tests" / "specs" / "demo.yaml"
    return file.read_text(encoding="utf-8")


def repositories(home: Path) -> Path:
    """Where the demo's repositories are."""
    return home / "demo" / "repositories"


def prepare(home: Path) -> None:
    """Make the demo's repositories and its image, where they are missing. Raises DemoIncomplete."""
    _run("demo_repositories.py", str(repositories(home)))
    _run("images.py")


def _run(script: str, *arguments: str) -> None:
    command = (sys.executable, str(INFRA / script), *arguments)
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=_SECONDS)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["it says nothing"]
        raise DemoIncomplete(f"{script}: {said[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise DemoIncomplete(f"{script} takes longer than {_SECONDS} s") from error
