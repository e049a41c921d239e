"""Who sends webhooks, and how it shows: signatures, the event's name, what makes a delivery the same one again.

The name of the event is in a header that no signature covers: it chooses a rule, and is believed no further.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Headers = Mapping[str, str]
"""By name in lower case."""

TOLERANCE_SECONDS = 300
"""How old a signed time may be."""

_STANDARD_PREFIX = "whsec_"


@dataclass(frozen=True)
class Sender:
    """One kind of sender."""

    is_genuine: Callable[[Headers, bytes, Iterable[bytes]], bool]
    """Whether one of the secrets signed the body. Takes the same time for every wrong signature."""
    event_header: str
    identity: Callable[[str, Headers, Mapping[str, Any], bytes], str]
    """What a repeated delivery has in common with the first: from event, headers, payload, body."""


def _sourcegraph_signed(headers: Headers, body: bytes, secrets: Iterable[bytes]) -> bool:
    """Lower-case hex of HMAC-SHA256 over the body, nothing before it."""
    return _any_signs(headers.get("x-sourcegraph-webhook-signature", ""), body, secrets)


def _github_signed(headers: Headers, body: bytes, secrets: Iterable[bytes]) -> bool:
    """`sha256=` and hex. https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    scheme, _, signature = headers.get("x-hub-signature-256", "").partition("=")
    return _any_signs(signature if scheme == "sha256" else "", body, secrets)


def _gitlab_signed(headers: Headers, body: bytes, secrets: Iterable[bytes]) -> bool:
    """A signature in the form of Standard Webhooks where there is one; else GitLab's plain secret token.

    https://docs.gitlab.com/user/project/integrations/webhooks/
    """
    if "webhook-signature" in headers:
        return _standard_signed(headers, body, secrets)
    token = headers.get("x-gitlab-token", "").encode()
    # Hashed first: comparing would tell the length of the secret.
    given = hashlib.sha256(token).digest()
    found = [hmac.compare_digest(given, hashlib.sha256(secret).digest()) for secret in secrets]
    return bool(token) and any(found)


def _standard_signed(headers: Headers, body: bytes, secrets: Iterable[bytes]) -> bool:
    """`v1,` and base64 of HMAC-SHA256 over id, time and body, of a time that is now; several, with spaces between."""
    id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    recent = at.isascii() and at.isdecimal() and len(at) < 16 and abs(time.time() - int(at)) <= TOLERANCE_SECONDS
    signed = f"{id}.{at}.".encode() + body
    signatures = [given.removeprefix("v1,").encode() for given in headers["webhook-signature"].split(" ")[:10]]
    found = [
        hmac.compare_digest(base64.b64encode(hmac.digest(_standard_key(secret), signed, "sha256")), given)
        for secret in secrets
        for given in signatures
    ]
    return bool(id) and recent and any(found)


def _standard_key(secret: bytes) -> bytes:
    text = secret.decode("utf-8", "replace")
    if not text.startswith(_STANDARD_PREFIX):
        return secret
    try:
        return base64.b64decode(text.removeprefix(_STANDARD_PREFIX), validate=True)
    except binascii.Error:
        return secret


def _any_signs(signature: str, body: bytes, secrets: Iterable[bytes]) -> bool:
    given = signature.encode()
    found = [
        hmac.compare_digest(hmac.new(secret, body, hashlib.sha256).hexdigest().encode(), given) for secret in secrets
    ]
    return any(found)


def _sourcegraph_identity(event: str, _headers: Headers, payload: Mapping[str, Any], body: bytes) -> str:
    """Event, id and time: there is no delivery id."""
    at = payload.get("last_applied_at") if event == "batch_change:apply" else None
    at = at or payload.get("updated_at") or payload.get("closed_at")
    if not (isinstance(payload.get("id"), str | int) and isinstance(at, str)):
        return _digest(event, body.hex())
    return _digest(event, str(payload["id"]), at)


def _github_identity(event: str, headers: Headers, _payload: Mapping[str, Any], body: bytes) -> str:
    return _digest(event, headers.get("x-github-delivery", ""), body.hex())


def _gitlab_identity(event: str, headers: Headers, _payload: Mapping[str, Any], body: bytes) -> str:
    """GitLab's own key for this in newer versions; else the event's id, which events of one cause may share."""
    id = headers.get("webhook-id") or headers.get("idempotency-key") or headers.get("x-gitlab-event-uuid", "")
    return _digest(event, id, body.hex())


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:40]


SENDERS: Mapping[str, Sender] = {
    "sourcegraph": Sender(_sourcegraph_signed, "x-sourcegraph-webhook-event-type", _sourcegraph_identity),
    "github": Sender(_github_signed, "x-github-event", _github_identity),
    "gitlab": Sender(_gitlab_signed, "x-gitlab-event", _gitlab_identity),
}
