"""Text that nobody trusts as HTML: names, output, diffs. The only place of the report where text becomes markup."""

from __future__ import annotations

import html
from collections.abc import Iterable

_TAB, _NEWLINE, _DELETE = 9, 10, 127
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
"""Marks that make text read in another order than it stands in: a diff must not show what it does not say."""

_VISIBLE: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(32) if code not in (_TAB, _NEWLINE)},
    _DELETE: "\u2421",
    **{code: f"[U+{code:04X}]" for code in _BIDI},
}


def esc(text: object) -> str:
    """``text`` for any place between tags, or in quotes as an attribute's value. Control characters become visible."""
    plain = str(text).encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    return html.escape(plain.translate(_VISIBLE), quote=True)


def element(name: str, *inside: str, **attributes: object) -> str:
    """An element around markup. Attributes are escaped; None leaves one out, a `_` in front or behind is dropped."""
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{esc(value)}"' for key, value in attributes.items() if value is not None
    )
    return f"<{name}{written}>{''.join(inside)}</{name}>"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what they are (markup), as a table of two columns."""
    return element("table", *(f"<tr><th>{esc(name)}</th><td>{value}</td></tr>" for name, value in rows), class_="facts")


def cut(text: str, characters: int) -> str:
    """The beginning of ``text``, and how much more there is."""
    more = len(text) - characters
    return text if more <= 0 else f"{text[:characters]}\n(... {more} more characters ...)"
