"""How the command line tells what went wrong, and with which exit code it ends."""

from __future__ import annotations

from blocks.instance_errors import InstanceTrouble
from blocks.runtime import RuntimeTrouble
from blocks.store import StoreRefused, StoreTrouble

from ..batches.errors import BatchError, PermanentError
from .console import errors as console

FAILED, BAD_INPUT = 1, 2
INTERRUPTED = 130
"""As shells count it: 128 and the number of SIGINT."""


class BadInput(PermanentError):
    """What the user asked for cannot be done as it was written."""


def exit_code_of(error: BaseException) -> int | None:
    """1 for what failed while running, 2 for bad input; None for what nobody foresaw.

    An OSError is the machine's: a disk without room, a state folder that cannot be written. It names the file.
    """
    if isinstance(error, (PermanentError, StoreRefused)):
        return BAD_INPUT
    if isinstance(error, InstanceTrouble):
        return FAILED if error.temporary else BAD_INPUT
    if isinstance(error, (BatchError, RuntimeTrouble, StoreTrouble, OSError)):
        return FAILED
    return None


def tell(error: BaseException) -> None:
    """One clear message on standard error."""
    console.print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
