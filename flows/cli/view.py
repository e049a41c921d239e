"""`batchwright view`: reports, diffs and logs of runs for browsers, read-only."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

import typer

from .. import settings
from .console import errors, output
from .deploy import find_server
from .errors import BadInput


def register(app: typer.Typer) -> None:
    app.command()(view)


def view(
    host: Annotated[
        str, typer.Option(help="The address to listen on. Another than this machine's own needs --url.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 4201,
    url: Annotated[
        str | None,
        typer.Option(
            help="The address under which browsers reach it, through a proxy for instance.", show_default=False
        ),
    ] = None,
) -> None:
    """Serve the reports of runs, in the foreground; `batchwright up` starts one by itself.

    For the stores that are blocks of the Prefect server of PREFECT_API_URL, and with its password (of
    PREFECT_API_AUTH_STRING), if it has one. Tell the workers the address with BATCHWRIGHT_VIEW_URL.
    """
    if url is None and not _is_own(host):
        raise BadInput(f"--host {host}: others can reach this; say with --url under which address")
    find_server()
    settings.quiet_prefect()
    from prefect.settings import get_current_settings

    from ..view import block_store, serve

    password = get_current_settings().api.auth_string
    names = [urlsplit(url).netloc] if url else []
    try:
        server = serve(host, port, block_store, names=names, auth=password.get_secret_value() if password else None)
    except OSError as error:
        raise BadInput(f"--host {host} --port {port}: {error.strerror}; choose another one") from error
    output.print(f"view       {url or f'http://{host}:{server.server_port}'}", markup=False, soft_wrap=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    errors.print("stopped")


def _is_own(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
