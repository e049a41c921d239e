"""What a template reads, without rendering it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .syntax import (
    Action,
    Body,
    Chain,
    Dot,
    Field,
    Identifier,
    If,
    Node,
    Operand,
    Pipe,
    Range,
    Template,
    TemplateCall,
    Variable,
    With,
)

_DOT_FIELDS = {
    "BatchChange": "batch_change",
    "BatchChangeAttributes": "batch_change",
    "Outputs": "outputs",
    "PreviousStep": "previous_step",
    "Repository": "repository",
    "Step": "step",
    "Steps": "steps",
}


def names_read(template: Template, variables: Iterable[str]) -> frozenset[str]:
    """The variables that a template touches, as `name.field` where one field is named, else as `name`.

    Too many rather than too few: a template that hands on the whole context reads all of ``variables``.
    """
    known = frozenset(variables)
    bodies = (template.body, *template.definitions.values())
    found = {name for body in bodies for node in body.nodes for name in _in_node(node, known, at_root=True)}
    return frozenset(name for name in found if name.partition(".")[0] in known)


def _in_node(node: Node, known: frozenset[str], *, at_root: bool) -> Iterator[str]:
    match node:
        case Action():
            yield from _in_pipe(node.pipe, known, at_root=at_root)
        case TemplateCall():
            if node.pipe is not None:
                yield from _in_pipe(node.pipe, known, at_root=at_root)
        case If() | With() | Range():
            yield from _in_pipe(node.pipe, known, at_root=at_root)
            yield from _in_body(node.body, known, at_root=at_root and isinstance(node, If))
            if node.otherwise is not None:
                yield from _in_body(node.otherwise, known, at_root=at_root)


def _in_body(body: Body, known: frozenset[str], *, at_root: bool) -> Iterator[str]:
    for node in body.nodes:
        yield from _in_node(node, known, at_root=at_root)


def _in_pipe(pipe: Pipe, known: frozenset[str], *, at_root: bool) -> Iterator[str]:
    for command in pipe.commands:
        for operand in command.operands:
            yield from _in_operand(operand, known, at_root=at_root)


def _in_operand(operand: Operand, known: frozenset[str], *, at_root: bool) -> Iterator[str]:
    match operand:
        case Identifier():
            yield operand.name
        case Chain(node=Identifier() as function):
            yield f"{function.name}.{operand.fields[0]}"
        case Chain(node=Pipe() as pipe):
            yield from _in_pipe(pipe, known, at_root=at_root)
        case Pipe():
            yield from _in_pipe(operand, known, at_root=at_root)
        case Dot() if at_root:
            yield from known
        case Field():
            yield _DOT_FIELDS.get(operand.names[0], "")
        case Variable(names=("$",)):
            yield from known
        case Variable(names=("$", first, *_)):
            yield _DOT_FIELDS.get(first, "")
