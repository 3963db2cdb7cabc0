from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from org.chat.schedule import Schedule, Seat, next_speaker
from org.messages import EVERYONE, Audience, Message


def message(hop: int = 0, *, role: str = "person", to: Audience = EVERYONE) -> Message:
    return Message(1, "me", role, to, "hi", 0.0, None, hop)  # type: ignore[arg-type]


def seats(*names: str, model: str = "") -> list[Seat]:
    return [Seat(name, model, [message()]) for name in names]


def order(schedule: Schedule, roster: list[Seat], last: str = "") -> list[str]:
    """Who is invited until nobody is, each done before the next."""
    invited: list[str] = []
    waiting = list(roster)
    while name := next_speaker(schedule, waiting, (), last):
        invited.append(name)
        last = name
        waiting = [seat._replace(unread=()) if seat.name == name else seat for seat in waiting]
    return invited


def test_turns_go_round_the_roster() -> None:
    assert order(Schedule(), seats("a", "b", "c")) == ["a", "b", "c"]
    assert order(Schedule(), seats("a", "b", "c"), last="a") == ["b", "c", "a"]
    assert order(Schedule(), seats("a", "b", "c"), last="gone") == ["a", "b", "c"]


def test_one_at_a_time_unless_in_parallel() -> None:
    roster = seats("a", "b", "c")
    assert next_speaker(Schedule(), roster, ["a"], "a") == ""
    assert next_speaker(Schedule("mention"), roster, ["a"], "a") == ""
    assert next_speaker(Schedule("parallel"), roster, ["a"], "a") == "b"
    assert next_speaker(Schedule("parallel", parallel=2), roster, ["a", "b"], "b") == ""


def test_a_model_is_asked_by_as_many_as_it_may() -> None:
    roster = seats("a", "b", "c", model="m")
    assert next_speaker(Schedule("parallel"), roster, ["a"], "a") == ""
    assert next_speaker(Schedule("parallel", per_model=2), roster, ["a"], "a") == "b"
    assert next_speaker(Schedule("parallel"), [*roster, *seats("d", model="n")], ["a"], "a") == "d"


def test_what_is_a_reason_to_speak() -> None:
    announced = message(role="system")
    refused = message(role="system", to=Audience.only("a"))
    for policy, unread, invited in (
        ("in-turn", [], False),
        ("in-turn", [message()], True),
        ("in-turn", [announced], False),
        ("in-turn", [refused], True),
        ("mention", [message()], False),
        ("mention", [message(), message(to=Audience.only("a"))], True),
    ):
        schedule = Schedule(policy)  # type: ignore[arg-type]
        assert bool(next_speaker(schedule, [Seat("a", "", unread)], (), "")) == invited, (policy, unread)


@given(
    st.lists(st.tuples(st.sampled_from(["m", "n", ""]), st.integers(0, 3)), max_size=8),
    st.sampled_from(["in-turn", "parallel"]),
)
def test_everyone_who_waits_is_invited_once_and_no_model_is_swapped_without_need(
    waiting: list[tuple[str, int]], policy: str
) -> None:
    roster = [Seat(f"p{n}", model, [message(hop)]) for n, (model, hop) in enumerate(waiting)]
    invited = order(Schedule(policy, parallel=1), roster)  # type: ignore[arg-type]
    assert sorted(invited) == [seat.name for seat in roster]
    if policy == "parallel":
        by_name = {seat.name: seat for seat in roster}
        rounds = [by_name[name].unread[0].hop for name in invited]
        assert rounds == sorted(rounds)
        for hop in set(rounds):
            models = [by_name[name].model for name in invited if by_name[name].unread[0].hop == hop]
            swaps = sum(a != b for a, b in pairwise(models))
            assert swaps == len(set(models)) - 1
