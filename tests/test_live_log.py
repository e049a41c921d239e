"""A step's output as people watch it."""

from __future__ import annotations

import tracemalloc

import pytest

from flows import rhythm
from flows.live_log import HEAD_LINES, LINE_CHARACTERS, TAIL_LINES, LiveLog
from tests.harness import eventually


class Clock:
    """The time, to order."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rhythm, "time", clock)
    return clock


def test_lines_are_shown_whole_with_their_prefix(clock: Clock) -> None:
    shown: list[str] = []
    log = LiveLog("step 1 stdout | ", shown.append)

    sizes = [log.write(data) for data in (b"one\nt", b"wo\n", b"last")]
    log.close()

    assert sizes == [5, 3, 4]
    assert "\n".join(shown).split("\n") == [f"step 1 stdout | {line}" for line in ("one", "two", "last")]


def test_there_is_at_most_one_record_in_half_a_second(clock: Clock) -> None:
    shown: list[str] = []
    log = LiveLog("", shown.append)

    for eighth in range(1, 11):
        log.write(b"%d\n" % eighth)
        clock.now += 0.125
    log.close()

    assert shown == ["1", "2\n3\n4\n5", "6\n7\n8\n9", "10"]


def test_the_last_line_before_a_silence_is_shown_too() -> None:
    """A step says what it begins, and then is at it for minutes."""
    shown: list[str] = []
    log = LiveLog("", shown.append)

    log.write(b"one\n")
    log.write(b"two\n")
    log.write(b"three\n")

    eventually(lambda: list(shown), ["one", "two\nthree"])
    log.write(b"four\n")
    log.close()
    assert shown[2:] == ["four"]


def test_of_much_output_only_the_beginning_and_the_end_are_shown(clock: Clock) -> None:
    shown: list[str] = []
    log = LiveLog("", shown.append)

    log.write(b"".join(b"%d\n" % number for number in range(1000)))
    log.close()

    lines = "\n".join(shown).split("\n")
    hidden = 1000 - HEAD_LINES - TAIL_LINES
    assert lines == [
        *map(str, range(HEAD_LINES)),
        f"(... {hidden} lines are in the store only ...)",
        *map(str, range(1000 - TAIL_LINES, 1000)),
    ]


@pytest.mark.parametrize("count", [0, 1, HEAD_LINES, HEAD_LINES + 1, HEAD_LINES + TAIL_LINES])
def test_what_fits_is_shown_in_full(clock: Clock, count: int) -> None:
    shown: list[str] = []
    log = LiveLog("", shown.append)

    log.write(b"".join(b"%d\n" % number for number in range(count)))
    log.close()

    assert "\n".join(shown) == "\n".join(map(str, range(count)))


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_a_long_line_is_cut(clock: Clock, letter: str) -> None:
    shown: list[str] = []
    log = LiveLog("", shown.append)

    log.write((letter * LINE_CHARACTERS + "\n" + letter * (LINE_CHARACTERS + 1)).encode())
    log.write(letter.encode() * 10_000 + b"\nnext\n")
    log.close()

    whole, cut, following = "\n".join(shown).split("\n")
    assert whole == letter * LINE_CHARACTERS
    assert cut == letter * LINE_CHARACTERS + " (... line cut ...)"
    assert following == "next"


def test_a_line_without_an_end_costs_flat_memory(clock: Clock) -> None:
    log, chunk = LiveLog("", lambda text: None), b"x" * 65536

    tracemalloc.start()
    for _ in range(200):
        log.write(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1_000_000


def test_bytes_that_are_no_text_do_no_harm(clock: Clock) -> None:
    """A NUL would make PostgreSQL refuse the record; a carriage return belongs to the line's end."""
    shown: list[str] = []
    log = LiveLog("", shown.append)

    log.write(b"a\0b\xff\r\n")
    log.close()

    assert shown == ["a�b�"]


def test_closing_twice_shows_nothing_twice(clock: Clock) -> None:
    shown: list[str] = []
    log = LiveLog("", shown.append)

    log.write(b"a\nb")
    log.close()
    log.close()

    assert shown == ["a", "b"]
