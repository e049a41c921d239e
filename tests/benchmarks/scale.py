"""What Prefect costs per workspace: many trivial workspaces through a real server on PostgreSQL, on a real worker.

    python -m tests.benchmarks.scale --workspaces 1000

No container runs (scale_flows.py), and as many workspaces are run once without Prefect, in as many processes at a time:
the difference, in CPU seconds of server, database, worker and flow runs together, is what the orchestration costs.
What the workspaces write is kept in memory: ext4 looks through the inodes that were freed in the last seconds before it
gives out one, which costs more the faster files come and go, and would be most of what is measured.
Needs root and PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.folder import FolderStore
from blocks.repositories import RepositoryFolder
from flows import deployments
from flows.batches.loading import load_spec
from flows.ledger import Ledger
from flows.runs import BatchRun, run_id_of
from flows.server import SERVER_SETTINGS
from flows.shares import Options, Surroundings
from tests.gitrepos import make_repository
from tests.harness import Api

TICKS = os.sysconf("SC_CLK_TCK")
STEPS = 3
SPEC = """\
name: scale
on: [{repository: acme/all}]
workspaces: [{rootAtLocationOf: here, in: acme/all}]
steps:
  - {run: write one 1, container: "image:1"}
  - {run: write two 2, container: "image:1"}
  - {run: write three 3, container: "image:1"}
changesetTemplate: {title: T, branch: "b/${{ steps.path }}", commit: {message: M}}
"""


@dataclass
class Tree:
    """A process with all that it has started: CPU seconds of the living and the dead, peak memory of the living."""

    pid: int
    peak_mb: dict[str, int] = field(default_factory=dict)

    def cpu(self) -> float:
        return sum(_times(pid) for pid in self.pids())

    def pids(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found, left = [], [self.pid]
        while left:
            found.append(left.pop())
            left.extend(children.get(found[-1], ()))
        return found

    def look(self) -> int:
        """Note how much memory the largest process and all together hold; returns the latter, in MB."""
        sizes = [size for pid in self.pids() if (size := _memory_mb(pid))]
        self.peak_mb["all"] = max(self.peak_mb.get("all", 0), sum(sizes))
        self.peak_mb["one"] = max(self.peak_mb.get("one", 0), max(sizes, default=0))
        return sum(sizes)


def _times(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def _memory_mb(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 >> 20
    except (OSError, IndexError):
        return 0


@contextmanager
def database(folder: Path) -> Iterator[tuple[str, Tree]]:
    """A PostgreSQL of our own: its address for Prefect, its processes."""
    (binaries,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    folder.mkdir()
    subprocess.run(("chown", "postgres", folder), check=True)
    as_postgres = ("runuser", "-u", "postgres", "--")
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run((*as_postgres, binaries / "initdb", "-D", folder / "data", "-A", "trust", "-U", "prefect"), **quiet)
    options = f"-p 5544 -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    control = (*as_postgres, binaries / "pg_ctl", "-D", folder / "data", "-w")
    subprocess.run((*control, "-o", options, "-l", folder / "log", "start"), **quiet)
    try:
        subprocess.run((binaries / "createdb", "-h", folder, "-p", "5544", "-U", "prefect", "prefect"), **quiet)
        pid = int((folder / "data/postmaster.pid").read_text().split()[0])
        yield "postgresql+asyncpg://prefect@127.0.0.1:5544/prefect", Tree(pid)
    finally:
        subprocess.run((*control, "-m", "fast", "stop"), **quiet)


@contextmanager
def server(folder: Path, database_url: str, more: Mapping[str, str]) -> Iterator[tuple[str, Tree]]:
    """A Prefect server as infra/compose.yaml has it: the address of its API, its processes."""
    folder.mkdir()
    url = "http://127.0.0.1:4299/api"
    environment = {
        **os.environ,
        **SERVER_SETTINGS,
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": url,
        "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
        **more,
    }
    with (folder / "log").open("wb") as log:
        command = (sys.executable, "-m", "prefect", "server", "start", "--port", "4299")
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _await(lambda: urllib.request.urlopen(f"{url}/health", timeout=5).read() == b"true")
        yield url, Tree(process.pid)
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def worker(folder: Path, api_url: str, limit: int) -> Iterator[Tree]:
    """A worker as `batchwright worker` starts it."""
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PREFECT_API_URL": api_url,
        "BATCHWRIGHT_HOME": str(folder),
        "PREFECT_HOME": str(folder),
    }
    command = (sys.executable, "-m", "flows.worker_process", "scale", "batchwright", str(limit))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield Tree(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _await(true: Any, seconds: float = 240, interval: float = 0.3) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(interval)


def repositories(folder: Path, workspaces: int) -> RepositoryFolder:
    """One repository with a folder for each workspace."""
    make_repository(folder / "acme/all", {f"p{number:05}/here": f"{number}\n" for number in range(workspaces)})
    return RepositoryFolder(folder=str(folder))


def without_prefect(folder: Path, workspaces: int, at_once: int, processes: int) -> float:
    """CPU seconds of the same workspaces without Prefect, in as many processes at a time as the worker has slots."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        share = -(-workspaces // processes)
        sources = [repositories(folder / f"src{number}", share) for number in range(processes)]
        homes = [folder / f"home{number}" for number in range(processes)]
        spent = list(pool.map(_without_prefect, homes, sources, repeat(at_once)))
    return sum(spent) * workspaces / (share * processes)


def _without_prefect(folder: Path, source: RepositoryFolder, at_once: int) -> float:
    from tests.benchmarks.scale_flows import NoEngine

    around = Surroundings(source, NoEngine(), FolderStore(folder / "store"), folder / "home")
    before = sum(os.times()[:4])  # of this process and of its children that ended
    with BatchRun("bare", SPEC, load_spec(SPEC), Options(workspaces_at_once=at_once), around) as run:
        run.find_workspaces()
        run.begin()
        run.run_workspaces(run.run_workspace)
        manifest = run.finish()
    assert manifest.state == "completed", manifest.headline
    return sum(os.times()[:4]) - before


def register(api_url: str) -> None:
    """The deployments of infra/prefect.yaml, with the flows of scale_flows.py."""
    found = {each.name: each for each in deployments.read_deployments(Path("infra/prefect.yaml"))}
    renamed = [
        found[name].model_copy(update={"entrypoint": f"tests.benchmarks.scale_flows.{name.replace('-', '_')}"})
        for name in ("batch-change", "workspace-shard")
    ]
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        for _ in deployments.register(client, deployments.Plan(renamed, [], [], SPEC)):
            pass


@dataclass
class Watch:
    """Looks at processes every two seconds."""

    trees: Mapping[str, Tree]
    seen: list[dict[str, int]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(2):
            self.seen.append({name: tree.look() for name, tree in self.trees.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspaces", type=int, default=1000)
    parser.add_argument("--per-shard", type=int, help="workspaces of a shard; else as many as the product chooses")
    parser.add_argument("--at-once", type=int, default=4, help="workspaces of a shard at a time")
    parser.add_argument("--limit", type=int, default=2, help="shards of the worker at a time")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder, disk = (
            Path(stack.enter_context(TemporaryDirectory(prefix="scale-", dir=place)))
            for place in ("/dev/shm", "/var/tmp")
        )
        disk.chmod(0o755)
        source = repositories(folder / "src", asked.workspaces)
        bare = without_prefect(folder / "bare", asked.workspaces, asked.at_once, asked.limit)
        url, postgres = stack.enter_context(database(disk / "database"))
        more = dict(each.split("=", 1) for each in asked.set)
        api_url, prefect = stack.enter_context(server(folder / "prefect", url, more))
        register(api_url)
        machine = stack.enter_context(worker(folder / "worker", api_url, asked.limit))
        trees = {"server": prefect, "database": postgres, "worker and flow runs": machine}
        time.sleep(10)  # until all have settled
        before, began = {name: tree.cpu() for name, tree in trees.items()}, time.monotonic()
        with Watch(trees) as watch:
            run = _run(api_url, folder, source, asked)
            seconds = time.monotonic() - began
            _await(lambda: _drained(api_url), 120)
        spent = {name: tree.cpu() - before[name] for name, tree in trees.items()}
        _report(asked, bare, spent, watch, seconds)
        _report_records(api_url, folder, run, asked.workspaces)


def _run(api_url: str, folder: Path, source: RepositoryFolder, asked: argparse.Namespace) -> dict[str, Any]:
    with urllib.request.urlopen(f"{api_url}/deployments/name/batch-change/batch-change") as answer:
        deployment = json.loads(answer.read())["id"]
    parameters = {
        "spec": SPEC,
        "repositories": {"folder": source.folder},
        "engine": {"docker_host": None},
        "artifacts": {"folder": str(folder / "store")},
        "options": {"workspaces_per_shard": asked.per_shard, "workspaces_at_once": asked.at_once},
    }
    api = Api(api_url)
    run = api.post(f"deployments/{deployment}/create_flow_run", {"parameters": parameters})

    def state() -> dict[str, Any]:
        (found,) = api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        return dict(found)

    _await(lambda: state()["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), 7200, interval=3)
    return state()


def _drained(api_url: str) -> bool:
    """Whether the server has written down all that it was told."""
    counts = []
    for _ in range(2):
        counts.append(Api(api_url).post("task_runs/count", {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}))
        time.sleep(3)
    return counts[0] == counts[1]


def _report(asked: argparse.Namespace, bare: float, spent: Mapping[str, float], watch: Watch, seconds: float) -> None:
    total, count = sum(spent.values()), asked.workspaces
    shards = f"{asked.per_shard} per shard" if asked.per_shard else "shards as the product chooses"
    print(f"{count} workspaces, {STEPS} steps each, {shards}, {seconds:.0f} s of wall time")
    for name, cpu in spent.items():
        print(f"  {name:<22} {cpu:8.1f} CPU-s  {1000 * cpu / count:7.1f} ms per workspace")
    print(f"  {'together':<22} {total:8.1f} CPU-s  {1000 * total / count:7.1f} ms per workspace")
    print(f"  {'without Prefect':<22} {bare:8.1f} CPU-s  {1000 * bare / count:7.1f} ms per workspace")
    print(f"  {'orchestration':<22} {total - bare:8.1f} CPU-s  {1000 * (total - bare) / count:7.1f} ms per workspace")
    for name, tree in watch.trees.items():
        quarter = [look[name] for look in watch.seen[len(watch.seen) // 4 :]]
        print(
            f"  {name:<22} largest process {tree.peak_mb['one']} MB, together at most {tree.peak_mb['all']} MB; "
            f"after a quarter {quarter[0]} MB, at the end {quarter[-1]} MB"
        )


def _report_records(api_url: str, folder: Path, run: dict[str, Any], workspaces: int) -> None:
    api, store = Api(api_url), FolderStore(folder / "store")
    manifest = Ledger(store, run_id_of("scale", run["id"])).manifest()
    completed = sum(result.state == "completed" for result in manifest.workspaces)
    kept = sum(1 for _ in store.list_keys(f"runs/{manifest.run_id}/workspaces/"))
    ended = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    specs = manifest.changeset_specs
    print(f"  ledger: {kept} of {workspaces} workspaces, {completed} completed, {specs} changeset specs")
    print(f"  Prefect: {api.post('task_runs/count', ended)} of {api.post('task_runs/count', {})} task runs completed,")
    print(f"           {api.post('flow_runs/count', {})} flow runs; the run: {run['state']['message']}")


if __name__ == "__main__":
    main()
