"""What went wrong with many things, told together; temporary only if all of it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .batches.errors import BatchError, ResolutionError, Stopped, TemporaryError


class Faults:
    """What went wrong so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._all_temporary = True

    def add(self, text: str, *, temporary: bool) -> None:
        self._texts.append(text)
        self._all_temporary = self._all_temporary and temporary

    @contextmanager
    def collected(self, where: str = "") -> Iterator[None]:
        """Note what the body raises, of the errors that we foresaw."""
        try:
            yield
        except ResolutionError as error:
            for reason in error.reasons:
                self.add(f"{where}{reason}", temporary=False)
        except Stopped:
            raise
        except BatchError as error:
            self.add(f"{where}{error}", temporary=isinstance(error, TemporaryError))

    def raise_if_any(self) -> None:
        """ResolutionError with all of it, or TemporaryError when nothing of it is there to stay."""
        if self._texts and self._all_temporary:
            raise TemporaryError("\n".join(self._texts))
        if self._texts:
            raise ResolutionError(tuple(self._texts))
