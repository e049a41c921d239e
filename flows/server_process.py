"""The local Prefect server's process: ``prefect server start``, with SQLite transactions that wait for each other.

Prefect begins most transactions as readers. One that writes later, after another one has written, fails at once with
"database is locked", however long SQLite was told to wait: the API answers 503, and a person who presses a button of
the dashboard while a run writes its events reads "Service Unavailable". Begun as writers, they queue.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class _QueueingSqlite(AioSqliteConfiguration):
    """SQLite as Prefect has it, but every transaction takes the write lock as it begins."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = True
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def main() -> None:
    """``server start ...``, as Prefect's own command reads it."""
    set_database_config(_QueueingSqlite(connection_url=PREFECT_API_DATABASE_CONNECTION_URL.value()))
    app()


if __name__ == "__main__":
    main()
