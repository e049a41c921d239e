"""What is measured: repositories of a certain size, their archives, the workspaces in them, the script of each step."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from tests.gitrepos import run_git

Diffs = Mapping[tuple[str, str], Sequence[bytes]]
"""The cumulative diff after each step, by repository and path of the workspace."""

_FILES_IN_FOLDER = 100
_LINES = 20


@dataclass(frozen=True)
class Case:
    """``workspaces`` are repositories of their own, or (``shared``) the projects of one repository."""

    files: int
    steps: int
    workspaces: int = 1
    at_once: int = 1
    shared: bool = False

    def __str__(self) -> str:
        if self.workspaces == 1:
            return f"{self.files:,} files, {self.steps} {'step' if self.steps == 1 else 'steps'}"
        where = f"one repository of {self.files:,} files" if self.shared else f"{self.files:,} files each"
        return f"{self.workspaces} workspaces, {where}, {self.steps} steps, {self.at_once} at a time"

    @property
    def repositories(self) -> list[str]:
        """The names of the repositories."""
        if self.shared:
            return [f"shared-{self.files}-{self.workspaces}"]
        return [f"files-{self.files}-{number:03}" for number in range(self.workspaces)]

    @property
    def places(self) -> list[tuple[str, str]]:
        """The workspaces: repository and path."""
        if self.shared:
            return [(self.repositories[0], _project(number)) for number in range(self.workspaces)]
        return [(name, "") for name in self.repositories]

    def spec(self, image: str, instead: str | None = None) -> str:
        """The batch spec. ``instead``: the script of every step, if it is not the usual one."""
        names = "".join(f"  - repository: {name}\n" for name in self.repositories)
        steps = "".join(
            f"  - container: {image}\n    run: |\n{indent(instead or script(step), ' ' * 6).rstrip()}\n"
            for step in range(self.steps)
        )
        projects = "workspaces:\n  - {rootAtLocationOf: project.json, in: '*'}\n" if self.shared else ""
        branch = "benchmark/${{ steps.path }}" if self.shared else "benchmark"
        return (
            f"version: 2\nname: benchmark\non:\n{names}{projects}steps:\n{steps}"
            f"changesetTemplate: {{title: T, body: B, branch: '{branch}', commit: {{message: M}}}}\n"
        )


def script(step: int) -> str:
    """What step number ``step`` (from 0) does: one file added to, one edited, one new, one removed by the first."""
    lines = [
        f"echo 'step {step} was here' >> README.md",
        f"sed -i 's/line {step} /line {step} edited /' source/0/0.txt",
        "mkdir -p new",
        f"echo 'by step {step}' > new/{step}.txt",
        *(["rm source/0/1.txt"] if step == 0 else []),
        f"echo 'step {step} is done'",
    ]
    return "\n".join(lines) + "\n"


def make_repositories(case: Case, folder: Path) -> None:
    """Make the bare repositories of a case in ``folder``/repositories and their archives, unless they are there."""
    for name in case.repositories:
        make_repository(folder, name, paths(case.files, case.workspaces if case.shared else 0))


def make_repository(folder: Path, name: str, files: Iterator[str]) -> None:
    """A bare repository of text files, and its archive as a code host would send it."""
    git_dir, archive = folder / "repositories" / name, archive_of(folder, name)
    if archive.exists():
        return
    git_dir.mkdir(parents=True)
    archive.parent.mkdir(exist_ok=True)
    run_git(git_dir, "init", "--quiet", "--bare", "--initial-branch=main")
    imported = b"".join(_import_stream(name, files))
    subprocess.run(["git", "fast-import", "--quiet"], cwd=git_dir, input=imported, check=True)
    run_git(git_dir, "archive", "--format=zip", f"--output={archive}", "main")


def archive_of(folder: Path, repository: str) -> Path:
    """Where a repository's archive is."""
    return folder / "archives" / f"{repository}.zip"


def paths(files: int, projects: int = 0) -> Iterator[str]:
    """The paths of ``files`` files, spread evenly over ``projects`` folders if there are any."""
    if not projects:
        yield "README.md"
        yield from (
            f"source/{number // _FILES_IN_FOLDER}/{number % _FILES_IN_FOLDER}.txt" for number in range(files - 1)
        )
        return
    for project in range(projects):
        yield f"{_project(project)}/project.json"
        yield from (f"{_project(project)}/{path}" for path in paths(files // projects - 1))


def _project(number: int) -> str:
    return f"projects/{number:03}"


def _import_stream(name: str, files: Iterator[str]) -> Iterator[bytes]:
    yield b"commit refs/heads/main\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 5\nBegin\n"
    for path in files:
        content = "".join(f"{name} {path} line {line} of some text\n" for line in range(_LINES)).encode()
        yield f"M 644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n"
