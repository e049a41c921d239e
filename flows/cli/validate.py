"""`batchwright validate`: every fault of a batch spec, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..batches.errors import Fault, SpecError
from ..batches.loading import load_spec
from ..batches.mounts import mount_faults
from .console import errors, output, print_json, read_text
from .errors import BAD_INPUT

SpecFile = Annotated[
    Path,
    typer.Argument(metavar="SPEC", help="The batch spec, a YAML file; - is standard input.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on standard output.")]


def register(app: typer.Typer) -> None:
    app.command()(validate)


def validate(spec: SpecFile, as_json: AsJson = False) -> None:
    """Check a batch spec and list every fault with its path."""
    faults = find_faults(read_text(spec), None if str(spec) == "-" else spec.absolute().parent)
    if as_json:
        listed = [{"path": fault.path, "message": fault.message, "line": fault.line} for fault in faults]
        print_json({"valid": not faults, "errors": listed})
    elif faults:
        for fault in faults:
            where = f"{spec}:{fault.line}" if fault.line else str(spec)
            errors.print(f"{where}: {fault}", markup=False, soft_wrap=True)
        errors.print(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}", style="bold red")
    else:
        output.print(f"{spec}: valid", style="green")
    raise typer.Exit(BAD_INPUT if faults else 0)


def find_faults(text: str, folder: Path | None) -> tuple[Fault, ...]:
    """Every fault of the text; with the spec's folder also those of its mounts."""
    try:
        spec = load_spec(text)
    except SpecError as error:
        return error.faults
    return mount_faults(spec, folder) if folder else ()
