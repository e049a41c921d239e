"""GitHub's interface by somebody else (`myworld`), in a process of its own; it ends with its stdin.

Usage: python -m tests.code_hosts.replica FOLDER. Prints one line: the proxy that leads there, and a token. The
certificate of the proxy's authority is FOLDER/replica.pem.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from myworld.api.http import mint
from myworld.gateway import Gateway
from myworld.host import Host

_folder = Path(sys.argv[1])
_host = Host()
_instance = _host.create("github")
_gateway = Gateway(_host, ca_dir=_folder / "authority", passthrough=False).start()
(_folder / "replica.pem").write_text(_gateway.ca.pem)
print(_gateway.url, mint(_host.gateway_secret, instance=_instance.id, kind="github"), flush=True)
sys.stdin.read()
os._exit(0)
