"""From a reference to an image as it will run: found or pulled once, its shell tried once. Safe for many threads."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from threading import Event, Lock, Thread
from typing import Any, Literal, TypeVar

import requests
from docker.auth import resolve_repository_name
from docker.errors import APIError, InvalidRepository
from docker.utils import parse_repository_tag

from blocks.docker_engine import ENGINE_ERRORS, Engine, explanation, translated
from blocks.docker_labels import our_labels, our_name
from blocks.docker_policy import ContainerPolicy
from blocks.registry_credentials import RegistryCredentials
from blocks.runtime import Image, ImageRefused, ImageUnavailable, PullStopped, RuntimeTrouble, RuntimeUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

PullPolicy = Literal["missing", "always", "never"]

_SH, _BASH = "/bin/sh", "/bin/bash"
_HAS_BASH, _HAS_SH = 61, 62
_PROBE = f"[ -x {_BASH} ] && {_BASH} -c 'exit {_HAS_BASH}'; [ $? = {_HAS_BASH} ] && exit {_HAS_BASH}; exit {_HAS_SH}"
_PROBE_SECONDS = 120
_TICK_SECONDS = 0.1
"""How soon a cancel is noticed."""

# What an engine says is all there is: the status is 500 for a wrong password and 404 for a registry that is down.
_TEMPORARY = re.compile(
    r"toomanyrequests|too many requests|rate limit|connection refused|connection reset|no such host|i/o timeout"
    r"|tls handshake|timeout exceeded|deadline exceeded|server misbehaving|temporary failure|network is unreachable"
    r"|no route to host|unexpected (http )?status[^\n]*: 5\d\d|service unavailable|bad gateway|\beof\b|try again",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"[A-Za-z0-9\[][\w.:/@+\[\]-]*", re.ASCII)
"""No path of the engine's API, which a reference becomes a part of."""
_HIDDEN = re.compile(r"/work/.|/(?:proc|sys|\.batchwright)(?:/|$)|/etc/(?:hosts|hostname|resolv\.conf)$")
"""Where a volume of the image would stand in place of the workspace's files, of the system's, or of ours."""
_CANNOT_EXECUTE = re.compile(
    r"no such file|not found|permission denied|exec format error|not a directory", re.IGNORECASE
)
_PERMANENT = (
    (
        r"no basic auth|unauthorized|authentication required|authorization failed|denied|forbidden",
        "check the name and the registry credentials",
    ),
    (r"manifest unknown|name unknown|not found|does not exist", "check the name and the tag"),
    (r"invalid reference|invalid repository|repository name must", "it is not a well-formed image reference"),
    (r"no matching manifest|does not match the specified platform", "it is not made for this platform"),
    (r"x509|server gave http response", "the engine does not trust the registry"),
)


class Images:
    """The images of one run: a reference means the same image from its first use to the last."""

    def __init__(
        self,
        engine: Engine,
        policy: ContainerPolicy,
        pull_policy: PullPolicy,
        platform: str | None,
        credentials: RegistryCredentials | None,
    ) -> None:
        self._engine, self._policy = engine, policy
        self._pull_policy, self._platform, self._credentials = pull_policy, platform, credentials
        self._lock = Lock()
        self._gates: dict[str, Lock] = {}
        self._images: dict[str, Image | ImageRefused] = {}
        self._pinned: dict[str, str] = {}
        """By its digest what a reference meant when it was first asked for."""
        self._shells: dict[str, str | None] = {}

    def resolve(self, reference: str, cancel: Event) -> Image:
        """The image that ``reference`` means. Raises ImageRefused, ImageUnavailable, RuntimeUnavailable.

        A pull, or a look at the image, that is under way when ``cancel`` is set raises PullStopped.
        """
        if not _REFERENCE.fullmatch(reference) or re.search(r"//|(?:^|/)\.\.?(?:/|$)", reference):
            raise ImageRefused(f"image {reference!a}: it is not a well-formed image reference")
        with self._gate(reference):
            outcome = self._images.get(reference)
            if outcome is None:
                try:
                    outcome = self._find(reference, cancel)
                except ImageRefused as refusal:
                    outcome = refusal
                self._images[reference] = outcome
        if isinstance(outcome, ImageRefused):
            raise ImageRefused(str(outcome))
        return outcome

    def forget(self, image: Image) -> None:
        """The engine lost it: the next ``resolve`` pulls it again, by its digest where a registry gave it one."""
        with self._gate(image.reference):
            self._images.pop(image.reference, None)

    def _gate(self, key: str) -> Lock:
        with self._lock:
            return self._gates.setdefault(key, Lock())

    def _find(self, reference: str, cancel: Event) -> Image:
        wanted = self._pinned.get(reference, reference)
        found = None if self._pull_policy == "always" else self._inspect(wanted)
        if found is None:
            if self._pull_policy == "never":
                raise ImageRefused(f"image {reference}: the engine does not have it, and the pull policy is never")
            _wait_unless(cancel, lambda: self._pull(wanted), f"image {wanted}: not pulled to the end")
            found = self._inspect(wanted)
        if found is None:
            raise ImageUnavailable(f"image {reference}: it was pulled, and is gone again")
        digest = _digest(reference, found)
        if found.get("RepoDigests"):
            self._pinned[reference] = f"{_repository(reference)}@{digest}"
        config = found.get("Config") or {}
        volumes = tuple(config.get("Volumes") or ())
        if hiding := [path for path in volumes if _HIDDEN.match(os.path.normpath(path))]:
            raise ImageRefused(
                f"image {reference} has a volume at {hiding[0]}, which hides what is there from the step"
            )
        user = config.get("User") or ""
        return Image(reference, found["Id"], digest, self._shell(reference, found["Id"], cancel), user, volumes)

    def _inspect(self, reference: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._engine.api.inspect_image(reference)  # type: ignore[no-untyped-call]
            return found
        except ENGINE_ERRORS as error:
            if isinstance(error, APIError):
                if error.status_code == 404:
                    return None
                raise image_trouble(reference, explanation(error), error.status_code or 500) from error
            raise translated(error, f"image {reference}", self._engine.address) from error

    def _pull(self, reference: str) -> None:
        log.info("pulling image %s", reference)
        try:
            login = self._credentials.for_image(reference) if self._credentials else None
            progress = self._engine.api.pull(
                *_split(reference), stream=True, decode=True, auth_config=login, platform=self._platform
            )
            for line in progress:
                if problem := pull_problem(line):
                    raise image_trouble(reference, problem, 500)
        except ENGINE_ERRORS as error:
            if isinstance(error, APIError):
                raise image_trouble(reference, explanation(error), error.status_code or 500) from error
            if isinstance(error, InvalidRepository):
                raise ImageRefused(f"image {reference}: {error}; it is not a well-formed image reference") from error
            raise translated(error, f"image {reference}", self._engine.address) from error

    def _shell(self, reference: str, image_id: str, cancel: Event) -> str:
        with self._gate(f"shell of {image_id}"):
            if image_id not in self._shells:
                self._shells[image_id] = self._probe(reference, image_id, cancel)
            shell = self._shells[image_id]
        if shell is None:
            raise ImageRefused(
                f"image {reference} has no shell: neither {_SH} nor {_BASH} runs in it. Steps are shell scripts: use "
                "an image with a shell, made for this machine's architecture"
            )
        return shell

    def _probe(self, reference: str, image_id: str, cancel: Event) -> str | None:
        """Try the shells: usually one container tells of both."""
        answers = {_HAS_BASH: _BASH, _HAS_SH: _SH}
        return answers.get(self._try(reference, image_id, _SH, _PROBE, cancel)) or answers.get(
            self._try(reference, image_id, _BASH, f"exit {_HAS_BASH}", cancel)
        )

    def _try(self, reference: str, image_id: str, shell: str, script: str, cancel: Event) -> int:
        """The exit code of ``script``; 127 if the shell cannot be started. It may be any program, and never end."""
        name = our_name("shell")
        api = self._engine.api
        try:
            with self._engine.trouble("cannot look for a shell in the image"):
                api.create_container(
                    image_id,
                    entrypoint=[shell],
                    command=["-c", script],
                    user=self._policy.user,
                    labels=our_labels({"role": "probe"}, _PROBE_SECONDS + 600),
                    name=name,
                    host_config=self._policy.probe(limits_memory=self._engine.memory_ceiling is not None),
                    healthcheck={"Test": ["NONE"]},
                    network_disabled=True,
                )
            try:
                api.start(name)
            except APIError as error:
                if _CANNOT_EXECUTE.search(explanation(error)):
                    return 127
                raise translated(error, "cannot look for a shell in the image", self._engine.address) from error
            with self._engine.trouble("cannot look for a shell in the image"):
                stopped = f"image {reference}: not looked at to the end"
                try:
                    answer = _wait_unless(cancel, lambda: api.wait(name, timeout=_PROBE_SECONDS), stopped)
                except (requests.ReadTimeout, requests.ConnectionError):  # which one depends on how much was answered
                    if not api.inspect_container(name)["State"]["Running"]:
                        raise
                    problem = f"its {shell} does not end within {_PROBE_SECONDS} s, whatever it is told"
                    raise ImageRefused(f"image {reference}: {problem}; use an image with a shell") from None
            return int(answer["StatusCode"])
        finally:
            self._engine.remove_later(container=name)


def _wait_unless(cancel: Event, call: Callable[[], T], stopped: str) -> T:
    """What a call of the engine gives, as long as it takes. Raises PullStopped when ``cancel`` is set meanwhile.

    The call is then left behind: the engine gives up when our process ends.
    """
    outcome: Future[T] = Future()
    Thread(target=_settle, args=(outcome, call), name="docker-image", daemon=True).start()
    while not wait((outcome,), _TICK_SECONDS).done:
        if cancel.is_set():
            raise PullStopped(f"{stopped}, because the run was stopped")
    return outcome.result()


def _settle(outcome: Future[T], call: Callable[[], T]) -> None:
    try:
        outcome.set_result(call())
    except Exception as error:
        outcome.set_exception(error)


def pull_problem(line: Mapping[str, Any]) -> str:
    """What went wrong, if a line of a pull's progress says so. Engines are about to leave ``error`` out (API 1.48)."""
    detail = line.get("errorDetail") or {}
    return str(line.get("error") or detail.get("message") or "")


def image_trouble(reference: str, text: str, status: int) -> RuntimeTrouble:
    """What the engine's words about an image mean."""
    if re.search(r"no space left on device|disk quota exceeded", text, re.IGNORECASE):
        return RuntimeUnavailable(f"image {reference}: {text}; the engine's disk is full: free some space")
    if _TEMPORARY.search(text):
        return ImageUnavailable(f"image {reference} cannot be pulled now: {text}")
    for pattern, hint in _PERMANENT:
        if re.search(pattern, text, re.IGNORECASE):
            return ImageRefused(f"image {reference}: {text}; {hint}")
    kind = ImageRefused if 400 <= status < 500 and status != 429 else ImageUnavailable
    return kind(f"image {reference}: {text}")


def _digest(reference: str, found: Mapping[str, Any]) -> str:
    """The digest under which a registry has the image, else its id."""
    digests = [entry.rpartition("@") for entry in found.get("RepoDigests") or ()]
    wanted = _repository(reference)
    named = [digest for repository, _, digest in digests if _repository(repository) == wanted]
    return str((named or [digest for _, _, digest in digests] or [found["Id"]])[0])


def _repository(reference: str) -> str:
    """The reference without tag and digest, its registry spelled out."""
    name = _split(reference)[0]
    host, path = resolve_repository_name(name)
    return f"{host}/{path.removeprefix('library/')}"


def _split(reference: str) -> tuple[str, str | None]:
    name, tag = parse_repository_tag(reference)
    return str(name), tag and str(tag)
