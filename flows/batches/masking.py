"""Secrets in text and streams: found in every form they usually take, replaced by `${{ secrets.NAME }}`.

Masks what people read (logs, streams, records, errors); refuses nothing. Asks nobody: names and values are given.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, Protocol
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Values shorter than this are not masked: they would tear holes into every text ("2", "no")."""

_BREAKS = b"\r\n"
_BREAK = re.compile(b"[\r\n]")
_HTML = re.compile(b"[<>&]")
_ESCAPE = re.compile(rb"\\u([0-9a-f]{4})")
_GRAM_BYTES = 4


class Sink(Protocol):
    """Where masked bytes go."""

    def write(self, data: bytes, /) -> object: ...


class Masker:
    """Replaces the values of ``secrets`` (name -> value) wherever they stand, the longest form first.

    A line break may be anywhere in a value: tools that print base64 put them there. So all is looked for in the text
    without line breaks. ``texts`` (name -> text): what is shown in a value's place, where that is not
    `${{ secrets.NAME }}`.
    """

    def __init__(self, secrets: Mapping[str, str], texts: Mapping[str, str] | None = None) -> None:
        self._texts = dict(texts or {})
        forms: dict[bytes, str] = {}
        for name, value in secrets.items():
            for form in _forms(value):
                forms.setdefault(_flat(form), name)
        self._names = forms
        self._longest = max(map(len, forms), default=0)
        self._ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, self._ordered))) if forms else None
        shortest = min(map(len, forms), default=0)
        self._step = shortest - _GRAM_BYTES + 1
        self._grams = {form[at : at + _GRAM_BYTES] for form in forms for at in range(self._step)}

    def __bool__(self) -> bool:
        return self._pattern is not None

    def __repr__(self) -> str:
        return f"Masker({sorted(set(self._names.values()))})"

    @property
    def carry_bytes(self) -> int:
        """How many bytes at the end of a chunk, line breaks not counted, may be the beginning of a secret."""
        return max(0, self._longest - 1)

    def mask(self, data: bytes) -> bytes:
        """The same bytes with every form of every secret replaced."""
        return self._masked(data, self._spans(data))

    def mask_text(self, text: str) -> str:
        """As ``mask``, for text."""
        if not self._pattern:
            return text
        return self.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def find(self, data: bytes) -> str | None:
        """The name of the first secret that stands in ``data``."""
        return next((name for _, _, name in self._spans(data)), None)

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """What of a stream can be written now, masked, and what has to wait for the next chunk: as little as can be."""
        if not self._pattern:
            return data, b""
        safe_until = len(data) - self.begun_bytes(data)
        spans = []
        for span in self._spans(data):
            if span[0] >= safe_until:
                break
            spans.append(span)
            safe_until = max(safe_until, span[1])
        return self._masked(data[:safe_until], spans), data[safe_until:]

    def begun_bytes(self, data: bytes) -> int:
        """How many bytes at the end of ``data`` are the beginning of a secret, as far as one can see."""
        tail = _flat(data[-2 * self._longest :])[-self.carry_bytes :] if self.carry_bytes else b""
        begun = max((_overlap(tail, form) for form in self._ordered), default=0)
        at = len(data)
        while begun:
            at -= 1
            begun -= data[at] not in _BREAKS
        return len(data) - at

    def _spans(self, data: bytes) -> Iterator[tuple[int, int, str]]:
        """Where the secrets stand: from, to, name."""
        if not self._pattern:
            return
        flat = _flat(data)
        if not self._may_hold(flat):
            return
        breaks = [match.start() for match in _BREAK.finditer(data)] if len(flat) < len(data) else []
        before = [at - number for number, at in enumerate(breaks)]
        for match in self._pattern.finditer(flat):
            start, last = match.start(), match.end() - 1
            yield start + bisect_right(before, start), last + bisect_right(before, last) + 1, self._names[match.group()]

    def _may_hold(self, flat: bytes) -> bool:
        """Whether a secret can be there at all: looks at a few bytes in every ``_step`` (Wu and Manber's idea)."""
        if self._step < _GRAM_BYTES:
            return True
        ends = range(_GRAM_BYTES, len(flat) + 1, self._step)
        return not self._grams.isdisjoint([flat[end - _GRAM_BYTES : end] for end in ends])

    def _masked(self, data: bytes, spans: Iterable[tuple[int, int, str]]) -> bytes:
        parts, done = [], 0
        for start, end, name in spans:
            parts += [data[done:start], self._texts.get(name, f"${{{{ secrets.{name} }}}}").encode()]
            done = end
        return b"".join([*parts, data[done:]]) if parts else data


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
        rest = (rest + chunk)[-2 * masker.carry_bytes :]  # line breaks in it among them
    return None


def _forms(value: str) -> Iterator[bytes]:
    """The ways a value is met: as it is, line by line, JSON-escaped, URL-encoded, in base64 at any offset."""
    lines = value.splitlines()
    for text in {value, value.strip(), *lines, *map(str.strip, lines)}:
        if len(text.strip()) < SHORTEST:
            continue
        raw = text.encode("utf-8", "surrogateescape")
        yield raw
        yield from _json_forms(text)
        yield from _url_forms(raw)
        yield from _base64_forms(raw)


def _json_forms(text: str) -> Iterator[bytes]:
    """As most write it, with `/` escaped (PHP), fit for HTML (Go), and with all but letters and digits escaped (.NET).

    Each with small and with large digits.
    """
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogateescape")
        fit_for_html = _HTML.sub(lambda match: rb"\u%04x" % ord(match[0]), escaped)
        for form in (escaped, escaped.replace(b"/", rb"\/"), fit_for_html):
            yield form
            yield _ESCAPE.sub(lambda match: rb"\u" + match[1].upper(), form)
    units = [unit for (unit,) in struct.iter_unpack(">H", text.encode("utf-16-be", "surrogatepass"))]
    for escape in ("\\u{:04x}", "\\u{:04X}"):
        yield "".join(chr(unit) if _is_plain(unit) else escape.format(unit) for unit in units).encode()


def _is_plain(code: int) -> bool:
    """Whether it is that of a letter or digit of ASCII."""
    return code < 128 and chr(code).isalnum()


def _url_forms(raw: bytes) -> Iterator[bytes]:
    """With more or fewer characters left as they are, `+` or `%20` for a space, large or small digits."""
    everything = "".join(chr(byte) if _is_plain(byte) else f"%{byte:02X}" for byte in raw)
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw), quote(raw, safe="!'()*"), everything):
        yield encoded.encode()
        yield re.sub(r"%..", lambda match: match[0].lower(), encoded).encode()


def _overlap(tail: bytes, form: bytes) -> int:
    """How many bytes at the end of ``tail`` are the beginning of ``form``, the whole of it not counted."""
    at = tail.find(form[:_GRAM_BYTES], max(0, len(tail) - len(form) + 1))
    while at >= 0:
        if form.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(form[:_GRAM_BYTES], at + 1)
    return next((size for size in range(_GRAM_BYTES - 1, 0, -1) if tail.endswith(form[:size])), 0)


def _flat(data: bytes) -> bytes:
    return data.translate(None, _BREAKS)


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
