"""Secrets for steps, as a Prefect block: named values, encrypted by Prefect's server."""

from __future__ import annotations

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field


class StepSecrets(Block):
    """Keep values that the steps of batch changes may ask for by name, and that nobody may read.

    A step gets the ones that its `env` names without a value, and no others. They are masked in logs, in stored output
    and in records; a diff that contains one stops its workspace. Values of less than 4 characters are not looked for:
    they are part of any text.

    DOCKER_AUTH_CONFIG, if it is here, is the Docker configuration with the passwords of registries for this run.

    Example:
        ```python
        from blocks.secrets import StepSecrets

        secrets = StepSecrets.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Step Secrets"
    _block_type_slug = "step-secrets"
    _description = "Keep values that the steps of batch changes may ask for by name, and that nobody may read."

    values: SecretDict = Field(
        default_factory=lambda: SecretDict({}),
        description="The values by name. A name is what a step writes in its `env`.",
    )

    def by_name(self) -> dict[str, str]:
        """The values in clear. For who runs the steps."""
        return {name: str(value) for name, value in self.values.get_secret_value().items()}
