"""A job's log entries, brought to the instance while they grow. Results ride in them: nothing that counts may get lost.

A sender of its own keeps the entries' order. An entry is sent whole when it has changed, at most once a second, and
less often when it is large: the interface knows no appending.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from threading import Event, Lock, Thread
from typing import Any, Protocol

from blocks.queue_client import JobGone, QueueTrouble

from ..batches.events import STDERR, STDOUT, go_time
from ..batches.masking import Masker
from .bounded_text import BoundedText

log = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
CHARACTERS_A_SECOND = 256 * 1024
"""How fast large entries are sent again, about."""

_LEFT_OUT = f"{STDOUT}(... {{}} lines left out ...)\n"


class Sender(Protocol):
    """The part of ``blocks.queue_client.JobClient`` that takes log entries."""

    def add_log_entry(self, entry: Mapping[str, Any]) -> int: ...

    def update_log_entry(self, number: int, entry: Mapping[str, Any]) -> None: ...


class LogEntry:
    """One entry. Safe to write to from threads; close it with the command's exit code."""

    def __init__(self, key: str, command: Sequence[str], masker: Masker) -> None:
        self.key = key
        self.number: int | None = None
        """The instance's, from 1, once it was added."""
        self._command, self._masker = list(command), masker
        self._began, self._began_at = time.monotonic(), time.time()
        self._text, self._lock = BoundedText(), Lock()
        self._end: dict[str, int] = {}
        self._changed = True

    def lines(self, text: str, *, keep: bool = False) -> None:
        """Add lines as they are, each ended by a newline and masked by who wrote them."""
        with self._lock:
            self._text.add(text, keep=keep)
            self._changed = True

    def say(self, text: str, *, prefix: str = STDOUT) -> None:
        """Add something for people; secrets in it are masked."""
        if shown := self._masker.mask_text(text).rstrip("\n"):
            self.lines("".join(f"{prefix}{line}\n" for line in shown.split("\n")))

    def reopen(self) -> None:
        """The command is tried again."""
        self.say("trying again")
        with self._lock:
            self._end = {}

    def close(self, exit_code: int) -> None:
        with self._lock:
            self._end = {"exitCode": exit_code, "durationMs": round((time.monotonic() - self._began) * 1000)}
            self._changed = True

    def take_changed(self) -> dict[str, Any] | None:
        """The entry as it is sent, if it has changed since the last time; it then counts as sent."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            seconds, fraction = divmod(self._began_at, 1)
            return {
                "key": self.key,
                "command": self._command,
                "startTime": go_time(int(seconds), int(fraction * 1000) * 1_000_000),
                "out": self._text.render(_LEFT_OUT),
                **self._end,
            }

    def not_sent(self) -> None:
        """What was taken did not arrive: it is to be taken again."""
        with self._lock:
            self._changed = True


class JobLog:
    """The entries of one job. ``lost`` is called, once, when the instance says that the job is not ours any more."""

    def __init__(
        self, sender: Sender, masker: Masker, lost: Callable[[], object], *, sync_seconds: float = SYNC_SECONDS
    ) -> None:
        self._sender, self._masker, self._lost, self._sync_seconds = sender, masker, lost, sync_seconds
        self._entries: list[LogEntry] = []
        self._highest = 0
        self._spare: list[int] = []
        self._sending, self._ended = Lock(), Event()
        self._pause_seconds = sync_seconds
        self._thread = Thread(target=copy_context().run, args=(self._keep_sending,), name="job-log", daemon=True)
        self._thread.start()

    def open(self, key: str, command: Sequence[str] = ()) -> LogEntry:
        """The entry of this key: a new one, behind all others; or the one that is there, for another try."""
        for entry in self._entries:
            if entry.key == key:
                entry.reopen()
                return entry
        entry = LogEntry(key, [self._masker.mask_text(part) for part in command], self._masker)
        self._entries.append(entry)
        return entry

    def finish(self) -> None:
        """Send what is left. Raises JobGone, QueueUnavailable, QueueRefused: then the instance lacks something."""
        self.stop()
        self._send_all()
        if self._spare:  # what was sent last was added twice, and nothing comes that could take its place
            self.open("teardown.sent-again").close(0)
            self._send_all()

    def stop(self) -> None:
        """Send nothing more. May be called more than once."""
        self._ended.set()
        self._thread.join()

    def _keep_sending(self) -> None:
        while not self._ended.wait(self._pause_seconds):
            try:
                self._send_all()
            except JobGone as gone:
                log.warning("%s", gone)
                self._lost()
                return
            except QueueTrouble as trouble:
                log.warning("log entries wait to be sent: %s", trouble)
            except Exception:
                # Results ride in entries: who sends them must go on.
                log.exception("log entries wait to be sent, for a reason that nobody foresaw")

    def _send_all(self) -> None:
        with self._sending:
            size = 0
            for entry in list(self._entries):
                content = entry.take_changed()
                if content is None:
                    continue
                size += len(content["out"])
                try:
                    self._send(entry, content)
                except Exception:
                    entry.not_sent()
                    raise
            self._pause_seconds = max(self._sync_seconds, size / CHARACTERS_A_SECOND)

    def _send(self, entry: LogEntry, content: Mapping[str, Any]) -> None:
        if entry.number is None and self._spare:
            entry.number = self._spare.pop(0)
        if entry.number is not None:
            self._sender.update_log_entry(entry.number, content)
            return
        number = self._sender.add_log_entry(content)
        # Numbers have no gaps: where they do, entries were added whose answers got lost. The first of them becomes this
        # one, and the others are kept for the entries to come.
        first = self._highest + 1
        entry.number, self._spare = min(first, number), list(range(first + 1, number + 1))
        self._highest = number
        if first < number:
            self._sender.update_log_entry(first, content)


def show_error(entry: LogEntry, message: str) -> None:
    """What went wrong, as a program would say it."""
    entry.say(message, prefix=STDERR)
