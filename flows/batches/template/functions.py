"""The functions that every template has: Go's own and upstream's five, with the types that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..glob import GlobError, compile_glob
from . import comparing, escaping
from .budget import Budget
from .failures import FunctionFailure
from .formats import sprintf
from .printing import sprint, sprintln
from .text import byte_length, from_bytes, to_bytes
from .values import (
    Boxed,
    Byte,
    Kind,
    StringList,
    element,
    followed,
    has_string_keys,
    is_true,
    kind_of,
    type_name,
    unbox,
)

_SLOW = 16
"""How much more than copying a character it costs to look at it, or to hold a list's item."""


class Want(Enum):
    """What a parameter asks for; the value is the type's name in messages."""

    ANY = "interface {}"
    VALUE = "reflect.Value"
    """Anything, and the function sees whether it is boxed."""
    STRING = "string"
    STRINGS = "[]string"


@dataclass(frozen=True)
class Function:
    """``call`` takes the budget and the arguments. ``rest`` is the type of any number of further arguments."""

    call: Callable[..., object]
    parameters: tuple[Want, ...] = ()
    rest: Want | None = None


def constant(value: object) -> Function:
    """A function without parameters: what upstream's variables are."""
    return Function(lambda budget: value)


def _print(budget: Budget, *values: object) -> str:
    return sprint(values, budget)


def _println(budget: Budget, *values: object) -> str:
    return sprintln(values, budget)


def _printf(budget: Budget, form: str, *values: object) -> str:
    budget.spend_work(len(form))
    return sprintf(form, values, budget)


def _escaper(escape: Callable[[str], str]) -> Callable[..., str]:
    def call(budget: Budget, *values: object) -> str:
        text = sprint([_shown(value) for value in values], budget)
        budget.spend_work(_SLOW * len(text))
        return escape(text)

    return call


def _shown(value: object) -> object:
    """As an action would print it: nil has a text of its own, and a pointer is followed."""
    return "<no value>" if value is None else followed(value)


def _comparison(compare: Callable[..., bool]) -> Callable[..., bool]:
    def call(budget: Budget, *values: object) -> bool:
        _spend_on(budget, *values)
        return compare(*values)

    return call


def _not(budget: Budget, value: object) -> bool:
    budget.spend_nodes()
    return not is_true(value)


def _len(budget: Budget, item: object) -> int:
    _spend_on(budget, item)
    if item is None:
        raise FunctionFailure("reflect: call of reflect.Value.Type on zero Value")
    item = unbox(item)
    if item is None:
        raise FunctionFailure("len of nil pointer")
    if isinstance(item, str):
        return byte_length(item)
    if isinstance(item, list | tuple | Mapping):
        return len(item)
    raise FunctionFailure(f"len of type {type_name(followed(item))}")


def _index(budget: Budget, item: object, *indexes: object) -> object:
    if unbox(item) is None:
        raise FunctionFailure("index of untyped nil")
    for index in indexes:
        container = unbox(item)
        if container is None:
            raise FunctionFailure("index of nil pointer")
        _spend_on(budget, container)
        item = _indexed(budget, container, unbox(index))
    return item


def _indexed(budget: Budget, container: object, index: object) -> object:
    if isinstance(container, str):
        data = to_bytes(container)
        return Byte(data[_position(index, len(data), "string")])
    if isinstance(container, list | tuple):
        return element(container, _position(index, len(container), "slice"))
    if isinstance(container, Mapping):
        return _looked_up(budget, container, index)
    raise FunctionFailure(f"can't index item of type {type_name(followed(container))}")


def _looked_up(budget: Budget, mapping: Mapping[object, object], key: object) -> object:
    if isinstance(key, str):
        return Boxed(mapping.get(key))
    budget.spend_nodes(len(mapping))
    if has_string_keys(mapping):
        raise FunctionFailure("value is nil; should be of type string" if key is None else _wrong_key(key))
    # Python finds True under 1; Go does not.
    same = [other for other in mapping if kind_of(other) is kind_of(key) and other == key]
    return Boxed(mapping[same[0]] if same else None)


def _wrong_key(key: object) -> str:
    return f"value has type {type_name(key)}; should be string"


def _position(index: object, length: int, what: str) -> int:
    position = _bound(index, length)
    if position == length:
        raise FunctionFailure(f"reflect: {what} index out of range")
    return position


def _bound(index: object, length: int) -> int:
    """An index up to and with the length, as Go's indexArg checks it."""
    if index is None:
        raise FunctionFailure("cannot index slice/array with nil")
    if kind_of(index) not in (Kind.INT, Kind.UINT):
        raise FunctionFailure(f"cannot index slice/array with type {type_name(index)}")
    assert isinstance(index, int)
    if not 0 <= index <= length:
        raise FunctionFailure(f"index out of range: {index}")
    return index


def _slice(budget: Budget, item: object, *indexes: object) -> object:
    item = unbox(item)
    if item is None:
        raise FunctionFailure("slice of untyped nil")
    if len(indexes) > 3:
        raise FunctionFailure(f"too many slice indexes: {len(indexes)}")
    if isinstance(item, str):
        if len(indexes) == 3:
            raise FunctionFailure("cannot 3-index slice a string")
        _spend_on(budget, item)
        data = to_bytes(item)
        start, end = _bounds(indexes, len(data))
        return from_bytes(data[start:end])
    if not isinstance(item, list | tuple):
        raise FunctionFailure(f"can't slice item of type {type_name(followed(item))}")
    start, end = _bounds(indexes, len(item))
    budget.spend_work(_SLOW * (end - start))
    return type(item)(item[start:end])


def _bounds(indexes: Sequence[object], length: int) -> tuple[int, int]:
    bounds = [_bound(index, length) for index in indexes]
    start, end, *capacity = bounds + [0, length][len(bounds) :]
    for low, high in ((start, end), *((end, limit) for limit in capacity)):
        if low > high:
            raise FunctionFailure(f"invalid slice index: {low} > {high}")
    return start, end


def _join(budget: Budget, items: StringList, separator: str) -> str:
    budget.spend_text(sum(map(len, items)) + len(separator) * len(items))
    return separator.join(items)


def _join_if(budget: Budget, separator: str, *items: str) -> str:
    return _join(budget, StringList(item for item in items if item), separator)


def _split(budget: Budget, text: str, separator: str) -> StringList:
    budget.spend_work(len(text) + _SLOW * (text.count(separator) + 1))
    return StringList(text.split(separator) if separator else text)


def _replace(budget: Budget, text: str, old: str, new: str) -> str:
    budget.spend_work(len(text))
    budget.spend_text(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def _matches(budget: Budget, text: str, pattern: str) -> bool:
    budget.spend_work((len(text) + 1) * (len(pattern) + 1))
    try:
        return compile_glob(pattern).match(text)
    except GlobError as error:
        raise FunctionFailure(str(error)) from error


def _spend_on(budget: Budget, *values: object) -> None:
    for value in values:
        text = unbox(value)
        if isinstance(text, str):
            budget.spend_work(len(text))


OWN: Mapping[str, Function] = {
    "join": Function(_join, (Want.STRINGS, Want.STRING)),
    "split": Function(_split, (Want.STRING, Want.STRING)),
    "replace": Function(_replace, (Want.STRING, Want.STRING, Want.STRING)),
    "join_if": Function(_join_if, (Want.STRING,), Want.STRING),
    "matches": Function(_matches, (Want.STRING, Want.STRING)),
}
"""Upstream's functions."""

BUILT_IN: Mapping[str, Function] = {
    "html": Function(_escaper(escaping.html), rest=Want.ANY),
    "js": Function(_escaper(escaping.js), rest=Want.ANY),
    "urlquery": Function(_escaper(escaping.urlquery), rest=Want.ANY),
    "index": Function(_index, (Want.VALUE,), Want.VALUE),
    "slice": Function(_slice, (Want.VALUE,), Want.VALUE),
    "len": Function(_len, (Want.VALUE,)),
    "not": Function(_not, (Want.VALUE,)),
    "print": Function(_print, rest=Want.ANY),
    "println": Function(_println, rest=Want.ANY),
    "printf": Function(_printf, (Want.STRING,), Want.ANY),
    "eq": Function(_comparison(comparing.eq), (Want.VALUE,), Want.VALUE),
    "ne": Function(_comparison(comparing.ne), (Want.VALUE, Want.VALUE)),
    "lt": Function(_comparison(comparing.lt), (Want.VALUE, Want.VALUE)),
    "le": Function(_comparison(comparing.le), (Want.VALUE, Want.VALUE)),
    "gt": Function(_comparison(comparing.gt), (Want.VALUE, Want.VALUE)),
    "ge": Function(_comparison(comparing.ge), (Want.VALUE, Want.VALUE)),
}
"""Go's functions, without the three that the evaluation itself has to know."""

SPECIAL = frozenset({"and", "or", "call"})
"""`and` and `or` do not evaluate all of their arguments; `call` names its argument in messages."""

ALWAYS = SPECIAL | OWN.keys() | BUILT_IN.keys()
"""The names that exist in every template."""
