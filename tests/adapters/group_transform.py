"""group_transform: a diff split by group, and the rules that groups have to keep."""

from pathlib import Path
from typing import Any

from flows.batches.changesets import check_groups, groups_for
from flows.batches.diff import parse, split_by_group
from flows.batches.errors import ChangesetError
from flows.batches.spec import Group

_DIFFS = {
    "mod": "diff --git {0} {0}\nindex d00491f..0cfbf08 100644\n--- {0}\n+++ {0}\n@@ -1 +1 @@\n-1\n+2\n",
    "add": "diff --git {0} {0}\nnew file mode 100644\nindex 0000000..d00491f\n"
    "--- /dev/null\n+++ {0}\n@@ -0,0 +1 @@\n+1\n",
    "del": "diff --git {0} {0}\ndeleted file mode 100644\nindex d00491f..0000000\n"
    "--- {0}\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n",
}


def check(input: dict[str, Any], expect: dict[str, Any], vectors: Path) -> None:
    (asked,) = expect  # one question per vector
    groups = tuple(Group.model_validate(group) for group in input["groups"])
    if asked == "paths_by_branch":
        assert set(input) <= {"files", "diff", "default_branch", "groups"}
        assert _paths_by_branch(_diff(input), input["default_branch"], groups) == expect[asked]
    elif asked == "error":
        assert set(input) == {"repository", "groups", "template_branch"}
        assert _refusal(input, groups) == expect[asked]
    elif asked == "branches":
        assert set(input) == {"repository", "groups"}
        assert [group.branch for group in groups_for(groups, input["repository"])] == expect[asked]
    else:
        raise AssertionError(f"unknown expectation {asked}")


def _diff(input: dict[str, Any]) -> bytes:
    if "diff" in input:
        return bytes(input["diff"].encode("utf-8", "surrogateescape"))
    return "".join(_DIFFS[kind].format(path) for path, kind in input["files"]).encode()


def _paths_by_branch(diff: bytes, default_branch: str, groups: tuple[Group, ...]) -> dict[str, list[str]]:
    parts = split_by_group(diff, default_branch, groups)
    assert sum(map(len, parts.values())) == len(diff), "nothing is lost"
    return {branch: _paths(part) for branch, part in parts.items()}


def _paths(diff: bytes) -> list[str]:
    return list(dict.fromkeys(file.path for file in parse(diff)))


def _refusal(input: dict[str, Any], groups: tuple[Group, ...]) -> str | None:
    try:
        check_groups(input["repository"], input["template_branch"], groups)
    except ChangesetError as error:
        return str(error)
    return None
