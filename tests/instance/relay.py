"""Ids as GraphQL shows them: base64 of `Kind:<json>`, numbers as such, texts as JSON strings."""

from __future__ import annotations

import base64
import binascii
import json


def encode(kind: str, id: int | str) -> str:
    return base64.b64encode(f"{kind}:{json.dumps(id)}".encode()).decode()


def decode(kind: str, id: str) -> str:
    """What ``encode`` was given, as text; for kind "" together with its kind. "" for another kind and for nonsense."""
    try:
        found, _, value = base64.b64decode(id, validate=True).decode().partition(":")
        value = str(json.loads(value))
    except (binascii.Error, ValueError):
        return ""
    return f"{found}:{value}" if not kind else value if found == kind else ""
