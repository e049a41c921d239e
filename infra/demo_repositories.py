"""Make the demo's git repositories in a folder: small, realistic, and the same commits every time.

Usage: demo_repositories.py FOLDER. A repository that is there already is left alone.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Files = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Repository:
    """``name`` is its path below the folder. ``branches``: files that a branch adds to those of the default branch."""

    name: str
    files: Files
    default_branch: str = "main"
    branches: Mapping[str, Files] = field(default_factory=dict)
    executable: frozenset[str] = frozenset()


LOGO = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c6360085d050001580100df"
    "66671c0000000049454e44ae426082"
)
"""A PNG image of one pixel."""

SHOP = Repository(
    "github.com/acme/shop",
    {
        "README.md": "# Shop\n\nThe web shop. Packages come from https://mirror.acme.example.\n",
        "Dockerfile": "FROM debian:12\nRUN echo deb https://mirror.acme.example/debian bookworm main"
        " > /etc/apt/sources.list\nCOPY . /srv\n",
        "pip.conf": "[global]\nindex-url = https://mirror.acme.example/pypi/simple\n",
        "shop/__init__.py": "",
        "shop/cart.py": "def total(prices: list[int]) -> int:\n    return sum(prices)\n",
        "shop/legacy_cart.py": "import warnings\n\nwarnings.warn('use shop.cart')\n",
        "tests/test_cart.py": "from shop.cart import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n",
        ".gitignore": "__pycache__/\n*.pyc\n",
    },
)

BILLING = Repository(
    "github.com/acme/billing",
    {
        "README.md": "# Billing\n\nInvoices, once a month.\n",
        "go.mod": "module acme.example/billing\n\ngo 1.22\n",
        "main.go": 'package main\n\nimport "fmt"\n\nfunc main() {\n\tfmt.Println("billing")\n}\n',
        "ci/settings.env": "GOPROXY=https://mirror.acme.example/go\nGOFLAGS=-mod=mod\n",
    },
    default_branch="master",
    branches={"release/1.x": {"VERSION": "1.4.2\n"}},
)

INFRASTRUCTURE = Repository(
    "github.com/acme/infrastructure",
    {
        "README.md": "# Infrastructure\n\nMachines and networks.\n",
        "images/base/Dockerfile": "FROM debian:12\nARG MIRROR=https://mirror.acme.example\n",
        "images/worker/Dockerfile": "FROM base\nRUN curl -fsS https://mirror.acme.example/tools.tar | tar -x\n",
        "terraform/main.tf": 'resource "acme_mirror" "packages" {\n  address = "mirror.acme.example"\n}\n',
        "scripts/deploy.sh": "#!/bin/sh\nset -eu\nterraform apply\n",
    },
    default_branch="trunk",
    executable=frozenset({"scripts/deploy.sh"}),
)

PLATFORM = Repository(
    "github.com/acme/platform",
    {
        "README.md": "# Platform\n\nAll services and libraries in one repository.\n",
        ".editorconfig": "root = true\n\n[*]\nindent_size = 2\n",
        "services/api/package.json": '{\n  "name": "@acme/api",\n  "license": "UNLICENSED"\n}\n',
        "services/api/src/index.js": "module.exports = () => 'api'\n",
        "services/web/package.json": '{\n  "name": "@acme/web",\n  "license": "UNLICENSED"\n}\n',
        "services/web/src/index.js": "module.exports = () => 'web'\n",
        "services/web/.npmrc": "registry=https://mirror.acme.example/npm/\n",
        "libraries/ui/package.json": '{\n  "name": "@acme/ui",\n  "license": "UNLICENSED"\n}\n',
        "libraries/ui/src/button.js": "module.exports = (text) => `<button>${text}</button>`\n",
        "tools/release.sh": "#!/bin/sh\necho release\n",
    },
    executable=frozenset({"tools/release.sh"}),
)

HANDBOOK = Repository(
    "github.com/acme/handbook",
    {
        "README.md": "# Handbook\n\nHow we work.\n",
        "docs/getting-started.md": "# Getting started\n\nSet the mirror to https://mirror.acme.example.\n",
        "docs/meeting notes.md": "# Meeting notes\n\nOn Mondays.\n",
        "docs/über-uns.md": "# Über uns\n\nSeit 1999.\n",
        "docs/images/logo.png": LOGO,
    },
)

MOBILE = Repository(
    "github.com/acme/mobile",
    {
        "README.md": "# Mobile\r\n\r\nThe app.\r\n",
        "gradlew.bat": "@echo off\r\njava -jar gradle.jar %*\r\n",
        "app/build.gradle": "repositories {\n    google()\n}\n",
        "app/src/main/Main.kt": 'fun main() = println("mobile")',
    },
)

TOKENS = Repository(
    "github.com/acme/design-tokens",
    {
        "README.md": "# Design tokens\n\nColours and sizes for every product.\n",
        "tokens/colours.yaml": "primary: '#0055aa'\naccent: '#ffaa00'\n",
        "tokens/sizes.json": '{"small": 4, "large": 16}\n',
        ".gitignore": "dist/\n",
    },
)

ARCHIVE = Repository(
    "github.com/acme/archive",
    {
        ".batchignore": "",
        "README.md": "# Archive\n\nKept for reference; batch changes leave it alone.\n",
        "notes.txt": "Packages used to come from https://mirror.acme.example.\n",
    },
)

REPOSITORIES = (SHOP, BILLING, INFRASTRUCTURE, PLATFORM, HANDBOOK, MOBILE, TOKENS, ARCHIVE)


def make_repositories(folder: Path) -> tuple[Path, ...]:
    """Make those of ``REPOSITORIES`` that are missing in ``folder``; give the paths of the new ones."""
    return tuple(_make(repository, folder) for repository in REPOSITORIES if not (folder / repository.name).exists())


def _make(repository: Repository, folder: Path) -> Path:
    """Build beside the place, then rename: a killed run leaves no half repository."""
    place = folder / repository.name
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        _git(scratch, "init", "--quiet", f"--initial-branch={repository.default_branch}")
        _commit(scratch, repository.files, f"Start {place.name}", repository.executable)
        for branch, files in repository.branches.items():
            _git(scratch, "checkout", "--quiet", "-b", branch)
            _commit(scratch, files, f"Start {branch}", repository.executable)
            _git(scratch, "checkout", "--quiet", repository.default_branch)
        scratch.chmod(0o755)
        return scratch.rename(place)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _commit(tree: Path, files: Files, message: str, executable: frozenset[str]) -> None:
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if name in executable:
            path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    _git(tree, "add", "--all")
    _git(tree, "commit", "--quiet", "--message", message)


def _git(folder: Path, *arguments: str) -> None:
    """Run git apart from the user's settings, at a fixed time, so that the commits are the same everywhere."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TEMPLATE_DIR": "",
    }
    for role in ("AUTHOR", "COMMITTER"):
        environment[f"GIT_{role}_NAME"] = "Acme"
        environment[f"GIT_{role}_EMAIL"] = "dev@acme.example"
        environment[f"GIT_{role}_DATE"] = "2024-01-01T12:00:00+00:00"
    subprocess.run(("git", *arguments), cwd=folder, env=environment, check=True)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1]).absolute()
    made = make_repositories(folder)
    print(f"{'demo':<10} {len(made)} of {len(REPOSITORIES)} repositories made in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
