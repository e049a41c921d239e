"""The one error of a query."""

from __future__ import annotations

from ..errors import PermanentError


class QueryError(PermanentError):
    """A query that does not parse or that git cannot answer. The message names the term."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message
