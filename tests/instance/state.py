"""What the instance remembers: an SQLite database and a folder of bare repositories. It outlives kill -9."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY, username TEXT NOT NULL UNIQUE, email TEXT NOT NULL, site_admin INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS organizations (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS members (
    organization_id INTEGER NOT NULL REFERENCES organizations, user_id INTEGER NOT NULL REFERENCES users,
    PRIMARY KEY (organization_id, user_id));
CREATE TABLE IF NOT EXISTS access_tokens (sha256 TEXT PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users);
CREATE TABLE IF NOT EXISTS repositories (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, service_type TEXT NOT NULL, private INTEGER NOT NULL,
    cloned INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS permissions (
    repository_id INTEGER NOT NULL REFERENCES repositories, user_id INTEGER NOT NULL REFERENCES users,
    PRIMARY KEY (repository_id, user_id));
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, every INTEGER NOT NULL,
    times INTEGER, status INTEGER NOT NULL, headers TEXT NOT NULL, body TEXT NOT NULL, seconds REAL NOT NULL,
    seen INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, method TEXT NOT NULL, path TEXT NOT NULL, headers TEXT NOT NULL, status INTEGER,
    fault TEXT);
"""


class Instance:
    """The state in ``folder``. ``with instance.transaction() as db`` is atomic and alone."""

    def __init__(self, folder: Path, external_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.external_url = folder, external_url
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(folder / "state.db", check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self.create(_SCHEMA)

    def create(self, schema: str) -> None:
        """Add tables (`CREATE TABLE IF NOT EXISTS`)."""
        with self._lock:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def setting(self, name: str) -> str | None:
        """A setting of the site configuration, like ``executors.accessToken``."""
        with self.transaction() as db:
            row = db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return row["value"] if row else None

    def repository_folder(self, name: str) -> Path:
        """Where the bare repository of this name is, or will be."""
        return self.folder / "repositories" / f"{name}.git"


def now() -> str:
    """The time as the instance writes it (RFC 3339, UTC, seconds)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
