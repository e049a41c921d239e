"""Container images made from what is installed on this machine, for the demo and the tests: no registry is asked.

Run it to make the busybox image that the demo's steps use; ``--host`` makes the Debian-like one too.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import IO

import docker
from docker.errors import ImageNotFound

BUSYBOX = "batchwright/busybox:1"
HOST = "batchwright/debian:1"

HOST_PACKAGES = (
    *("bash", "dash", "coreutils", "sed", "grep", "findutils", "diffutils", "patch", "tar", "gzip", "mawk"),
    *("git", "python3", "jq"),
)
# Nothing a step of ours needs, and 60 MB: git's Perl commands, package tools, translations.
_LEFT_OUT_PACKAGES = frozenset(
    {"perl", "perl-base", "liberror-perl", "git-man", "debconf", "debconf-2.0", "media-types"}
)
_LEFT_OUT_PATHS = (
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/lintian/",
    "/usr/share/info/",
)
_MERGED = ("bin", "sbin", "lib", "lib64")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"


def ensure_busybox(client: docker.APIClient) -> str:
    """Make the image of a static busybox (its applets, no bash, no git) if the engine has none; returns its tag."""
    if not _has_image(client, BUSYBOX):
        import_image(client, BUSYBOX, busybox_tree(), ["ENV PATH=/bin"])
    return BUSYBOX


def ensure_host_image(client: docker.APIClient) -> str:
    """Make an image of this machine's bash, git, python3 and GNU tools if the engine has none; returns its tag.

    Needs a Debian-like machine with dpkg.
    """
    if not _has_image(client, HOST):
        import_image(client, HOST, _host_tree(), ["ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin"])
    return HOST


def import_image(
    client: docker.APIClient, tag: str, entries: Iterable[tuple[tarfile.TarInfo, bytes | str]], changes: Sequence[str]
) -> None:
    """Import a tree as an image of one layer. ``entries``: what, and its content (a string: a path of this machine)."""
    name, _, version = tag.rpartition(":")
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for info, content in entries:
                with _opened(content) as file:
                    archive.addfile(info, file if info.isreg() else None)
        spool.seek(0)
        answer = client.import_image_from_data(spool, changes=list(changes))
    # Named afterwards: Podman's engine would call every version of it latest.
    client.tag(json.loads(answer.splitlines()[-1])["status"], name, version)


def busybox_tree(*, without: Iterable[str] = ()) -> Iterator[tuple[tarfile.TarInfo, bytes | str]]:
    """The files of a small root: busybox under all names of its applets but those in ``without``."""
    busybox = _static_busybox()
    yield from _root_folders()
    yield file_entry("bin/busybox", os.stat(busybox).st_size, mode=0o755), busybox
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in sorted(set(applets) - {"busybox", *without}):
        yield link_entry(f"bin/{applet}", "busybox"), b""


def folder_entry(path: str, mode: int = 0o755) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def file_entry(path: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, mode
    return info


def link_entry(path: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info


def _root_folders() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for folder in ("bin", "etc", "root", "dev", "proc", "sys"):
        yield folder_entry(folder), b""
    yield folder_entry("tmp", 0o1777), b""
    yield file_entry("etc/passwd", len(_PASSWD)), _PASSWD
    yield file_entry("etc/group", len(_GROUP)), _GROUP


def _static_busybox() -> str:
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path):
            return path
    raise SystemExit("no busybox on this machine; on Debian: apt-get install busybox-static")


def _host_tree() -> Iterator[tuple[tarfile.TarInfo, bytes | str]]:
    paths = _installed_files(_closure(HOST_PACKAGES))
    for name in _MERGED:
        yield folder_entry(f"usr/{name}"), b""
        yield link_entry(name, f"usr/{name}"), b""
    yield from (entry for entry in _root_folders() if entry[0].name != "bin")
    seen = {*_MERGED, *(f"usr/{name}" for name in _MERGED), "etc", "root", "dev", "proc", "sys", "tmp"}
    for path in sorted(paths):
        inside = path.lstrip("/")
        if inside not in seen and os.path.lexists(path):
            entry = _entry_of(path, inside)
            if entry is not None:
                yield entry, path
    yield link_entry("usr/bin/awk", "mawk"), b""  # an alternative: no package lists it


def _entry_of(path: str, inside: str) -> tarfile.TarInfo | None:
    mode = os.lstat(path).st_mode & 0o777
    if os.path.islink(path):
        return link_entry(inside, os.readlink(path))
    if os.path.isdir(path):
        return folder_entry(inside, mode)
    if os.path.isfile(path):
        return file_entry(inside, os.stat(path).st_size, mode)
    return None


def _installed_files(packages: Iterable[str]) -> set[str]:
    listed = subprocess.run(["dpkg", "-L", *packages], check=True, capture_output=True, text=True).stdout
    paths = {_merged(line) for line in listed.splitlines() if line.startswith("/") and line != "/."}
    return {path for path in paths if not path.startswith(_LEFT_OUT_PATHS)}


def _merged(path: str) -> str:
    """The path with /bin, /lib ... as the folders below /usr that they are links to."""
    first, _, rest = path.lstrip("/").partition("/")
    return f"/usr/{first}/{rest}".rstrip("/") if first in _MERGED else path


def _closure(packages: Iterable[str]) -> list[str]:
    """The packages and all that they depend on, as far as installed."""
    depends = _dependencies()
    pending, chosen = list(packages), set[str]()
    while pending:
        package = pending.pop()
        if package in depends and package not in chosen and package not in _LEFT_OUT_PACKAGES:
            chosen.add(package)
            pending.extend(depends[package])
    return sorted(chosen)


def _dependencies() -> Mapping[str, list[str]]:
    query = ["dpkg-query", "-W", "-f", "${Package}\t${db:Status-Abbrev}\t${Pre-Depends}, ${Depends}\n"]
    lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [line.split("\t") for line in lines]
    return {
        name: [word for word in re.split(r"[,|]\s*|\s*\([^)]*\)|:any|\s+", depends) if word]
        for name, status, depends in rows
        if status.startswith("ii")
    }


def _opened(content: bytes | str) -> IO[bytes]:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    return open(content, "rb") if os.path.isfile(content) else io.BytesIO()


def _has_image(client: docker.APIClient, tag: str) -> bool:
    try:
        client.inspect_image(tag)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", action="store_true", help="make the Debian-like image too")
    arguments = parser.parse_args()
    with closing(docker.from_env().api) as client:
        print(ensure_busybox(client))
        if arguments.host:
            print(ensure_host_image(client))


if __name__ == "__main__":
    main()
