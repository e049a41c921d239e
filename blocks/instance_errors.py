"""What a Sourcegraph instance did not do, by who has to act. No Prefect, no httpx."""

from __future__ import annotations


class InstanceTrouble(Exception):
    """The instance did not do what was asked. ``temporary`` says whether another try may work."""

    temporary = False

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where, self.what = where, what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class InstanceUnavailable(InstanceTrouble):
    """It does not answer or failed by itself, and went on doing so through our retries."""

    temporary = True

    def __init__(self, where: str, what: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(where, what)
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[object, ...]:
        return InstanceUnavailable, (self.where, self.what, self.retry_after_seconds)


class InstanceForbidden(InstanceTrouble):
    """The token is not known, or its user may not do this."""


class InstanceMissing(InstanceTrouble):
    """There is no such thing, or not for this user."""


class InstanceRefused(InstanceTrouble):
    """The instance does not take what it was sent."""


class InstanceWaitStopped(InstanceTrouble):
    """Somebody stopped us while we waited for the instance."""

    def __init__(self, where: str) -> None:
        super().__init__(where, "stopped while waiting for it")

    def __reduce__(self) -> tuple[object, ...]:
        return InstanceWaitStopped, (self.where,)
