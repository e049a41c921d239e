"""The syntax tree of a template. ``str()`` of a node is what Go prints for it in messages.

``position`` is the offset of the node in the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .literals import Number as NumberValue
from .text import quote, trim_space


@dataclass(frozen=True)
class Dot:
    position: int

    def __str__(self) -> str:
        return "."


@dataclass(frozen=True)
class Nil:
    position: int

    def __str__(self) -> str:
        return "nil"


@dataclass(frozen=True)
class Bool:
    position: int
    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(frozen=True)
class Number:
    position: int
    literal: str
    value: NumberValue

    def __str__(self) -> str:
        return self.literal


@dataclass(frozen=True)
class String:
    position: int
    literal: str
    value: str

    def __str__(self) -> str:
        return self.literal


@dataclass(frozen=True)
class Identifier:
    """A function's name."""

    position: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Field:
    """`.a.b`: fields of dot."""

    position: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@dataclass(frozen=True)
class Variable:
    """`$x.a.b`: a variable (its name with the dollar sign comes first) and fields of it."""

    position: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(frozen=True)
class Chain:
    """`f.a.b` or `(pipeline).a.b`: fields of what a function or a pipeline gives."""

    position: int
    node: Operand
    fields: tuple[str, ...]

    def __str__(self) -> str:
        inner = f"({self.node})" if isinstance(self.node, Pipe) else str(self.node)
        return ".".join((inner, *self.fields))


@dataclass(frozen=True)
class Command:
    """An operand, or a function with its arguments."""

    position: int
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(f"({operand})" if isinstance(operand, Pipe) else str(operand) for operand in self.operands)


@dataclass(frozen=True)
class Pipe:
    """Commands, each one's value being the last argument of the next; and the variables that take the result."""

    position: int
    variables: tuple[Variable, ...]
    assigns: bool
    """`=` and not `:=`."""
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        target = ", ".join(map(str, self.variables)) + (" = " if self.assigns else " := ") if self.variables else ""
        return target + " | ".join(map(str, self.commands))


Operand = Dot | Nil | Bool | Number | String | Identifier | Field | Variable | Chain | Pipe


@dataclass(frozen=True)
class Text:
    position: int
    text: str


@dataclass(frozen=True)
class Action:
    position: int
    pipe: Pipe


@dataclass(frozen=True)
class Break:
    position: int


@dataclass(frozen=True)
class Continue:
    position: int


@dataclass(frozen=True)
class Body:
    """Nodes one after the other."""

    nodes: tuple[Node, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing but space: such a template does not replace another one."""
        return all(isinstance(node, Text) and not trim_space(node.text) for node in self.nodes)


@dataclass(frozen=True)
class If:
    position: int
    pipe: Pipe
    body: Body
    otherwise: Body | None


@dataclass(frozen=True)
class With:
    position: int
    pipe: Pipe
    body: Body
    otherwise: Body | None


@dataclass(frozen=True)
class Range:
    position: int
    pipe: Pipe
    body: Body
    otherwise: Body | None


@dataclass(frozen=True)
class TemplateCall:
    """`template` or `block`: the template of that name with the pipeline's value as dot."""

    position: int
    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        argument = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {quote(self.name)}{argument}}}}}"


Node = Text | Action | Break | Continue | If | With | Range | TemplateCall


@dataclass(frozen=True)
class Template:
    """A parsed text: its own body, and the templates that it defines."""

    text: str = field(repr=False)
    body: Body
    definitions: Mapping[str, Body]
