"""The block that says which instance's executor queue to work off."""

from __future__ import annotations

import re

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr, field_validator

from blocks.queue_client import Executor, QueueClient

BATCHES = "batches"


class ExecutorQueue(Block):
    """Work off the executor queue of a Sourcegraph instance, as its own executors do.

    Only the queue `batches` can be worked off: code intelligence and changeset hooks need upstream's executor.

    Example:
        ```python
        from blocks.executor_queue import ExecutorQueue

        queue = ExecutorQueue.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Executor Queue"
    _block_type_slug = "executor-queue"
    _description = "Work off the executor queue of a Sourcegraph instance."
    _documentation_url = HttpUrl("https://sourcegraph.com/docs/self-hosted/executors")

    url: str = Field(description="The instance's address, such as https://sourcegraph.example.com.")
    access_token: SecretStr = Field(description="The site configuration's executors.accessToken.")
    queue_names: list[str] = Field(
        default_factory=list,
        description="Use the routes for several queues, with these names. If empty: those of the queue batches.",
    )
    executor_version: str = Field(
        default="0.0.0+dev",
        description="The version that the instance is told. It decides how jobs are sent: 4.3.0 and later, and the "
        "default, get the newer form.",
    )

    @field_validator("url")
    @classmethod
    def _url_is_an_address(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must be an http:// or https:// address, without user and password")
        return value.rstrip("/")

    @field_validator("queue_names")
    @classmethod
    def _queues_can_be_worked_off(cls, value: list[str]) -> list[str]:
        if other := [name for name in value if name != BATCHES]:
            raise ValueError(f"the queue {other[0]!r} needs upstream's executor; this one works off {BATCHES!r} only")
        return value

    def connect(self, executor: Executor) -> QueueClient:
        """A client that calls itself ``executor``."""
        return QueueClient(self.url, self.access_token, executor, queue=BATCHES, queues=tuple(self.queue_names))
