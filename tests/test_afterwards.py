"""Work that nobody waits for before the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flows.afterwards import Afterwards


def do_all(*works: Callable[[], object]) -> None:
    with Afterwards() as afterwards:
        for work in works:
            afterwards.do(work)


def fail() -> None:
    raise OSError("the disk is gone")


def test_leaving_waits_for_all_of_it() -> None:
    done: list[int] = []

    do_all(*(lambda: done.append(1) for _ in range(20)))

    assert len(done) == 20


def test_a_failure_is_raised_in_the_end_when_all_else_is_done() -> None:
    done: list[int] = []

    with pytest.raises(OSError, match="the disk is gone"):
        do_all(fail, lambda: done.append(1))

    assert done == [1]


def test_a_failure_does_not_hide_what_stopped_the_run() -> None:
    def stop(afterwards: Afterwards) -> None:
        with afterwards:
            afterwards.do(fail)
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        stop(Afterwards())
