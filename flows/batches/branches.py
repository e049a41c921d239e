"""Which names a branch can have: git's rule (git help check-ref-format), and no dash in front."""

from __future__ import annotations

import re

_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


def fault_of_branch(name: str) -> str:
    """What is wrong with a branch's name (without `refs/heads/`); "" if git takes it."""
    if not name or name == "@" or name == "HEAD":
        return f"{name!r} is no name for a branch"
    if _BAD.search(name) or name.startswith(("/", "-")) or name.endswith(("/", ".")):
        return f"the branch name {name!r} has characters that git does not take"
    if any(part.startswith(".") or part.endswith(".lock") for part in name.split("/")):
        return f"the branch name {name!r} has a part that begins with a dot or ends with .lock"
    return "" if len(name.encode("utf-8", "surrogateescape")) <= 240 else "the branch name is longer than 240 bytes"
