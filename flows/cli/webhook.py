"""`batchwright webhook`: receive webhooks, in the foreground. For systemd and containers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from .. import settings
from ..batches.records import explain
from .console import errors, read_text
from .deploy import find_server
from .errors import BadInput

if TYPE_CHECKING:
    from blocks.webhook_rules import WebhookRules

Rules = Annotated[
    list[str],
    typer.Option(
        "--rules",
        metavar="BLOCK|FILE",
        help="Who may send, and what starts: the name of a stored Webhook Rules block, or a YAML file with its fields. "
        "Give it once per sender; deliveries go to /webhooks/NAME.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(webhook)


def webhook(
    rules: Rules,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8300,
) -> None:
    """Receive webhooks of an instance, GitHub or GitLab, and run deployments on the Prefect server."""
    server = find_server()
    settings.quiet_prefect()
    settings.use_prefect_impatiently()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)

    from ..webhook import create_app
    from ..webhook_runs import Runs
    from ..webhook_server import serve

    books = _Books(rules)
    app = create_app(books, Runs())
    for name in books.names():
        errors.print(f"listening for {name} at http://{host}:{port}/webhooks/{name}", markup=False, soft_wrap=True)
    errors.print(f"runs go to {server.ui_url}", markup=False, soft_wrap=True)
    serve(app, host, port)


class _Books:
    """Rules from files and from stored blocks, together. All are read once at the start. Raises BadInput."""

    def __init__(self, wanted: list[str]) -> None:
        from ..webhook_server import FixedRules, StoredRules

        files = {
            Path(each).stem: rules_from_file(Path(each)) for each in wanted if Path(each).suffix in (".yaml", ".yml")
        }
        blocks = [each for each in wanted if Path(each).suffix not in (".yaml", ".yml")]
        for name in blocks:
            _load(name)
        self._fixed, self._stored = FixedRules(files), StoredRules(blocks, _load)
        if len(self.names()) != len(wanted) or len(set(self.names())) != len(wanted):
            raise BadInput("--rules: two of them have the same name, and so would have the same address")

    def names(self) -> list[str]:
        return [*self._fixed.names(), *self._stored.names()]

    def rules(self, name: str) -> WebhookRules:
        book = self._fixed if name in self._fixed.names() else self._stored
        return book.rules(name)


def _load(name: str) -> WebhookRules:
    from blocks.webhook_rules import WebhookRules

    try:
        found = WebhookRules.load(name)
    except ValueError as error:
        raise BadInput(f"--rules {name}: {error}") from error
    assert isinstance(found, WebhookRules)  # a coroutine only where an event loop runs
    return found


def rules_from_file(path: Path) -> WebhookRules:
    """The rules of a YAML file. Raises BadInput, without quoting the file: it holds secrets."""
    from blocks.webhook_rules import WebhookRules

    try:
        content = YAML(typ="safe", pure=True).load(read_text(path))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the error's own text quotes the file, which holds secrets
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise BadInput(f"--rules {path}: not valid YAML{where}") from None
    if not isinstance(content, Mapping):
        raise BadInput(f"--rules {path}: no mapping of a Webhook Rules block's fields")
    try:
        return WebhookRules(**_with_instance(dict(content)))
    except (ValidationError, TypeError) as error:
        told = explain(error) if isinstance(error, ValidationError) else "its keys must be field names"
        raise BadInput(f"--rules {path}: {told}") from error


def _with_instance(content: dict[str, Any]) -> dict[str, Any]:
    """An instance may be named as a stored block."""
    from .sources import instance_block

    if isinstance(content.get("instance"), str):
        return {**content, "instance": instance_block(content["instance"])}
    return content
