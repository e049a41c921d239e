"""What can stop a batch change, by who has to act.

    BatchError
    ├── PermanentError        the same input fails again: never retried
    │   ├── SpecError             the batch spec has faults (all of them listed); exit code 2
    │   ├── TemplateError         a ${{ }} does not parse or cannot be evaluated
    │   ├── ResolutionError       `on` or `workspaces` cannot be answered (all reasons listed); exit code 2
    │   ├── TimeIsUp              the workspace has taken all of its time
    │   ├── StepFailed            a step ended with a non-zero exit code, a timeout or out of memory
    │   └── ChangesetError        the changeset specs cannot be built
    ├── TemporaryError        the runtime, the store, the network: retried with backoff
    └── Stopped               somebody stopped the run before this had ended

A step's exit code is a value (``Exit``) until somebody has to be told: only then it becomes ``StepFailed``.
Everything else that is raised is a bug of ours. The errors survive pickling: all fields go to ``super().__init__``.
"""

from __future__ import annotations

from dataclasses import dataclass


class BatchError(Exception):
    """Anything that stops a batch change or a workspace and that we foresaw."""


class PermanentError(BatchError):
    """The same input would fail again."""


class TemporaryError(BatchError):
    """Trying again later may work."""


class TimeIsUp(PermanentError):
    """The workspace has taken all of its time before its next step could begin. ``seconds``: how long it may take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the workspace took longer than {self.seconds:g} s"


class Stopped(BatchError):
    """Somebody stopped the run before this had ended."""

    def __str__(self) -> str:
        return "Cancelled: the run was stopped."


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a batch spec.

    ``path`` is upstream's form (``steps.0.env``, empty for the whole document), ``line`` counts from 1.
    """

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(PermanentError):
    """The batch spec has faults. Carries every one of them."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"the batch spec is not valid: {self.faults[0]}"
        lines = "\n".join(f"  * {fault}" for fault in self.faults)
        return f"the batch spec has {len(self.faults)} faults:\n{lines}"


class TemplateError(PermanentError):
    """A template does not parse or cannot be evaluated. ``message`` follows Go's text/template."""

    def __init__(self, message: str, *, field: str = "", line: int = 1) -> None:
        super().__init__(message, field, line)
        self.message, self.field, self.line = message, field, line

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_template_error, (self.message, self.field, self.line)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def _rebuild_template_error(message: str, field: str, line: int) -> TemplateError:
    return TemplateError(message, field=field, line=line)


class ResolutionError(PermanentError):
    """`on` or `workspaces` cannot be answered. Carries every reason."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        if len(self.reasons) == 1:
            return self.reasons[0]
        lines = "\n".join(f"  * {reason}" for reason in self.reasons)
        return f"{len(self.reasons)} errors occurred:\n{lines}"


class ChangesetError(PermanentError):
    """The changeset specs cannot be built from the results."""
