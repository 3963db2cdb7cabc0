from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from org.chat.state import State
from org.events import CallStarted, Delta, Event, Joined, Posted, Stepped, TurnEnded
from org.serve.completions import Said
from org.serve.dialogue import Telling, recall
from org.tooling import Origin, ToolCall

CALL = ToolCall("1", "sh", {"cmd": "ls"}, Origin())
ADA = Joined("ada", "person")
MODELS = (Joined("coder", "model", "simple", "m", "You are coder."), Joined("calc", "model", "python", "m"))


def told(events: Sequence[Event], *, named: bool = True, only: str = "", whole: Sequence[str] = ()) -> str:
    """The text, with thoughts in braces where they came."""
    telling = Telling(named=named, only=only, whole=whole)
    pieces = [piece for event in events for piece in telling.feed(event)]
    return "".join(text if kind == "content" else f"{{{text}}}" for kind, text in pieces)


def delta(name: str, text: str, *, thought: bool = False) -> Delta:
    return Delta(text, "reasoning" if thought else "text", name)


def spoken(name: str, text: str) -> list[Event]:
    """A turn of one step, in pieces."""
    half = len(text) // 2
    pieces: list[Event] = [delta(name, text[:half]), delta(name, text[half:])]
    return [*pieces, Stepped(name, 1, text), TurnEnded(name, 1, "answered")]


def test_each_paragraph_has_its_speaker() -> None:
    events: list[Event] = [*spoken("coder", "One.\n\nTwo."), *spoken("calc", "Three.")]
    assert told(events) == "coder: One.\n\nTwo.\n\ncalc: Three."
    assert told(events, named=False, only="calc") == "Three."


def test_who_speaks_at_the_same_time_waits() -> None:
    events: list[Event] = [
        delta("coder", "a"),
        delta("calc", "x"),
        delta("coder", "b"),
        delta("calc", "y"),
        Stepped("calc", 2, "xy"),
        delta("guide", "p"),
        delta("coder", "c"),
        Stepped("coder", 1, "abc"),
        delta("guide", "q"),
    ]
    telling = Telling(named=True)
    texts = ["".join(piece.text for piece in telling.feed(event)) for event in events]
    assert texts == ["coder: a", "", "b", "", "", "", "c", "\n\ncalc: xy\n\nguide: p", "q"]


def test_thoughts_and_calls_stand_beside_the_text() -> None:
    events: list[Event] = [
        delta("coder", "\nhm", thought=True),
        delta("coder", "Let me look."),
        Stepped("coder", 1, "Let me look.", (CALL,)),
        CallStarted("coder", CALL),
        *spoken("coder", "Nothing."),
    ]
    assert told(events, named=False) == "{hm}Let me look.{\n\n[sh `ls`]}\n\nNothing."


def test_an_answer_that_calls_is_a_thought_of_who_gives_answers_only() -> None:
    events: list[Event] = [
        delta("calc", "I count."),
        Stepped("calc", 1, "I count.", (CALL,)),
        CallStarted("calc", CALL),
        *spoken("calc", "42"),
    ]
    assert told(events, whole=["calc"]) == "{calc: I count.}{\n\ncalc: [sh `ls`]}calc: 42"


def test_what_did_not_stream_is_told_at_the_end() -> None:
    assert told([TurnEnded("coder", 1, "answered", text="whole")]) == "coder: whole"
    assert told([delta("coder", "pa"), TurnEnded("coder", 1, "interrupted", text="pa")]) == "coder: pa"


def test_blanks_around_what_is_said_do_not_count() -> None:
    events: list[Event] = [
        delta("coder", "\n a"),
        delta("coder", "\n "),
        delta("coder", "b\n"),
        *spoken("calc", "c"),
    ]
    events.insert(3, Stepped("coder", 1, "a\n b"))
    assert told(events) == "coder: a\n b\n\ncalc: c"


def test_a_remark_stands_by_itself() -> None:
    telling = Telling(named=True)
    assert telling.remark("x") == ("reasoning_content", "[x]")
    telling.feed(delta("coder", "hm", thought=True))
    assert telling.remark("x") == ("reasoning_content", "\n\n[x]")


def test_pass_is_never_told() -> None:
    assert told([Stepped("coder", 1, "PASS"), TurnEnded("coder", 1, "passed")]) == ""


# -- and back


def recalled(*texts: str, routed: bool = True) -> State:
    """The state of a room after texts, of which every second is the assistant's."""
    said = [Said("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]
    return State.of(recall([ADA, *MODELS], said, 1.5, routed=routed))


def view(state: State, name: str) -> list[tuple[str, str]]:
    memory = state.members[name].memory
    assert memory is not None
    return [(str(entry.role), entry.content) for entry in memory.view][1:]


def test_everybody_finds_what_they_said() -> None:
    state = recalled("hi", "coder: One.\n\nTwo.\n\ncalc: Three.\n\ncalc: Four.")
    assert [(m.sender, m.content) for m in state.transcript] == [
        ("ada", "hi"),
        ("coder", "One.\n\nTwo."),
        ("calc", "Three.\n\nFour."),
    ]
    assert view(state, "coder") == [("user", "ada: hi"), ("assistant", "One.\n\nTwo.")]
    assert [m.content for m in state.members["coder"].unread] == ["Three.\n\nFour."]
    assert view(state, "calc") == [
        ("user", "ada: hi\n\ncoder: One.\n\nTwo."),
        ("assistant", "Three.\n\nFour."),
    ]


def test_addresses_count_as_they_did() -> None:
    state = recalled("@calc add", "calc: @ada 4\n\ncoder: fine")
    assert [m.audience.names for m in state.transcript][:2] == [("calc",), ("ada",)]
    assert view(state, "calc") == [("user", "ada (only to you): add"), ("assistant", "@ada 4")]


def test_between_two_nothing_is_read_into_the_text() -> None:
    said = [Said("user", "@codr hi"), Said("assistant", "coder: x\n\nada: y"), Said("user", "#file:x")]
    state = State.of(recall([ADA, MODELS[0]], said, 1.5, routed=False))
    assert view(state, "coder") == [("user", "ada: @codr hi"), ("assistant", "coder: x\n\nada: y")]
    assert [m.content for m in state.members["coder"].unread] == ["#file:x"]


def test_words_that_nobody_asked_for() -> None:
    """A client may begin with what the assistant says."""
    said = [Said("assistant", "Welcome!"), Said("user", "hi")]
    state = State.of(recall([ADA, *MODELS], said, 1.5, routed=True))
    assert view(state, "coder") == [("user", "[room] (nobody asked)"), ("assistant", "Welcome!")]
    assert [m.content for m in state.members["calc"].unread] == ["Welcome!", "hi"]


def test_code_is_no_speaker() -> None:
    text = "coder: see\n\n```\n\ncalc: 1\n```\n\ncalc: ```\n\ncoder: 2\n```"
    state = recalled("hi", text)
    assert [(m.sender, m.content) for m in state.transcript][1:] == [
        ("coder", "see\n\n```\n\ncalc: 1\n```"),
        ("calc", "```\n\ncoder: 2\n```"),
    ]


LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters=":@#`~")
WORDS = st.text(LETTERS, min_size=1).map(str.strip).filter(bool)
TURNS = st.lists(st.tuples(st.sampled_from(["coder", "calc"]), WORDS), min_size=1)


@given(TURNS)
def test_what_was_told_comes_back(turns: Sequence[tuple[str, str]]) -> None:
    turns = [(name, text) for name, text in turns if text != "PASS"]
    text = told([event for name, said in turns for event in spoken(name, said)])
    back = recall([ADA, *MODELS], [Said("user", "hi"), Said("assistant", text)], 1.5, routed=True)
    posted = [event.message for event in back if isinstance(event, Posted)][1:]
    merged: list[tuple[str, str]] = []
    for name, words in turns:
        if merged and merged[-1][0] == name:
            merged[-1] = (name, f"{merged[-1][1]}\n\n{words}")
        else:
            merged.append((name, words))
    assert [(message.sender, message.content) for message in posted] == merged


JUNK = st.text(st.sampled_from("ab@#:`~\n coderlcPAS\ud800"), max_size=80)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), JUNK)), st.booleans())
def test_any_history_makes_a_room(said: Sequence[tuple[str, str]], routed: bool) -> None:
    history = [Said(role, text) for role, text in said]  # type: ignore[arg-type]
    state = State.of(recall([ADA, *MODELS], history, 1.5, routed=routed))
    for name in ("coder", "calc"):
        roles = [role for role, _ in view(state, name)]
        assert all(one != other for one, other in pairwise(roles))
