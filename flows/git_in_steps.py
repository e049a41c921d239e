"""What git in a step's container knows of the steps before it.

Upstream runs ``git add --all`` in the repository that the steps see, after every step: a later one that asks git
finds what the earlier ones made as tracked and staged. Here the host never touches that repository. A step that may use
git has it done in its own container instead, before its script; the others need not wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .batches.steps import RenderedStep
from .layers import Entry
from .staging import SCRIPT_TARGET

_GIT = re.compile(r"\bgit\b|pre-commit|lint-staged", re.IGNORECASE)
# An earlier step may have left settings of the repository that run programs: they see nothing of this step's secrets.
_STAGE_AND_RUN = """\
command -v git >/dev/null 2>&1 &&
env -i PATH="$PATH" git -c safe.directory=* -c core.fsmonitor=false -c core.hooksPath=/dev/null \\
    -C /work add --all >/dev/null 2>&1 </dev/null
exec "$0" "$1"
"""


# What git only reads: all else of a repository may name programs, which git add then runs (filters, fsmonitor, hooks).
_DATA = re.compile(
    rb"\.git/(?:index|HEAD|ORIG_HEAD|FETCH_HEAD|COMMIT_EDITMSG|packed-refs|(?:objects|refs|logs)(?:/.*)?)", re.DOTALL
)


def command_of(step: RenderedStep, shell: str, changed: Mapping[bytes, Entry]) -> tuple[str, ...]:
    """What a step's container runs. ``changed``: what the earlier steps left, by path.

    A step with a secret stages nothing where they left settings of git: its first process, whose environment every
    other one can read, has the secret.
    """
    if changed and _may_use_git(step) and not (step.secret_names and _may_run_programs(changed)):
        return shell, "-c", _STAGE_AND_RUN, shell, SCRIPT_TARGET
    return shell, SCRIPT_TARGET


def _may_run_programs(changed: Mapping[bytes, Entry]) -> bool:
    """Whether ``git add`` may run what somebody put into the repository, or into one that is nested in it."""
    return any(
        b".git" in path.split(b"/") and not (_DATA.fullmatch(path) or (path == b".git" and entry.kind == "folder"))
        for path, entry in changed.items()
    )


def _may_use_git(step: RenderedStep) -> bool:
    """Whether what the step runs names git, or a tool that asks it; what a mount holds may be any program."""
    return bool(step.mounts) or any(_GIT.search(text) for text in (step.script, *step.files.values()))
