"""Why a job has to stop before its end: said once, by whoever comes first."""

from __future__ import annotations

from enum import Enum
from threading import Event, Lock


class Reason(Enum):
    """Who stopped a job."""

    CANCELED = "the instance canceled the job"
    IN_DASHBOARD = "the job was cancelled in the dashboard of Prefect"
    TIME_IS_OVER = "job exceeded maximum execution time"
    LOST = "the instance took the job away"
    GIVEN_BACK = "the executor is shutting down and gives the job back"

    @property
    def is_still_ours(self) -> bool:
        """Whether the instance waits for us to say how the job ended."""
        return self not in (Reason.LOST, Reason.GIVEN_BACK)


class Stopping:
    """One job's order to stop. ``cancel`` is what the runtime and git look at."""

    def __init__(self) -> None:
        self.cancel = Event()
        self.silence = Event()
        """Set with the orders after which nothing more is told to the instance."""
        self._reason: Reason | None = None
        self._lock = Lock()

    def order(self, reason: Reason) -> None:
        """Stop the job. The first reason stays, but for a job that is not ours any more."""
        with self._lock:
            if self._reason is None or (self._reason.is_still_ours and not reason.is_still_ours):
                self._reason = reason
        if not reason.is_still_ours:
            self.silence.set()
        self.cancel.set()

    @property
    def reason(self) -> Reason | None:
        """Why the job has to stop; None: it need not. An order by nobody else came from the dashboard."""
        if self._reason is None and self.cancel.is_set():
            return Reason.IN_DASHBOARD
        return self._reason
