"""The rules of a batch spec beyond its schema: globs, what mounts allow, steps without a changesetTemplate.

Upstream: the end of lib/batches/batch_spec.go, and lib/batches/overridable.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from .documents import Document, Json, Path
from .errors import Fault
from .glob import GlobError, compile_glob
from .spec import BatchSpec, Step

# Upstream passes mounts to Docker as CSV.
_INVALID_IN_MOUNTS = frozenset(',"\n\r\0')


def published_faults(document: Document) -> Iterator[Fault]:
    """What is wrong with a list of `published` rules; said together with the findings of the schema."""
    template = document.data.get("changesetTemplate") if isinstance(document.data, dict) else None
    rules = template.get("published") if isinstance(template, dict) else None
    for index, rule in enumerate(rules if isinstance(rules, list) else []):
        if isinstance(rule, dict) and (problem := _rule_problem(rule, index)):
            yield _fault(document, ("changesetTemplate", "published", str(index)), problem)


def spec_faults(spec: BatchSpec, document: Document) -> Iterator[Fault]:
    """What the schema allows and cannot run."""
    if spec.steps and spec.changeset_template is None:
        message = "batch spec includes steps but no changesetTemplate"
        yield Fault("", message, document.line_of(("steps",)))
    for index, step in enumerate(spec.steps):
        for path, problem in (*_mount_problems(step, index), *_file_problems(step, index)):
            yield _fault(document, path, f"step {index + 1} {problem}")


def _fault(document: Document, path: Path, message: str) -> Fault:
    return Fault(".".join(path), message, document.line_of(path))


def _rule_problem(rule: dict[str, Json], index: int) -> str | None:
    if len(rule) != 1:
        return f"unexpected number of elements in the array at entry {index}: {len(rule)} (must be 1)"
    pattern, _, _ = next(iter(rule)).partition("@")
    try:
        compile_glob(pattern)
    except GlobError as error:
        return f"building rule for array entry {index}: {error}"
    return None


def _mount_problems(step: Step, index: int) -> Iterator[tuple[Path, str]]:
    for position, mount in enumerate(step.mounts):
        path: Path = ("steps", str(index), "mount", str(position))
        if _INVALID_IN_MOUNTS & set(mount.path):
            yield (*path, "path"), "mount path contains invalid characters"
        if problem := _target_problem(mount.mountpoint):
            yield (*path, "mountpoint"), f"mount mountpoint {problem}"


def _file_problems(step: Step, index: int) -> Iterator[tuple[Path, str]]:
    for target in step.files:
        if problem := _target_problem(target):
            yield ("steps", str(index), "files", target), f"files target path {problem}"


def _target_problem(target: str) -> str | None:
    """Why nothing can be put there in a container: upstream leaves all but the characters to Docker."""
    if _INVALID_IN_MOUNTS & set(target):
        return "contains invalid characters"
    if not target.startswith("/"):
        return f"{target!r} is not absolute; begin it with /"
    if ".." in target.split("/"):
        return f"{target!r} contains '..'; write the path without it"
    if posixpath.normpath(target).strip("/") == "":
        return f"{target!r} is the root of the container; name a path below it"
    return None
