"""What an HTTP answer of a code host means for us: limits, passing trouble, refusals. No Prefect."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from blocks.code_hosts import HostLimited, HostRefused, HostTrouble, HostUnavailable, NotThere, RequestExists

_LIMITED = re.compile(r"rate limit|abuse detection|too many requests|retry your request again later", re.IGNORECASE)
_EXISTS = re.compile(
    r"pull request already exists|another open merge request already exists|pull request already exists for these",
    re.IGNORECASE,
)
_LONGEST_TEXT = 500


def trouble(where: str, status: int, headers: Mapping[str, str], text: str) -> HostTrouble:
    """The error for an answer that is none of success. ``text`` is what the host says; it holds no secrets of ours.

    GitHub: primary limits are 403 or 429 with x-ratelimit-remaining 0, secondary ones 403 or 429 with or without
    retry-after (docs.github.com/rest, Rate limits). GitLab: 429 with Retry-After and RateLimit-Reset.
    """
    known = {name.lower(): value for name, value in headers.items()}
    said = " ".join(text.split())[:_LONGEST_TEXT]
    if status == 429 or (status == 403 and _is_limit(known, text)):
        return HostLimited(where, f"it wants fewer requests (HTTP {status}: {said})", _wait(known))
    if status >= 500 or status == 408:
        return HostUnavailable(where, f"HTTP {status}: {said}")
    if status in (409, 422) and _EXISTS.search(text):
        return RequestExists(where, said)
    if status == 404:
        return NotThere(where, f"not found, or not for this token ({said})")
    if status == 401:
        return HostRefused(where, f"the token is not accepted ({said}); it may have expired")
    if status == 403:
        return HostRefused(where, f"the token may not do this ({said})")
    return HostRefused(where, f"HTTP {status}: {said}")


def unreachable(where: str, error: Exception) -> HostTrouble:
    """The error for a request that got no answer. The text of the error may hold a proxy's password: not shown."""
    if "CERTIFICATE_VERIFY_FAILED" in repr(error):
        return HostRefused(where, "its certificate is not trusted; set ca_bundle")
    return HostUnavailable(where, f"no answer ({_innermost(error)})")


def number_of(where: str, id: str) -> int:
    """The number that a review request has within its repository. Raises NotThere: nothing else is one's id."""
    if not (id.isascii() and id.isdigit()):
        raise NotThere(where, f"there is no review request {id!r}: its id is a number")
    return int(id)


def no_fork(where: str, path: str, repository: str) -> HostRefused:
    """The error for a repository that is in the way of a fork."""
    return HostRefused(where, f"{path} is no fork of {repository}; rename it, or give another owner for the forks")


def not_understood(where: str, error: Exception) -> HostRefused:
    """The error for an answer that is none of this kind of host: a proxy's page, another program."""
    return HostRefused(where, f"its answer is not understood ({type(error).__name__}); check the address")


def _innermost(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return type(error).__name__


def _is_limit(headers: Mapping[str, str], text: str) -> bool:
    return "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or bool(_LIMITED.search(text))


def _wait(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait, by the host's own clock where it says the time."""
    if (after := headers.get("retry-after", "")).isdigit():
        return float(after)
    reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or ""
    spent = headers.get("x-ratelimit-remaining") or headers.get("ratelimit-remaining")
    if not reset.isdigit() or spent not in ("0", None):
        return None
    return max(0.0, float(reset) - _time_of(headers, now)) + 1.0


def _time_of(headers: Mapping[str, str], now: Callable[[], float]) -> float:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return now()
