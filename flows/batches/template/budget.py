"""How much one rendering may do: specs are untrusted, and a few lines of template can ask for any amount of work."""

from __future__ import annotations

from .failures import FunctionFailure

MAX_NODES = 2_000_000
"""Nodes evaluated, range iterations among them: some seconds."""
MAX_TEXT = 64 * 2**20
"""Characters of the result, and of any one text on the way."""
MAX_WORK = 2**30
"""Characters read and written by all functions together."""


class Budget:
    """What is left of one rendering's allowance. Overdrawing it raises FunctionFailure."""

    def __init__(self) -> None:
        self._nodes, self._work = MAX_NODES, MAX_WORK

    def spend_nodes(self, count: int = 1) -> None:
        """Says that nodes are evaluated, or entries visited."""
        self._nodes -= count
        if self._nodes < 0:
            raise FunctionFailure(f"the template takes more than {MAX_NODES} evaluations")

    def spend_work(self, characters: int) -> None:
        """Says that text is read or written."""
        self._work -= characters
        if self._work < 0:
            raise FunctionFailure(f"the template handles more than {MAX_WORK} characters of text")

    def spend_text(self, characters: int) -> None:
        """Says, before it is made, that a text of this length will be made."""
        if characters > MAX_TEXT:
            raise FunctionFailure(f"a text longer than {MAX_TEXT} characters")
        self.spend_work(characters)


class TextBuilder:
    """Collects a text piece by piece, within a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._pieces: list[str] = []
        self._length = 0

    def write(self, piece: str) -> None:
        """Adds a piece. Raises FunctionFailure when the text gets too long."""
        self._length += len(piece)
        if self._length > MAX_TEXT:
            raise FunctionFailure(f"a text longer than {MAX_TEXT} characters")
        self._budget.spend_work(len(piece) + 1)
        self._pieces.append(piece)

    def text(self) -> str:
        """What was written."""
        return "".join(self._pieces)
