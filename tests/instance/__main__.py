"""`python -m tests.instance --folder FOLDER --port PORT`: a fake Sourcegraph instance, in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from .app import create_app
from .state import Instance


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.instance", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="state: a database, repositories, files")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, help="PEM file; serve https")
    parser.add_argument("--key", type=Path, help="of the certificate")
    parser.add_argument("--admin-token", required=True, help="opens the tests' own channel, /.admin/")
    asked = parser.parse_args()
    scheme = "https" if asked.certificate else "http"
    app = create_app(Instance(asked.folder, external_url=f"{scheme}://127.0.0.1:{asked.port}"), asked.admin_token)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=asked.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
        ssl_certfile=asked.certificate,
        ssl_keyfile=asked.key,
    )


main()
