"""A fake code host in a process of its own: its address is the first line that it prints. It ends with its stdin."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from tests.code_hosts.core import Host, serve
from tests.code_hosts.gitea import Gitea
from tests.code_hosts.github import GitHub
from tests.code_hosts.gitlab import GitLab


def _host() -> tuple[Host, Path | None]:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("github", "gitlab", "gitea"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--user", default="ada")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--tls", type=Path)
    given = parser.parse_args()
    common = (given.root, os.environ["HOST_TOKEN"], given.user)
    if given.kind == "github":
        return GitHub(*common, check=given.check), given.tls
    return GitLab(*common) if given.kind == "gitlab" else Gitea(*common), given.tls


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=_end_with_stdin, daemon=True).start()
_served, _certificate = _host()
serve(_served, lambda address: print(address, flush=True), _certificate)
