"""Secrets are masked in every form, also in streams; nothing else is touched."""

import base64
import io
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.masking import Masker, MaskingWriter, find_in_stream

SECRET = 'p@ss "word"/+ü'
values = st.text(min_size=4, max_size=40).filter(lambda text: len(text.strip()) >= 4)


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(b"x" + SECRET.encode() + b"yz").decode(),
        base64.b64encode(b"user:" + SECRET.encode()).decode(),
    ],
)
def test_every_usual_form_is_masked(text: str) -> None:
    masked = Masker({"TOKEN": SECRET}).mask_text(text)

    assert "${{ secrets.TOKEN }}" in masked
    assert SECRET not in masked


def test_each_line_of_a_multi_line_secret_is_masked() -> None:
    masked = Masker({"KEY": "first line\nsecond line\n"}).mask_text("out: first line\nout: second line\n")

    assert masked == "out: ${{ secrets.KEY }}\nout: ${{ secrets.KEY }}\n"


def test_a_short_value_is_left_alone() -> None:
    assert Masker({"N": "2"}).mask(b"2 of 22") == b"2 of 22"


def test_the_longer_secret_wins() -> None:
    assert Masker({"A": "abcd", "B": "abcdef"}).mask(b"abcdef") == b"${{ secrets.B }}"


def test_a_masker_shows_names_only() -> None:
    assert repr(Masker({"TOKEN": SECRET})) == "Masker(['TOKEN'])"


@given(st.binary(max_size=60), values, st.binary(max_size=60), st.lists(st.integers(1, 9), max_size=60))
def test_a_stream_is_masked_as_the_whole_would_be(before: bytes, secret: str, after: bytes, sizes: list[int]) -> None:
    """However the stream is cut."""
    masker = Masker({"S": secret})
    data = before + secret.encode("utf-8", "surrogatepass") + after if secret.isascii() else before + after
    out = io.BytesIO()

    writer, rest = MaskingWriter(masker, out), data
    for size in sizes:
        writer.write(rest[:size])
        rest = rest[size:]
    writer.write(rest)
    writer.close()

    assert out.getvalue() == masker.mask(data)


def test_a_secret_is_found_across_chunks() -> None:
    masker = Masker({"S": "secret-value"})

    assert find_in_stream(masker, io.BytesIO(b"x" * 13 + b"secret-value"), chunk_bytes=8) == "S"
    assert find_in_stream(masker, io.BytesIO(b"x" * 100), chunk_bytes=8) is None


@given(st.binary(max_size=200))
def test_without_secrets_nothing_changes(data: bytes) -> None:
    assert Masker({}).mask(data) == data
