"""What the webhook service asks Prefect for: a run of a deployment, once per delivery; the last run's batch spec."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

REQUEST_SECONDS = 10.0
_HEALTH_SECONDS = 3.0
_NAMESPACE = uuid5(NAMESPACE_URL, "batchwright:webhook")


class PrefectAway(Exception):
    """Prefect did not do it now, and may do it later: it is away, or has no such deployment yet."""


class RunRefused(Exception):
    """Prefect will not make a run with these parameters."""


@dataclass(frozen=True)
class Started:
    """A run. ``new``: this delivery made it; else an earlier one did."""

    deployment: str
    flow_run: str
    new: bool


class Runs:
    """Runs of deployments on the Prefect server that this process is pointed to. For any thread."""

    def __init__(self) -> None:
        self._client: SyncPrefectClient = get_client(sync_client=True, httpx_settings={"timeout": REQUEST_SECONDS})
        self._asked_at, self._reachable = float("-inf"), False

    def start(self, deployment: str, parameters: Mapping[str, Any], *, key: str, tags: Sequence[str] = ()) -> Started:
        """Have a run of a deployment; the same one for the same key. Raises PrefectAway, RunRefused."""
        with _understood(f"deployment {deployment}"):
            # Prefect keeps keys per flow: two deployments of one flow need two.
            answer = self._client.request(
                "POST",
                "/deployments/{id}/create_flow_run",
                path_params={"id": self._deployment_id(deployment)},
                json={"parameters": dict(parameters), "idempotency_key": f"{deployment}:{key}", "tags": list(tags)},
            )
        return Started(deployment, answer.json()["id"], answer.status_code == 201)

    def last_tags(self, deployment: str, *tags: str) -> frozenset[str]:
        """The tags of the deployment's last run that has these; none if there is no such run. Raises PrefectAway."""
        with _understood("runs"):
            answer = self._client.request(
                "POST",
                "/flow_runs/filter",
                json={
                    "flow_runs": {"tags": {"all_": list(tags)}},
                    "deployments": {"id": {"any_": [str(self._deployment_id(deployment))]}},
                    "sort": "EXPECTED_START_TIME_DESC",
                    "limit": 1,
                },
            )
        found = answer.json()
        return frozenset(found[0]["tags"]) if found else frozenset()

    def emit(self, event: str, resource: str, payload: Mapping[str, Any], *, key: str) -> None:
        """Emit an event for automations; Prefect forgets a repeated one for some minutes. Raises PrefectAway."""
        with _understood("events"):
            self._client.request(
                "POST",
                "/events",
                json=[
                    {
                        "id": str(uuid5(_NAMESPACE, f"{resource}:{event}:{key}")),
                        "occurred": datetime.now(UTC).isoformat(),
                        "event": event,
                        "resource": {"prefect.resource.id": resource},
                        "payload": dict(payload),
                    }
                ],
            )

    def is_reachable(self) -> bool:
        """Whether Prefect answers; asked every few seconds at most, whoever wants to know."""
        if time.monotonic() - self._asked_at > _HEALTH_SECONDS:
            try:
                with _understood("health"):
                    self._client.request("GET", "/health")
                self._reachable = True
            except (PrefectAway, RunRefused):
                self._reachable = False
            self._asked_at = time.monotonic()
        return self._reachable

    def _deployment_id(self, name: str) -> UUID:
        return self._client.read_deployment_by_name(name).id


@contextmanager
def _understood(what: str) -> Iterator[None]:
    try:
        yield
    except ObjectNotFound as error:
        raise PrefectAway(f"{what}: Prefect has none of this name") from error
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        if status in (409, 422):
            raise RunRefused(f"{what}: Prefect refuses the parameters (status {status})") from error
        raise PrefectAway(f"{what}: Prefect answers with status {status}") from error
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        raise PrefectAway(f"{what}: Prefect does not answer ({type(error).__name__})") from error
