"""Go's values as Python's: what kind a value is, what Go calls its type, whether it is true.

str, bool, int, float, complex and None are string, bool, int, float64, complex128 and nil; a list or tuple is a
`[]interface {}`, a mapping a `map[string]interface {}` whose values may be loaded when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from .literals import INT_MAX
from .text import to_bytes


class StringList(tuple[str, ...]):
    """A `[]string`: what split gives and what join takes."""

    __slots__ = ()


class SearchResultPaths(StringList):
    """Upstream's fileMatchPathList: a `[]string` that prints joined by spaces and has a method String."""

    __slots__ = ()

    def __str__(self) -> str:
        return " ".join(self)


class Byte(int):
    """A uint8: what indexing a string gives."""

    __slots__ = ()


@dataclass(frozen=True)
class Boxed:
    """A value that Go holds as an `interface {}`, as lists and maps hold theirs: messages tell it from the bare one."""

    value: object


@dataclass(frozen=True, eq=False)
class Struct:
    """A Go struct or, with ``pointer``, the address of one: its fields in Go's order, and methods without arguments."""

    type_name: str
    fields: Mapping[str, object]
    methods: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    pointer: bool = False


class Kind(Enum):
    """Go's kinds, as far as templates tell them apart. NIL is reflect's Invalid."""

    NIL = auto()
    BOOL = auto()
    INT = auto()
    UINT = auto()
    FLOAT = auto()
    COMPLEX = auto()
    STRING = auto()
    LIST = auto()
    MAP = auto()
    STRUCT = auto()
    POINTER = auto()
    INTERFACE = auto()


_ORDER = (Kind.NIL, Kind.BOOL, Kind.INT, Kind.UINT, Kind.FLOAT, Kind.STRING)


def kind_of(value: object) -> Kind:
    """The kind of a value. TypeError for what no template can hold: that is a bug of the caller."""
    match value:
        case None:
            return Kind.NIL
        case bool():
            return Kind.BOOL
        case str():
            return Kind.STRING
        case int():
            return Kind.UINT if isinstance(value, Byte) or value > INT_MAX else Kind.INT
        case float():
            return Kind.FLOAT
        case Boxed():
            return Kind.INTERFACE
        case Struct():
            return Kind.POINTER if value.pointer else Kind.STRUCT
        case list() | tuple():
            return Kind.LIST
        case Mapping():
            return Kind.MAP
        case complex():
            return Kind.COMPLEX
    raise TypeError(f"a template cannot hold a {type(value).__name__}")


_TYPE_NAMES = {
    Kind.BOOL: "bool",
    Kind.INT: "int",
    Kind.FLOAT: "float64",
    Kind.COMPLEX: "complex128",
    Kind.STRING: "string",
    Kind.INTERFACE: "interface {}",
}


def type_name(value: object) -> str:
    """What Go prints as the value's type. Nil has none."""
    match value:
        case SearchResultPaths():
            return "template.fileMatchPathList"
        case StringList():
            return "[]string"
        case list() | tuple():
            return "[]interface {}"
        case Struct():
            return f"*{value.type_name}" if value.pointer else value.type_name
        case Mapping():
            return "map[string]interface {}" if has_string_keys(value) else "map[interface {}]interface {}"
        case Byte():
            return "uint8"
    kind = kind_of(value)
    return "uint64" if kind is Kind.UINT else _TYPE_NAMES[kind]


def has_string_keys(mapping: Mapping[object, object]) -> bool:
    """Whether Go (its YAML reader) would have made it a map[string]interface {}."""
    return all(isinstance(key, str) for key in mapping)


def unbox(value: object) -> object:
    """The value in an interface; any other value itself."""
    return value.value if isinstance(value, Boxed) else value


def followed(value: object) -> object:
    """The struct that a pointer points at; any other value itself."""
    return Struct(value.type_name, value.fields, value.methods) if isinstance(value, Struct) else value


def is_true(value: object) -> bool:
    """Go's truth: false, 0, nil, "" and what is empty are not true."""
    return bool(unbox(value))


def element(items: Sequence[object], index: int) -> object:
    """An element as Go hands it out: boxed, unless the list's type says what its elements are."""
    return items[index] if isinstance(items, StringList) else Boxed(items[index])


def sorted_entries(mapping: Mapping[object, object]) -> list[tuple[object, object]]:
    """Keys and values in the order in which Go prints and ranges."""
    return [(key, mapping[key]) for key in sorted(mapping, key=_sort_key)]


def _sort_key(key: object) -> tuple[int, object]:
    if isinstance(key, str):
        return _ORDER.index(Kind.STRING), to_bytes(key)
    kind = kind_of(key)
    return (_ORDER.index(kind), key) if kind in _ORDER else (len(_ORDER), str(key))
