"""Lines that a guest causes: those that come at once are counted, not kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from org.sandbox.vm import trickle
from org.sandbox.vm.trickle import Trickle


class Written:
    """What a log takes, and the time."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 0.0
        self.trickle = Trickle(self.lines.append, lambda: self.now)


def test_a_flood_is_cut_and_counted() -> None:
    log = Written()
    for number in range(100_000):
        log.trickle(f"{number}")
    assert log.lines == [f"{number}" for number in range(trickle._BURST)]
    log.now += 1.0
    log.trickle("later")
    assert log.lines[-2:] == [f"lines left out, too many at once: {100_000 - trickle._BURST}", "later"]


def test_what_was_left_out_is_told_at_the_end() -> None:
    log = Written()
    for _ in range(trickle._BURST + 3):
        log.trickle("x")
    log.trickle.tell()
    log.trickle.tell()
    assert log.lines[trickle._BURST :] == ["lines left out, too many at once: 3"]


@given(st.lists(st.floats(min_value=0, max_value=10), max_size=600))
def test_over_any_time_few_get_through_and_none_is_lost(pauses: list[float]) -> None:
    log = Written()
    for pause in pauses:
        log.now += pause
        log.trickle("x")
    log.trickle.tell()
    kept = log.lines.count("x")
    assert kept <= trickle._BURST + log.now * trickle._PER_S + 1
    assert kept + sum(int(line.rpartition(" ")[2]) for line in log.lines if line != "x") == len(pauses)
