"""Memory and CPU of publishing many changesets: python -m tests.benchmarks.publishing [CHANGESETS].

On a fake GitHub in another process, with diffs of 100 kB. Prints the publisher's resident memory as it goes: it must
not grow with the number of changesets. The second pass finds everything as it should be.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from pydantic import SecretStr

from blocks.github_host import GitHub
from tests.code_hosts.running import TOKEN, running
from tests.proposals import Change, Office, diff_of, repository_on

REPOSITORIES = 20
DIFF_BYTES = 100_000
REPORTS = 10


def main(count: int = 1000) -> None:
    """Publish ``count`` changesets, twice."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        bases = {f"acme/app{number}": repository_on(root, f"acme/app{number}") for number in range(REPOSITORIES)}
        content = random.Random(1).randbytes(DIFF_BYTES // 2).hex()
        files = {"large.txt": "\n".join(content[at : at + 64] for at in range(0, len(content), 64))}
        diffs = {path: diff_of(root, path, base, files) for path, base in bases.items()}
        changes = [
            Change(path, base, branch=f"b{number}")
            for number in range(count // REPOSITORIES)
            for path, base in bases.items()
        ]
        with running("github", root) as host:
            client = GitHub(url=host.url, token=SecretStr(TOKEN), seconds_between_writes=0).connect()
            office = Office(Path(folder), root, host.names, [client])
            run = office.run(*changes, diffs=diffs)
            del changes
            for what in ("first", "again"):
                _measure(office, run, what)
            open_requests = len({(each["repository"], each["head"]) for each in host.changes(state="open")})
            sys.stdout.write(f"{open_requests} review requests, {len(host.changes())} of them in all\n")
            client.disconnect()


def _measure(office: Office, run: str, what: str) -> None:
    publisher = office.publisher(run)
    every = max(1, publisher.run.count // REPORTS)
    began, busy, done = time.monotonic(), _cpu_seconds(), 0
    for numbers in publisher.chunks():
        for outcome in publisher.publish(numbers):
            assert outcome.done in ("opened", "left"), outcome
            done += 1
            if done % every == 0:
                sys.stdout.write(f"{what}: {done:5} changesets, {_resident_megabytes():4.0f} MB resident\n")
                sys.stdout.flush()
    wall, cpu = time.monotonic() - began, _cpu_seconds() - busy
    sys.stdout.write(f"{what}: {wall:.0f} s, {1000 * cpu / done:.0f} ms of CPU a changeset (publisher and its git)\n")


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
