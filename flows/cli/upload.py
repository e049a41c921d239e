"""`batchwright upload`: a past run's changeset specs, brought to a Sourcegraph instance."""

from __future__ import annotations

from typing import Annotated

import typer

from ..ledger import LATEST, find_run
from .console import errors, output, print_json
from .deploy import find_server
from .inspect import RunName
from .sources import Instance, Store, artifact_store, instance_block
from .validate import AsJson

Apply = Annotated[
    bool, typer.Option("--apply", help="Apply the batch spec there, instead of only showing what it would do.")
]
NamespaceName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The organization or user that the batch change belongs to. Default: the block's, or the token's user.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(upload)


def upload(
    run: RunName = LATEST,
    instance: Instance = None,
    apply: Apply = False,
    namespace: NamespaceName = "",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Upload a run's changeset specs to a Sourcegraph instance: a preview there, or applied. Twice is as once."""
    from ..uploading import upload as bring
    from .errors import BadInput

    if instance is None:
        raise BadInput("name the instance: --instance https://sourcegraph.example.com, or a stored block")
    if "://" not in instance:
        find_server()
    block = instance_block(instance)
    ledger = find_run(artifact_store(store), run)
    with errors.status("uploading changeset specs"):
        record = bring(ledger, ledger.manifest(), block.api(), namespace=namespace or block.namespace, apply=apply)
    if as_json:
        print_json(record.model_dump(mode="json"))
        return
    count = f"{len(set(record.changeset_specs.values()))} changeset specs"
    output.print(f"uploaded   {count} to {record.instance}", markup=False, soft_wrap=True)
    where = "applied" if record.batch_change_url else "preview"
    output.print(f"{where:<10} {record.url}", markup=False, soft_wrap=True)
