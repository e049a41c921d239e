"""The files that come with a job, put where its steps' mounts are looked up."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from blocks.queue_client import JobClient

from ..batches.jobs import Job, JobFile, JobRefused


def write_files(job: Job, below: str, folder: Path, client: JobClient) -> list[str]:
    """Write those of the job's files that lie below the folder ``below`` into ``folder``; returns their paths there.

    Each gets the time that the instance has for it: upstream's cache keys cover it. Raises the queue's errors.
    """
    written = []
    for path, file in sorted(job.files.items()):
        if PurePosixPath(path).is_relative_to(below) and path != below:
            relative = PurePosixPath(path).relative_to(below)
            _write(file, folder / relative, client)
            written.append(str(relative))
    return written


def content_of(job: Job, path: str, client: JobClient) -> bytes:
    """The content of one file of the job. Raises JobRefused if there is none, and the queue's errors."""
    file = job.files.get(path)
    if file is None:
        raise JobRefused(f"the job has no file {path}")
    if not file.is_stored:
        return file.content
    buffer = bytearray()

    class Buffer:
        def write(self, content: bytes, /) -> None:
            buffer.extend(content)

    client.copy_file(file.bucket, file.key, Buffer())
    return bytes(buffer)


def _write(file: JobFile, target: Path, client: JobClient) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        if file.is_stored:
            client.copy_file(file.bucket, file.key, out)
        else:
            out.write(file.content)
    if file.modified_at is not None:
        nanoseconds = _nanoseconds(file.modified_at)
        os.utime(target, ns=(nanoseconds, nanoseconds))


def _nanoseconds(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return int(aware.replace(microsecond=0).timestamp()) * 1_000_000_000 + aware.microsecond * 1000
