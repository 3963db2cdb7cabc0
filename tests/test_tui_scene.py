"""What is on the screen, as a fold over a room's events."""

from __future__ import annotations

from org.chat.state import Member
from org.events import (
    CallFinished,
    CallOutput,
    CallStarted,
    Delta,
    Event,
    Invited,
    Joined,
    Notice,
    Posted,
    Stepped,
    Stopped,
    TurnEnded,
    TurnStarted,
    Undone,
)
from org.messages import EVERYONE, Audience, Message, Role, Usage
from org.tooling import ToolCall, ToolResult
from org.tui.scene import KEPT_BLOCKS, PRUNED_AT_ONCE, Scene

CALL = ToolCall("1", "sh", {"cmd": "ls"})


def posted(id: int, sender: str, content: str, role: Role = "model", audience: Audience = EVERYONE) -> Posted:
    return Posted(Message(id, sender, role, audience, content, 1.0))


def scene(*events: Event) -> Scene:
    names = ("ada", "ann", "bob")
    members = {
        name: Member(Joined(name, "person" if name == "ada" else "model", "simple", "m")) for name in names
    }
    made = Scene(lambda: members)
    for number, event in enumerate(events):
        made.apply(event, float(number))
    return made


def shown(made: Scene) -> list[tuple[str, str, str]]:
    return [(block.kind, block.who, block.title or block.text) for block in made.blocks]


def spoken(made: Scene, name: str) -> str:
    return "".join(text for _, text in made.live[name].said)


def test_speech_is_live_until_the_room_has_it() -> None:
    begun: list[Event] = [
        posted(1, "ada", "hi", "person"),
        Invited("ann", 1, (1,)),
        TurnStarted("ann", 1, "big"),
    ]
    made = scene(*begun, Delta("Hel", participant="ann"), Delta("lo", participant="ann"))
    assert spoken(made, "ann") == "Hello"
    assert made.live["ann"].model == "big"
    assert made.running
    made.apply(Stepped("ann", 1, "Hello", usage=Usage(10, 2)), 9)
    made.apply(posted(2, "ann", "Hello"), 9)
    assert spoken(made, "ann") == ""
    assert shown(made) == [("message", "ada", "hi"), ("message", "ann", "Hello")]
    made.apply(TurnEnded("ann", 1, "answered"), 10)
    made.apply(Stopped("quiet"), 10)
    assert not made.live
    assert shown(made)[-1] == ("over", "", "1 turn · 10 s · 12 tokens")


def test_what_nobody_was_sent_is_folded_away() -> None:
    made = scene(
        Invited("ann", 1, (1,)),
        Delta("hm", "reasoning", "ann"),
        Delta("Let me see", participant="ann"),
        Stepped("ann", 1, "Let me see", (CALL,)),
        CallStarted("ann", CALL),
        CallOutput("ann", "1", "a\nb"),
    )
    assert made.live["ann"].output == "a\nb"
    assert made.live["ann"].doing == "running sh `ls`"
    made.apply(CallFinished("ann", 1, CALL, ToolResult("1", "a\nb", exit_code=0)), 9)
    made.apply(Delta("Two files.", participant="ann"), 9)
    assert [(block.kind, block.title, block.text, block.folded) for block in made.blocks] == [
        ("thought", "thought", "hm", True),
        ("call", "", "", True),
        ("thought", "said to itself", "Let me see", True),
    ]


def test_a_pass_and_failures_are_said_once() -> None:
    made = scene(
        Invited("ann", 1, (1,)),
        Stepped("ann", 1, "PASS"),
        TurnEnded("ann", 1, "passed"),
        Invited("bob", 2, (1,)),
        Notice("bob's turn failed: no server", "start one", "bob"),
        TurnEnded("bob", 2, "failed", detail="no server"),
        Invited("ann", 3, (1,)),
        TurnEnded("ann", 3, "interrupted"),
    )
    assert [title for _, _, title in shown(made)] == [
        "ann passes",
        "bob's turn failed: no server (start one)",
        "ann was interrupted",
    ]


def test_who_comes_in_the_middle_begins_a_block_with_what_comes() -> None:
    made = scene(Delta("and so", participant="ann"))
    assert spoken(made, "ann") == "and so"


def test_live_blocks_stand_in_the_order_of_their_start() -> None:
    made = scene(Invited("bob", 1, ()), Invited("ann", 2, ()), Delta("x", participant="bob"))
    assert list(made.live) == ["bob", "ann"]


def test_what_was_undone_goes() -> None:
    events = [posted(1, "ada", "one", "person"), posted(2, "ada", "two", "person"), posted(3, "ann", "x")]
    made = scene(*events, Undone(2))
    assert shown(made) == [("message", "ada", "one")]
    again = scene()
    again.load([*events, Undone(2)], 0)
    assert shown(again) == shown(made)


def test_a_room_that_rests_has_no_figures() -> None:
    made = scene()
    made.load(
        [
            posted(1, "ada", "hi", "person"),
            Invited("ann", 1, (1,)),
            TurnEnded("ann", 1, "passed"),
            Stopped("passed"),
        ],
        5,
    )
    assert (made.figures.turns, made.figures.began, made.running) == (0, None, False)


def test_old_blocks_are_let_go() -> None:
    made = scene(*[posted(n, "ann", str(n)) for n in range(1, 3000)])
    assert KEPT_BLOCKS <= len(made.blocks) < KEPT_BLOCKS + PRUNED_AT_ONCE
    assert made.blocks[-1].text == "2999"
    assert made.pruned + len(made.blocks) == 2999
