"""The command line `batchwright`. Imports Prefect, Docker and boto3 only in the commands that need them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import (
    deploy,
    doctor,
    events,
    exec,
    executor,
    inspect,
    publish,
    resolve,
    run,
    up,
    upload,
    validate,
    view,
    webhook,
)
from .errors import exit_code_of, tell

app = typer.Typer(
    name="batchwright",
    help="Run batch changes: one scripted change, many repositories. Exit codes: 0 all fine, 1 something failed while "
    "running, 2 bad input.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _common(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, with tracebacks.")] = False,
) -> None:
    context.obj = verbose


for module in (
    validate,
    resolve,
    run,
    inspect,
    publish,
    upload,
    deploy,
    up,
    view,
    webhook,
    executor,
    exec,
    events,
    doctor,
):
    module.register(app)


def main() -> None:
    """The entry point: errors that we foresaw become one clear message and an exit code; others are bugs of ours."""
    try:
        app()
    except Exception as error:
        code = exit_code_of(error)
        if code is None or {"--verbose", "-v"} & set(sys.argv[1:]):
            raise
        tell(error)
        sys.exit(code)
