"""Removes what dead processes left in an engine, and nothing else: containers first, then what they used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError

from blocks.docker_engine import ENGINE_ERRORS, Engine
from blocks.docker_labels import LIFE, OWNER, RUN, is_abandoned, is_our_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reaped:
    """The names of what was removed."""

    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    """Empty ones, of trials."""


def reap_abandoned(engine: Engine, over: Collection[str] = ()) -> Reaped:
    """Remove what belongs to processes that are certainly dead, or to one of the lives that are ``over``.

    Raises RuntimeUnavailable.
    """
    return _remove(engine, OWNER, lambda labels: labels.get(LIFE) in over or is_abandoned(labels))


def remove_run(engine: Engine, run: str) -> Reaped:
    """Remove everything of one run, whoever made it and whether it lives. Raises RuntimeUnavailable."""
    return _remove(engine, f"{RUN}={run}", lambda labels: OWNER in labels)


def _remove(engine: Engine, label: str, chosen: Callable[[Mapping[str, str]], bool]) -> Reaped:
    with engine.trouble("cannot list what is left over"):
        containers = engine.api.containers(all=True, filters={"label": [label]})
        volumes = engine.api.volumes(filters={"label": [label]}).get("Volumes") or []
        images = engine.api.images(filters={"label": [label]})
    containers = [one for one in containers if is_our_name(_name(one))]
    images = [one for one in images if set(one.get("RepoTags") or ()) <= {"<none>:<none>"}]
    reaped = Reaped(
        tuple(_name(one) for one in containers if chosen(one.get("Labels") or {}) and _removed_container(engine, one)),
        tuple(one["Name"] for one in volumes if chosen(one.get("Labels") or {}) and _removed_volume(engine, one)),
        tuple(one["Id"] for one in images if chosen(one.get("Labels") or {}) and _removed_image(engine, one)),
    )
    if reaped != Reaped():
        found = len(reaped.containers), len(reaped.volumes), len(reaped.images)
        log.info("removed %d containers, %d volumes and %d images left over", *found)
    return reaped


def _removed_container(engine: Engine, container: Mapping[str, Any]) -> bool:
    return _removed(_name(container), lambda: engine.remove_container(container["Id"]))


def _removed_volume(engine: Engine, volume: Mapping[str, Any]) -> bool:
    return _removed(volume["Name"], lambda: engine.remove_volume(volume["Name"]))


def _removed_image(engine: Engine, image: Mapping[str, Any]) -> bool:
    return _removed(image["Id"], lambda: engine.api.remove_image(image["Id"], force=True))


def _removed(name: str, remove: Callable[[], object]) -> bool:
    """Whether it was us who removed it: another reaper may be at work, and what is in use waits for the next one."""
    try:
        remove()
    except ENGINE_ERRORS as error:
        if not (isinstance(error, APIError) and error.status_code in (404, 409)):
            log.warning("%s is left over and could not be removed: %.500s", name, str(error))
        return False
    return True


def _name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [container["Id"]]
    return str(names[0]).lstrip("/")
