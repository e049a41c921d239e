"""How git gets into a repository: credentials, proxy and certificates, for one command at a time.

Nothing of it is on a command line or stays on a disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.sources import DEFAULT_USERNAME, RepositoryLocation

from .scratch import scratch_folder

# Git asks this helper for a user and a password when, and only when, the host of the address demands them. The helper
# is settings and environment of one git process: nothing of it is on a command line or on a disk.
_CREDENTIAL_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$BATCHWRIGHT_USERNAME" "$BATCHWRIGHT_TOKEN"; }; f'
)


@contextmanager
def access(location: RepositoryLocation, folder: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Environment, open and secret, with which git gets into a repository. ``folder``: where a key may be for a while.

    A proxy's address may hold a password, so it is among the secrets.
    """
    credentials = location.credentials
    if location.url.startswith(("https://", "http://")):
        yield _over_http(location)
    elif credentials.ssh_key is not None or credentials.known_hosts:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder) as scratch:
            key = credentials.ssh_key.get_secret_value() if credentials.ssh_key else ""
            yield {"GIT_SSH_COMMAND": _ssh_command(scratch, key, credentials.known_hosts)}, {}
    else:
        yield {}, {}


def _over_http(location: RepositoryLocation) -> tuple[dict[str, str], dict[str, str]]:
    credentials, route = location.credentials, location.route
    settings: dict[str, str] = {}
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    if credentials.token is not None:
        settings[f"credential.{_origin(location.url)}.helper"] = _CREDENTIAL_HELPER
        env["BATCHWRIGHT_USERNAME"] = credentials.username or DEFAULT_USERNAME
        secrets["BATCHWRIGHT_TOKEN"] = credentials.token.get_secret_value()
    if not route.verify:
        settings["http.sslVerify"] = "false"
    elif route.ca_bundle:
        env["GIT_SSL_CAINFO"] = route.ca_bundle  # the setting http.sslCAInfo loses against the worker's own variable
    if route.proxy is not None:
        # Settings are open; git takes a proxy from this variable, too, and so it is masked in errors.
        secrets["https_proxy" if location.url.startswith("https:") else "http_proxy"] = route.proxy.get_secret_value()
        env["no_proxy"] = ""
    if credentials.headers:
        settings["http.followRedirects"] = "false"  # git would take the headers along to wherever it is sent
    for number, (name, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    for number, (name, secret) in enumerate(credentials.headers.items(), len(settings)):
        env[f"GIT_CONFIG_KEY_{number}"] = f"http.{_origin(location.url)}.extraHeader"
        secrets[f"GIT_CONFIG_VALUE_{number}"] = f"{name}: {secret.get_secret_value()}"
    if count := len(settings) + len(credentials.headers):
        env["GIT_CONFIG_COUNT"] = str(count)
    return env, secrets


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _ssh_command(folder: Path, key: str, known_hosts: str) -> str:
    """ssh with a key and known hosts from files that only we can read, and that are gone after the command."""
    command = "ssh -o BatchMode=yes -o ConnectTimeout=30"
    if key:
        command += f" -i '{_private_file(folder / 'key', key.strip() + chr(10))}' -o IdentitiesOnly=yes"
    if known_hosts:
        file = _private_file(folder / "known_hosts", known_hosts.strip() + "\n")
        command += f" -o UserKnownHostsFile='{file}' -o StrictHostKeyChecking=yes"
    return command


def _private_file(path: Path, content: str) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    return path
