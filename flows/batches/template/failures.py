"""How the parts of the template engine say no; the package turns all of them into TemplateError."""

from __future__ import annotations


class Failure(Exception):
    """A template stops here. ``message`` is Go's text/template wording."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ParseFailure(Failure):
    """The text is no template. ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class FunctionFailure(Failure):
    """A function refuses its arguments; who called it knows the place."""


class EvaluationFailure(Failure):
    """A node cannot be evaluated.

    ``context`` is the node as Go writes it, ``position`` its offset in the text, ``template`` the `define` around it
    ("" for the whole text).
    """

    def __init__(self, message: str, context: str, position: int, template: str) -> None:
        super().__init__(message)
        self.context, self.position, self.template = context, position, template
