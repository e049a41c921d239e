"""Secrets in text and streams: found in every form they usually take, replaced by `${{ secrets.NAME }}`.

Masks what people read (logs, streams, records, errors); refuses nothing. Asks nobody: names and values are given.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Protocol
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Values shorter than this are not masked: they would tear holes into every text ("2", "no")."""


class Sink(Protocol):
    """Where masked bytes go."""

    def write(self, data: bytes, /) -> object: ...


class Masker:
    """Replaces the values of ``secrets`` (name -> value) wherever they stand, the longest form first."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms: dict[bytes, str] = {}
        for name, value in secrets.items():
            for form in _forms(value):
                forms.setdefault(form, name)
        self._names = forms
        self._longest = max(map(len, forms), default=0)
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, ordered))) if forms else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def __repr__(self) -> str:
        return f"Masker({sorted(set(self._names.values()))})"

    @property
    def carry_bytes(self) -> int:
        """How many bytes at the end of a chunk may be the beginning of a secret."""
        return max(0, self._longest - 1)

    def mask(self, data: bytes) -> bytes:
        """The same bytes with every form of every secret replaced."""
        return self._pattern.sub(self._replacement, data) if self._pattern else data

    def mask_text(self, text: str) -> str:
        """As ``mask``, for text."""
        if not self._pattern:
            return text
        return self.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def find(self, data: bytes) -> str | None:
        """The name of the first secret that stands in ``data``."""
        match = self._pattern.search(data) if self._pattern else None
        return self._names[match.group()] if match else None

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """What of a stream can be written now, masked, and what has to wait for the next chunk."""
        if not self._pattern:
            return data, b""
        safe_until = max(0, len(data) - self.carry_bytes)
        for match in self._pattern.finditer(data):
            if match.start() >= safe_until:
                break
            safe_until = max(safe_until, match.end())
        return self.mask(data[:safe_until]), data[safe_until:]

    def _replacement(self, match: re.Match[bytes]) -> bytes:
        return b"${{ secrets.%s }}" % self._names[match.group()].encode()


class MaskingWriter:
    """A stream in front of ``sinks``: secrets are masked also when split over two writes. Close to flush the rest."""

    def __init__(self, masker: Masker, *sinks: Sink) -> None:
        self._masker, self._sinks, self._rest = masker, sinks, b""

    def write(self, data: bytes) -> int:
        ready, self._rest = self._masker.split(self._rest + bytes(data))
        self._emit(ready)
        return len(data)

    def close(self) -> None:
        self._emit(self._masker.mask(self._rest))
        self._rest = b""

    def _emit(self, data: bytes) -> None:
        if data:
            for sink in self._sinks:
                sink.write(data)


def find_in_stream(masker: Masker, stream: BinaryIO, *, chunk_bytes: int = 1 << 20) -> str | None:
    """The name of the first secret in a stream of any length, at flat memory."""
    if not masker:
        return None
    rest = b""
    while chunk := stream.read(chunk_bytes):
        if found := masker.find(rest + chunk):
            return found
        rest = (rest + chunk)[-masker.carry_bytes :] if masker.carry_bytes else b""
    return None


def _forms(value: str) -> Iterator[bytes]:
    """The ways a value is met: as it is, line by line, JSON-escaped, URL-encoded, in base64 at any offset."""
    for text in {value, *value.splitlines()}:
        if len(text.strip()) < SHORTEST:
            continue
        raw = text.encode("utf-8", "surrogateescape")
        yield raw
        for escaped in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
            yield escaped.encode("utf-8", "surrogateescape")
        yield quote(raw, safe="").encode()
        yield quote(raw).encode()
        yield quote_plus(raw).encode()
        yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """The base64 text of ``raw`` wherever it begins in a longer input: three alignments, without the shared edges."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw)
        first = (offset * 8 + 5) // 6
        last = (offset + len(raw)) * 8 // 6
        inner = encoded[first:last]
        if len(inner) >= 2 * SHORTEST:
            yield inner
            yield inner.translate(bytes.maketrans(b"+/", b"-_"))
    yield base64.b64encode(raw)
