"""eq, ne, lt, le, gt, ge with Go's rules: only values of one basic kind compare, and no number changes its type."""

from __future__ import annotations

from .failures import FunctionFailure
from .printing import verbatim
from .text import to_bytes
from .values import Kind, Struct, kind_of, type_name, unbox

_BASIC = frozenset({Kind.BOOL, Kind.INT, Kind.UINT, Kind.FLOAT, Kind.COMPLEX, Kind.STRING})
_INTEGERS = frozenset({Kind.INT, Kind.UINT})
_ORDERED = frozenset({Kind.INT, Kind.UINT, Kind.FLOAT, Kind.STRING})


def eq(first: object, *others: object) -> bool:
    """Whether the first value equals any of the others. The others behind the one that equals are not looked at."""
    if not others:
        raise FunctionFailure("missing argument for comparison")
    return any(_equal(unbox(first), unbox(other)) for other in others)


def ne(first: object, second: object) -> bool:
    return not eq(first, second)


def lt(first: object, second: object) -> bool:
    first, second = unbox(first), unbox(second)
    for value in (first, second):
        if kind_of(value) not in _BASIC:
            raise FunctionFailure("invalid type for comparison")
    if not _same_kind(first, second):
        raise _incompatible(first, second)
    if kind_of(first) not in _ORDERED:
        raise FunctionFailure("invalid type for comparison")
    if isinstance(first, str) and isinstance(second, str):
        return to_bytes(first) < to_bytes(second)
    assert isinstance(first, int | float)
    assert isinstance(second, int | float)
    return first < second


def le(first: object, second: object) -> bool:
    return lt(first, second) or eq(first, second)


def gt(first: object, second: object) -> bool:
    return not le(first, second)


def ge(first: object, second: object) -> bool:
    return not lt(first, second)


def _equal(first: object, second: object) -> bool:
    if kind_of(first) in _BASIC or kind_of(second) in _BASIC:
        if first is None or second is None:
            return False
        if not _same_kind(first, second):
            raise _incompatible(first, second)
        return first == second
    if first is None or second is None:
        return first is second
    if kind_of(first) is not kind_of(second):
        raise FunctionFailure(
            f"non-comparable types {verbatim(first, 's')}: {type_name(first)}, {type_name(second)}: {verbatim(second)}"
        )
    if isinstance(first, Struct) and first.pointer:
        return first is second
    raise FunctionFailure(f"non-comparable type {verbatim(second, 's')}: {type_name(second)}")


def _same_kind(first: object, second: object) -> bool:
    kinds = {kind_of(first), kind_of(second)}
    return len(kinds) == 1 or kinds <= _INTEGERS


def _incompatible(first: object, second: object) -> FunctionFailure:
    return FunctionFailure(f"incompatible types for comparison: {type_name(first)} and {type_name(second)}")
