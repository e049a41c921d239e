"""Runs a job without Prefect: where there is none, and where it failed in the middle of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ..failures import RETRIES, is_temporary
from .job_run import FORESEEN, JobRun, Outcome

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 2.0

_R = TypeVar("_R")


def run_plainly(run: JobRun) -> Outcome:
    """Run what is left of a job, and report it. Temporary errors are tried again. Raises QueueTrouble."""
    try:
        _patiently(run, run.prepare)
        for index, _ in run.steps:
            if run.failure is None:
                _patiently(run, lambda index=index: run.run_step(index))  # type: ignore[misc]
    except FORESEEN as error:
        run.fail(error)
    except Exception as error:  # a bug of ours; whoever waits for the job should hear of it all the same
        log.exception("job %s ended in a way that nobody foresaw", run.job.id)
        run.fail(error)
    return run.report()


def _patiently(run: JobRun, stage: Callable[[], _R]) -> _R:
    """A stage, with another try after temporary errors."""
    for attempt in range(RETRIES):
        try:
            return stage()
        except FORESEEN as error:
            if not is_temporary(error):
                raise
            log.warning("job %s: %s; trying again", run.job.id, error)
            run.stopping.cancel.wait(FIRST_DELAY_SECONDS * 2**attempt)
    return stage()
