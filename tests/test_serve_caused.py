from __future__ import annotations

from org.chat.state import State
from org.events import Committed, Delta, Event, Invited, Joined, Posted, Stepped, TurnEnded
from org.messages import EVERYONE, Audience, Message
from org.serve.caused import Caused

MODELS = ("ann", "bob")


def said(
    number: int, sender: str, to: Audience = EVERYONE, *, key: str = "", cause: int | None = None
) -> Posted:
    role = "model" if sender in MODELS else "person"
    return Posted(Message(number, sender, role, to, "x", 0.0, cause), key)  # type: ignore[arg-type]


def followed(*events: Event) -> list[tuple[bool, bool]]:
    """Of each event, whether it is a part of what was caused, and whether that is over then."""
    state = State.of([Joined("me", "person"), *(Joined(name, "model") for name in MODELS)])
    caused = Caused("k")
    found: list[tuple[bool, bool]] = []
    for event in events:
        if isinstance(event, Committed):
            state.apply(event)
        found.append((caused.takes(event), caused.over(state, MODELS)))
    return found


def test_what_others_say_is_left_out() -> None:
    assert followed(
        Invited("ann", 1, ()),  # of what was said before
        said(1, "me", Audience.only("ann"), key="k"),
        Delta("of before", participant="ann"),
        said(2, "ann", Audience.only("me")),
        TurnEnded("ann", 1, "answered"),
        said(3, "me", Audience.only("bob"), key="of another"),
        Invited("bob", 2, (3,)),
        Invited("ann", 3, (1,)),
        Delta("of bob", participant="bob"),
        Stepped("ann", 3, "x"),
        said(4, "ann", Audience.only("me"), cause=1),
        TurnEnded("ann", 3, "answered"),
        TurnEnded("bob", 2, "answered"),
    ) == [
        (False, True),
        (False, False),
        (False, False),
        (False, False),
        (False, False),
        (False, False),
        (False, False),
        (True, False),
        (False, False),
        (True, False),
        (False, False),
        (True, True),
        (False, True),
    ]


def test_what_is_said_because_of_it_is_followed() -> None:
    assert followed(
        said(1, "me", Audience.only("ann"), key="k"),
        Invited("ann", 1, (1,)),
        said(2, "ann", Audience.only("bob")),
        TurnEnded("ann", 1, "answered"),
        Invited("bob", 2, (2,)),
        TurnEnded("bob", 2, "passed"),
    )[3:] == [(True, False), (True, False), (True, True)]
