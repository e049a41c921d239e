"""Where the passwords of registries come from."""

from __future__ import annotations

import base64
import json

import pytest
from pydantic import SecretStr

from blocks.docker_runtime import DockerRuntime
from blocks.runtime import ImageRefused
from blocks.secrets import StepSecrets
from flows.registry_passwords import NAME, with_registry_passwords
from tests.registry import Registry


def config(host: str, user: str, password: str) -> str:
    return json.dumps({"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}})


@pytest.mark.parametrize(
    ("own", "secret", "variable", "wins"),
    [
        ("own", "secret", "variable", "own"),
        (None, "secret", "variable", "secret"),
        (None, None, "variable", "variable"),
        (None, None, None, None),
    ],
)
def test_the_nearest_ones_win(
    monkeypatch: pytest.MonkeyPatch, own: str | None, secret: str | None, variable: str | None, wins: str | None
) -> None:
    """The engine's, then the run's, then the worker's; without any, Docker's own configuration is asked."""
    monkeypatch.delenv(NAME, raising=False)
    if variable:
        monkeypatch.setenv(NAME, variable)
    engine = DockerRuntime(registry_credentials=SecretStr(own) if own else None)

    found = with_registry_passwords(engine, StepSecrets(values={NAME: secret} if secret else {}))

    assert (found.registry_credentials and found.registry_credentials.get_secret_value()) == wins
    assert engine.registry_credentials == (SecretStr(own) if own else None)


@pytest.mark.docker
def test_a_run_that_brings_the_password_gets_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    with Registry(login=("me", "pass:word")) as registry:
        reference, digest = registry.publish("private/brought:1", marker="brought")
        engine = DockerRuntime(network="none")
        brought = StepSecrets(values={NAME: config(registry.address, "me", "pass:word")})

        with pytest.raises(ImageRefused, match="registry credentials"):
            with_registry_passwords(engine, None).resolve_image(reference)
        image = with_registry_passwords(engine, brought).resolve_image(reference)
        brought_runtime = with_registry_passwords(engine, brought)
        brought_runtime._connected().engine.api.remove_image(reference, force=True)

    assert image.digest == digest


def test_what_makes_no_sense_is_refused_without_showing_it() -> None:
    engine = with_registry_passwords(DockerRuntime(), StepSecrets(values={NAME: "s3cret"}))

    with pytest.raises(ImageRefused, match="registry credentials are not JSON") as caught:
        engine.resolve_image("alpine:3")

    assert "s3cret" not in str(caught.value)
