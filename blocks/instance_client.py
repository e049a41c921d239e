"""HTTP with a Sourcegraph instance: requests with a token, patience, and errors by who has to act. No Prefect."""

from __future__ import annotations

import atexit
import gzip
import json
import logging
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from blocks.instance_errors import (
    InstanceForbidden,
    InstanceMissing,
    InstanceRefused,
    InstanceTrouble,
    InstanceUnavailable,
    InstanceWaitStopped,
)

log = logging.getLogger(__name__)

USER_AGENT = "batchwright"
COMPRESSED_BYTES = 2048
"""From this size on, request bodies go compressed, as src-cli sends them."""

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 15.0
_TEMPORARY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_SHOWN_CHARACTERS = 300
_PERMISSION = re.compile(
    r"\bnot authenticated|must be authenticated|permission|\b(?:not |un)authorized|site admin", re.IGNORECASE
)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Access:
    """Where an instance is and how to get in. Compared and kept by these values."""

    url: str
    """Without a slash at its end."""
    token: SecretStr | None
    verify: bool = True
    ca_bundle: str = ""
    timeout_seconds: float = 60.0
    patience_seconds: float = 60.0
    """How long requests are repeated after temporary errors."""


class Connection:
    """Requests to one instance, from any thread. ``cancel`` set: waiting between tries ends."""

    def __init__(self, access: Access, cancel: Event | None = None) -> None:
        self.access = access
        self._cancel = cancel or Event()

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data that a GraphQL request gives. Raises InstanceTrouble; also for its first error, with all of them."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        answer = self.patiently("GraphQL", lambda: self._post("/.api/graphql", body))
        if errors := answer.get("errors"):
            raise self._graphql_error(errors)
        data = answer.get("data")
        if not isinstance(data, dict):
            raise self.refused("GraphQL", "the answer has no data")
        return data

    def patiently(self, what: str, ask: Callable[[], _Result]) -> _Result:
        """Do ``ask`` again, after longer and longer waits, while it raises InstanceUnavailable and patience lasts.

        What the instance says in Retry-After is obeyed; if that is beyond our patience, the error is raised at once.
        """
        deadline = time.monotonic() + self.access.patience_seconds
        longest = _FIRST_WAIT_SECONDS
        while True:
            try:
                return ask()
            except InstanceUnavailable as error:
                wait = max(error.retry_after_seconds, random.uniform(0.5, 1) * longest)
                if time.monotonic() + wait > deadline:
                    raise
                log.info("%s; asking again in %.1f s (%s)", error, wait, what)
            if self._cancel.wait(wait):
                raise InstanceWaitStopped(self.access.url)
            longest = min(2 * longest, _LONGEST_WAIT_SECONDS)

    @contextmanager
    def stream(self, path: str, parameters: Mapping[str, str], accept: str) -> Iterator[Iterator[bytes]]:
        """The pieces of an answer as they come in. Raises InstanceTrouble; ask it ``patiently``."""
        headers = {"Accept": accept}
        with (
            self._translated(path),
            self._client().stream("GET", path, params=parameters, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise self._error_of(answer, path)
            yield answer.iter_bytes()

    def refused(self, where: str, what: str) -> InstanceRefused:
        """An error about something that the instance said."""
        return InstanceRefused(f"{self.access.url} ({where})", what)

    def unavailable(self, where: str, what: str) -> InstanceUnavailable:
        """An error about something that may be better next time."""
        return InstanceUnavailable(f"{self.access.url} ({where})", what)

    def _post(self, path: str, body: bytes) -> dict[str, Any]:
        answer = self._send(path, body, compressed=len(body) >= COMPRESSED_BYTES)
        if answer.status_code == 415:  # a proxy, or a stand-in, that cannot inflate
            answer = self._send(path, body, compressed=False)
        if answer.status_code != 200:
            raise self._error_of(answer, path)
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self.refused(path, f"the answer is no JSON object; is {self.access.url} a Sourcegraph instance?")
        return content

    def _send(self, path: str, body: bytes, *, compressed: bool) -> httpx.Response:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if compressed:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=6, mtime=0)
        with self._translated(path):
            return self._client().post(path, content=body, headers=headers)

    def _client(self) -> httpx.Client:
        try:
            return _connect(self.access)
        except (OSError, ssl.SSLError) as error:
            raise self.refused("TLS", f"the CA bundle {self.access.ca_bundle!r} cannot be read: {error}") from error

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        where = f"{self.access.url} ({path})"
        try:
            yield
        except httpx.ConnectError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                what = "its certificate is not trusted; set ca_bundle to the CA's certificate"
                raise InstanceRefused(where, what) from error
            raise InstanceUnavailable(where, f"it cannot be reached ({error})") from error
        except httpx.TimeoutException as error:
            what = f"no answer within {self.access.timeout_seconds:g} s"
            raise InstanceUnavailable(where, what) from error
        except httpx.UnsupportedProtocol as error:
            raise InstanceRefused(where, "its address must begin with https:// or http://") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise InstanceUnavailable(where, f"the connection broke ({error or type(error).__name__})") from error

    def _error_of(self, answer: httpx.Response, path: str) -> InstanceTrouble:
        where = f"{self.access.url} ({path})"
        said = _shown(answer.text)
        what = f"status {answer.status_code}" + (f": {said}" if said else "")
        if answer.status_code == 401:
            return InstanceForbidden(where, f"it does not know the access token; make a new one ({what})")
        if answer.status_code == 403:
            return InstanceForbidden(where, f"the token's user may not do this ({what})")
        if answer.status_code == 404:
            return InstanceMissing(where, f"not found; is {self.access.url} the instance's address? ({what})")
        if answer.status_code in _TEMPORARY_STATUSES:
            return InstanceUnavailable(where, what, retry_after(answer.headers.get("Retry-After")))
        if answer.is_redirect:
            return InstanceRefused(where, f"it redirects to {answer.headers.get('Location')!r}; use that address")
        return InstanceRefused(where, what)

    def _graphql_error(self, errors: Any) -> InstanceTrouble:
        listed = errors if isinstance(errors, list) else [errors]
        messages = [str(each.get("message") if isinstance(each, dict) else each) for each in listed]
        said = "; ".join(map(_shown, messages))
        where = f"{self.access.url} (GraphQL)"
        if "not found" in said.lower():  # also what a user may not see
            return InstanceMissing(where, said)
        if _PERMISSION.search(said):
            return InstanceForbidden(where, said)
        return InstanceRefused(where, said)


def retry_after(value: str | None) -> float:
    """The seconds that a Retry-After header asks for (a number, or a date); 0 for none and for nonsense."""
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def _shown(text: str) -> str:
    """What an answer says, in one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."


# Kept by settings, not in a block: Prefect copies, compares and pickles blocks, and a client bears none of these.
@cache
def _connect(access: Access) -> httpx.Client:
    """A client for all threads of this process. It follows no redirect: the token is for this address only."""
    verify: bool | ssl.SSLContext = access.verify
    if access.verify and access.ca_bundle:
        verify = ssl.create_default_context(cafile=str(Path(access.ca_bundle).expanduser()))
    headers = {"User-Agent": USER_AGENT, "X-Requested-With": USER_AGENT}
    if access.token is not None:
        headers["Authorization"] = f"token {access.token.get_secret_value()}"
    timeout = httpx.Timeout(access.timeout_seconds, connect=min(10.0, access.timeout_seconds))
    client = httpx.Client(base_url=access.url, headers=headers, timeout=timeout, verify=verify)
    atexit.register(client.close)
    return client
