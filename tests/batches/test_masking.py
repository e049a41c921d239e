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
        base64.encodebytes(b"x" * 50 + SECRET.encode() + b"y" * 50).decode(),
        json.dumps(SECRET).replace("/", "\\/"),
        quote(SECRET, safe="!'()*"),
        quote(SECRET, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%C3%BC", "%c3%bc"),
    ],
)
def test_every_usual_form_is_masked(text: str) -> None:
    masked = Masker({"TOKEN": SECRET}).mask_text(text)

    assert "${{ secrets.TOKEN }}" in masked
    assert SECRET not in masked


@pytest.mark.parametrize("go", ["<tag> & more", "a<b>c&d"])
def test_json_that_is_fit_for_html_is_masked(go: str) -> None:
    escaped = json.dumps({"a": go}).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

    assert Masker({"TOKEN": go}).mask_text(escaped) == '{"a": "${{ secrets.TOKEN }}"}'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("simple+token", "simple\\u002Btoken"),
        ("gr\u00fc\u00dfe", "gr\\u00FC\\u00DFe"),
        ('a"b"c', "a\\u0022b\\u0022c"),
        ("a-b_c.d~", "a%2Db%5Fc%2Ed%7E"),
        ("a-b_c.d~", "a%2db%5fc%2ed%7e"),
        ("abcd\nefgh\nijkl", base64.b64encode(b"abcd\nefgh\nijkl").decode()),
    ],
)
def test_unusual_forms_are_masked(value: str, written: str) -> None:
    assert Masker({"TOKEN": value}).mask_text(f"<{written}").startswith("<${{ secrets.TOKEN }}")


def test_base64_is_masked_wherever_its_lines_break() -> None:
    """As `base64` and `openssl` print it: of the secret alone, or of a file that holds it at any place."""
    for before in range(40):
        for width in (64, 76):
            encoded = base64.b64encode(b"-" * before + SECRET.encode() * 2 + b"-" * 40).decode()
            lines = "\n".join(encoded[at : at + width] for at in range(0, len(encoded), width))

            assert Masker({"T": SECRET * 2}).mask_text(lines).count("${{ secrets.T }}") == 1


def test_each_line_of_a_key_is_masked_in_its_base64() -> None:
    lines = [f"{number}" * 60 for number in range(5)]
    masker = Masker({"KEY": "\n".join(lines)})

    assert masker.mask(base64.encodebytes("\n".join(lines[:4]).encode())).count(b"${{ secrets.KEY }}") == 4
    assert masker.mask(base64.encodebytes("\n".join(lines).encode())) == b"${{ secrets.KEY }}\n"


def test_spaces_around_a_secret_do_not_hide_it() -> None:
    assert Masker({"T": "  s3cret \n"}).mask(b"<s3cret>") == b"<${{ secrets.T }}>"


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


@given(st.lists(st.tuples(st.sampled_from(["", "\n", "x", "abcdefgh\n"]), st.integers(0, 13)), max_size=12), st.data())
def test_beginnings_of_secrets_do_not_confuse_a_stream(pieces: list[tuple[str, int]], data: st.DataObject) -> None:
    """Secrets that begin or go on like one another, with line breaks in them."""
    masker = Masker({"A": "abcdefgh\nijkl", "B": "cdefgh", "C": "ghijklmn"})
    text = "".join(before + "abcdefgh\nijkl"[:size] for before, size in pieces).encode()
    cut = data.draw(st.integers(0, len(text)))
    out = io.BytesIO()

    writer = MaskingWriter(masker, out)
    writer.write(text[:cut])
    writer.write(text[cut:])
    writer.close()

    assert out.getvalue() == masker.mask(text)


def test_only_what_may_be_the_beginning_of_a_secret_has_to_wait() -> None:
    """Who watches a step sees its last line, however long a secret is."""
    out = io.BytesIO()
    writer = MaskingWriter(Masker({"KEY": "k" * 2000 + "\n" + "l" * 2000}), out)

    shown = []
    for data in (b"first!\n", b"second k", b"not!\n", b"k" * 2000, b"\n"):
        writer.write(data)
        shown.append(out.getvalue())

    assert shown == [b"first!\n", b"first!\nsecond ", b"first!\nsecond knot!\n", *[b"first!\nsecond knot!\n"] * 2]


def test_a_secret_is_found_across_chunks() -> None:
    masker = Masker({"S": "secret-value"})

    assert find_in_stream(masker, io.BytesIO(b"x" * 13 + b"secret-value"), chunk_bytes=8) == "S"
    assert find_in_stream(masker, io.BytesIO(b"x" * 100), chunk_bytes=8) is None


@given(st.binary(max_size=200))
def test_without_secrets_nothing_changes(data: bytes) -> None:
    assert Masker({}).mask(data) == data
