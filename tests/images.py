"""Images for tests, made once per engine and kept by tag: the builders of infra/images.py and odd variants."""

from __future__ import annotations

import os
import tarfile

import docker

from infra.images import (
    busybox_tree,
    ensure_busybox,
    ensure_host_image,
    file_entry,
    folder_entry,
    import_image,
)

__all__ = ["ensure_busybox", "ensure_host_image", "ensure_variant"]

_CHANGES: dict[str, list[str]] = {
    "few-tools": ["ENV PATH=/bin"],
    "entrypoint": ["ENV PATH=/bin", 'ENTRYPOINT ["/bin/false"]', 'CMD ["--never"]'],
    "user": ["ENV PATH=/bin", "USER 1000:1000"],
    "workdir": ["ENV PATH=/bin", "WORKDIR /no/such/place"],
    "healthcheck": ["ENV PATH=/bin", "HEALTHCHECK --interval=1s CMD touch /work/healthcheck"],
    "no-shell": ["ENV PATH=/bin"],
    "closed": ["ENV PATH=/bin", "USER 1234:99"],
}


def ensure_variant(client: docker.APIClient, name: str) -> str:
    """Make an odd image if the engine has none; returns its tag.

    few-tools (no tee, no cp), entrypoint (one that fails), user (1000), workdir (one that does not exist),
    healthcheck, no-shell, closed (nothing can be written, /tmp neither).
    """
    tag = f"batchwright/test-{name}:1"
    if not client.images(tag):
        import_image(client, tag, _tree(name), _CHANGES[name])
    return tag


def _tree(name: str):  # type: ignore[no-untyped-def]
    if name == "no-shell":
        busybox = "/bin/busybox"
        return [(folder_entry("bin"), b""), (file_entry("bin/app", os.stat(busybox).st_size, 0o755), busybox)]
    without = {"tee", "cp", "mktemp", "chmod", "cat"} if name == "few-tools" else set()
    tree = busybox_tree(without=without)
    return [(_closed(info), content) for info, content in tree] if name == "closed" else tree


def _closed(info: tarfile.TarInfo) -> tarfile.TarInfo:
    if info.isdir():
        info.mode = 0o555
    return info
