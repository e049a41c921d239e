"""Whether an engine can mount overlays of our folders: tried, not guessed."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from blocks.docker_engine import Engine
from blocks.docker_labels import our_labels, our_name
from blocks.docker_workspaces import overlay_mount
from blocks.overlays import UPPER, mount_options, unmountable
from blocks.runtime import RuntimeTrouble
from blocks.workspace_targets import WORK

_LIFETIME_SECONDS = 600


def why_no_overlay(engine: Engine, folder: Path) -> str:
    """Why workspaces below ``folder`` cannot be overlays; empty if they can. Raises RuntimeUnavailable."""
    if os.geteuid() != 0:
        return "the worker does not run as root, which reading back an overlay needs"
    if problem := unmountable(folder):
        return problem
    if engine.is_rootless:
        return "the engine runs rootless"
    if engine.has_selinux:
        return "the engine separates containers by SELinux labels"
    place = Path(tempfile.mkdtemp(dir=folder, prefix=".probe-"))
    try:
        return _try_overlay(engine, place)
    finally:
        shutil.rmtree(place)


def _try_overlay(engine: Engine, place: Path) -> str:
    """Put a file into a folder of ours that only the overlay shows; nothing has to run for that."""
    base, layer = place / "base", place / "layer"
    for new in (base / "ours", layer / UPPER, layer / "work"):
        new.mkdir(parents=True)
    name = our_name("probe")
    labels = our_labels({"role": "probe"}, _LIFETIME_SECONDS)
    image = _empty_image(engine, labels)
    try:
        try:
            with engine.trouble("the engine cannot mount an overlay of our folders"):
                mount = overlay_mount(engine, name, labels, mount_options([base], layer))
                engine.api.create_container(
                    image, entrypoint=["/none"], name=name, labels=labels, host_config={"Mounts": [mount]}
                )
                engine.api.put_archive(name, f"{WORK}/ours", _one_file("theirs"))
        except RuntimeTrouble as trouble:
            return str(trouble)
        if not (layer / UPPER / "ours" / "theirs").exists():
            return "the engine sees other folders than we do at the same paths"
        return ""
    finally:
        engine.remove(name, name)
        with engine.trouble("cannot remove the probe's image"):
            engine.api.remove_image(image, force=True)


def _empty_image(engine: Engine, labels: Mapping[str, str]) -> str:
    changes = [f'LABEL {name}="{text}"' for name, text in labels.items()]
    with engine.trouble("cannot make an empty image"):
        answer = engine.api.import_image_from_data(bytes(2 * tarfile.BLOCKSIZE), changes=changes)
    return str(json.loads(answer.splitlines()[-1])["status"])


def _one_file(name: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return content.getvalue()
