"""What the webhook service counts, as Prometheus reads it. No label comes from who is not known to us."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OTHER = "other"
"""Instead of senders and events that no rule names: anybody could make up as many as memory holds."""


class Metrics:
    """The service's own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._deliveries = Counter(
            "batchwright_webhook_deliveries",
            "Deliveries by sender, event and what became of them.",
            ("sender", "event", "outcome"),
            registry=self._registry,
        )
        self._runs = Counter(
            "batchwright_webhook_runs", "Flow runs started.", ("sender", "deployment"), registry=self._registry
        )
        self._seconds = Histogram(
            "batchwright_webhook_seconds", "From the whole request to its answer.", registry=self._registry
        )
        self._prefect = Gauge(
            "batchwright_webhook_prefect_up",
            "Whether Prefect answered when it was asked last.",
            registry=self._registry,
        )

    def delivered(self, sender: str, event: str, outcome: str, seconds: float) -> None:
        """One delivery was answered."""
        self._deliveries.labels(sender, event, outcome).inc()
        self._seconds.observe(seconds)

    def started(self, sender: str, deployment: str) -> None:
        """One flow run was made."""
        self._runs.labels(sender, deployment).inc()

    def prefect_is(self, up: bool) -> None:
        """Prefect answered, or it did not."""
        self._prefect.set(int(up))

    def text(self) -> bytes:
        """The text exposition."""
        return generate_latest(self._registry)


def known(event: str, events: Collection[str]) -> str:
    """An event as a label: its name if a rule names it."""
    return event if event in events else OTHER
