"""Which texts are an e-mail address: what Go's net/mail.ParseAddress takes (RFC 5322 with UTF-8), no more."""

from __future__ import annotations

import re

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\x80-\U0010ffff]+"
_DOTTED = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = r'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\U0010ffff])*"'
_GAP = r"[ \t]*"
_ADDRESS = rf'(?:{_DOTTED}|(?!""){_QUOTED})@{_GAP}(?:{_DOTTED}|\[[^\[\]\\\s]+\])'
_WORD = rf"(?:[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-.\x80-\U0010ffff]+|{_QUOTED})"
_NAME = rf"(?:{_WORD}(?:[ \t]+{_WORD})*)?"
_WHOLE = re.compile(rf"{_GAP}(?:{_ADDRESS}|{_NAME}{_GAP}<{_GAP}{_ADDRESS}{_GAP}>){_GAP}(?:\([^()\\]*\))?{_GAP}")


def is_address(text: str) -> bool:
    """Whether ``text`` is one address: ``ada@example.com`` or ``Ada <ada@example.com>``."""
    return _WHOLE.fullmatch(text) is not None
