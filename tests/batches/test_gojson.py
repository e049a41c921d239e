"""JSON as Go reads and writes it: the rules and words of encoding/json (scanner.go, stream.go, encode.go)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.gojson import MAX_DEPTH, JSONError, dumps, first_value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "EOF"),
        (" \n", "EOF"),
        ("nope", "invalid character 'o' in literal null (expecting 'u')"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("fa", "unexpected EOF"),
        ("NaN", "invalid character 'N' looking for beginning of value"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1", "unexpected EOF"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair"),
        ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ("-", "unexpected EOF"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1e+x", "invalid character 'x' in exponent of numeric literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ('"\\u12g4"', r"invalid character 'g' in \u hexadecimal character escape"),
        ('"a\nb"', r"invalid character '\n' in string literal"),
        ('"a', "unexpected EOF"),
        ("'", r"invalid character '\'' looking for beginning of value"),
        ("\x01", r"invalid character '\x01' looking for beginning of value"),
        ("é", "invalid character 'Ã' looking for beginning of value"),
        ("1e400", "json: cannot unmarshal number 1e400 into Go value of type float64"),
        ("[" * (MAX_DEPTH + 1), "invalid character '[' exceeded max depth"),
    ],
)
def test_bad_json_is_refused_in_gos_words(text: str, message: str) -> None:
    with pytest.raises(JSONError) as caught:
        first_value(text)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"k":1} trailing', {"k": 1.0}),
        ("1 2", 1.0),
        ("01", 0.0),
        ("1x", 1.0),
        ("nullx", None),
        (' \n"a"b', "a"),
        ("[[], {}, [{}]]]", [[], {}, [{}]]),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ud800"', "\ufffd"),
        ('{"\\udc00": ["\\ud800x"]}', {"\ufffd": ["\ufffdx"]}),
        ('{"a": 1, "a": 2}', {"a": 2.0}),
    ],
)
def test_only_the_first_value_counts(text: str, value: object) -> None:
    assert first_value(text) == value


def test_every_number_is_a_float() -> None:
    assert type(first_value("3")) is float
    assert first_value("12345678901234567890") == 12345678901234567890.0


_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES, st.text(max_size=3).filter(lambda text: text[:1] not in list("0123456789.eE+-")), st.booleans())
def test_what_json_writes_is_read_whatever_follows(value: object, rest: str, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)

    assert first_value(f" {text}{rest}") == value


@given(st.text(alphabet='{}[]",:\\u0123456789eE+-.truefalsn \n\x00é\udc80', max_size=12) | st.text(max_size=12))
def test_reading_agrees_with_python_and_raises_nothing_but_a_json_error(text: str) -> None:
    try:
        value = first_value(text)
    except JSONError:
        assert not _is_json(text)
    else:
        assert json.loads(json.dumps(value)) == value


def _is_json(text: str) -> bool:
    """As Python's json has it, without its NaN and Infinity."""
    constants: list[str] = []
    try:
        json.loads(text, parse_constant=constants.append)
    except ValueError:
        return False
    return not constants


def test_writing_escapes_as_go_does() -> None:
    assert dumps({"b": "<a>&\u2028\u2029é\x7f\udcff", "a": [1, True, None]}) == (
        r'{"b":"\u003ca\u003e\u0026\u2028\u2029' + "é\x7f" + r'\ufffd","a":[1,true,null]}'
    )
