"""The full screen on a real room: what is shown, what keys do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from org.chat.loop import Approval
from org.chat.room import Schedule
from org.events import Delta
from org.messages import ChatRequest, Completion
from org.tooling import ToolError
from org.tui.paint import KEPT_ROWS
from org.tui.panels import Status
from org.tui.transcript import Transcript
from room_kit import Files, Model, call, calling, model_of, participant, tool
from tui_kit import screen


async def test_a_talk_is_shown_with_who_speaks_to_whom(tmp_path: Path) -> None:
    coder = participant("coder", "@ada a word for you\n\n@group for all")
    async with screen(tmp_path, coder) as shown:
        await shown.say("hello")
        await shown.quiet()
        text = shown.text
        assert "ada → everyone" in text
        assert "coder → @ada   private" in text
        assert "a word for you" in text
        assert text.index("a word for you") < text.index("coder → everyone") < text.index("for all")
        assert "── 1 turn" in text
        assert shown.prompt.text == ""


async def test_several_speak_at_once_in_the_order_of_their_start(
    tmp_path: Path,
) -> None:
    gates = {name: asyncio.Event() for name in ("ann", "bob")}
    ann = participant("ann", model=Model(["first half, second half"], gate=gates["ann"]))
    bob = participant("bob", model=Model(["one two, three four"], gate=gates["bob"]))
    async with screen(tmp_path, ann, bob, schedule=Schedule("parallel", 2, 2)) as shown:
        await shown.say("go")
        await shown.until("one two")
        text = shown.text
        assert text.index("ann → everyone") < text.index("first half") < text.index("bob → everyone")
        assert "second half" not in text
        gates["bob"].set()
        await shown.until("three four")
        # Who has finished is settled above whoever still speaks.
        assert shown.text.index("three four") < shown.text.index("first half")
        gates["ann"].set()
        await shown.quiet()
        assert "first half, second half" in shown.text


async def test_a_call_is_one_line_until_it_is_unfolded(tmp_path: Path) -> None:
    coder = participant(
        "coder",
        calling(call("sh", cmd="ls\nwc"), text="Let me look."),
        "Done.",
        tools=[tool("sh", lambda asked: "the output")],
        profile="agent",
    )
    async with screen(tmp_path, coder) as shown:
        await shown.say("look")
        await shown.quiet()
        assert "▸ coder sh `ls` (+1 lines) · 0.0 s · exit 0" in shown.text
        assert "the output" not in shown.text
        await shown.pilot.press("tab")
        await shown.pilot.press("up", "enter")
        assert "▾ coder sh `ls`" in shown.text
        assert "    the output" in shown.text
        await shown.pilot.press("x")  # typing goes to the prompt
        assert shown.prompt.text == "x"
        await shown.pilot.press("ctrl+o")
        assert "the output" not in shown.text


async def test_a_click_unfolds_a_call(tmp_path: Path) -> None:
    coder = participant(
        "coder", calling(call("sh", cmd="ls")), "Done.", tools=[tool("sh", lambda asked: "the output")]
    )
    async with screen(tmp_path, coder) as shown:
        await shown.say("look")
        await shown.quiet()
        row = next(i for i, row in enumerate(shown.rows) if "sh `ls`" in row)
        at = row - shown.transcript.scroll_offset.y
        await shown.pilot.click(shown.transcript, offset=(10, at))
        assert "the output" in shown.text


async def test_thoughts_are_folded_and_kept(tmp_path: Path) -> None:
    scene_reply = Completion("The answer.", reasoning="unused")
    coder = participant("coder", scene_reply)
    async with screen(tmp_path, coder) as shown:
        shown.app._hear(Delta("Let me think about that.", "reasoning", "coder"))
        await shown.until("thinks · 24 characters")
        assert "Let me think" not in shown.text
        await shown.say("hello")
        await shown.quiet()
        assert "▸ coder thought · 24 characters" in shown.text
        await shown.pilot.press("ctrl+o")
        assert "Let me think about that." in shown.text


async def test_ctrl_c_stops_the_turn_first_and_leaves_when_idle(tmp_path: Path) -> None:
    gate = asyncio.Event()
    coder = participant("coder", model=Model(["the first half and the second"], gate=gate))
    async with screen(tmp_path, coder) as shown:
        await shown.say("go")
        await shown.until("the first half")
        await shown.pilot.press("ctrl+c")
        await shown.quiet()
        assert "coder was interrupted" in shown.text
        assert "stopped (interrupted)" in shown.text
        assert "the first half" in shown.text  # what was said stays
        await shown.type("half a thought")
        await shown.pilot.press("ctrl+c")
        assert shown.prompt.text == ""
        await shown.pilot.press("up")
        assert shown.prompt.text == "half a thought"  # not lost
        await shown.pilot.press("ctrl+c", "ctrl+c")
        assert shown.app.is_running
        await shown.pilot.press("ctrl+c")
        assert shown.app._exit


async def test_ctrl_d_leaves_only_when_nothing_is_typed(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder")) as shown:
        await shown.type("words")
        await shown.pilot.press("ctrl+d")
        assert not shown.app._exit
        shown.prompt.text = ""
        await shown.pilot.press("ctrl+d")
        assert shown.app._exit


async def test_an_approval_shows_the_whole_call_and_no_is_the_default(tmp_path: Path) -> None:
    command = "rm -rf build\n" + "echo a long line; " * 20
    answers: list[bool] = []

    async with screen(tmp_path) as shown:

        async def ask() -> None:
            answers.append(await shown.app.questions.ask("coder", call("sh", cmd=command)))

        for keys, expected in (
            (["enter"], False),
            (["escape"], False),
            (["y"], True),
            (["tab", "enter"], True),
        ):
            asked = asyncio.create_task(ask())
            await shown.asked()
            await shown.pilot.pause()
            content = str(shown.app.screen.query_one("#call").render())
            assert content == f"cmd:\n{command}"
            shown.clock.now += 1
            await shown.pilot.press(*keys[:1])
            shown.clock.now += 1
            await shown.pilot.press(*keys[1:])
            await asked
            assert answers.pop() is expected


async def test_keys_meant_for_the_prompt_allow_nothing(tmp_path: Path) -> None:
    async with screen(tmp_path) as shown:
        asked = asyncio.create_task(shown.app.questions.ask("coder", call("sh", cmd="rm")))
        await shown.asked()
        await shown.pilot.press(*"yes", "enter")
        assert not asked.done()
        await shown.pilot.press("ctrl+c")
        assert await asked is False


async def test_an_interrupt_takes_the_question_away(tmp_path: Path) -> None:
    async with screen(tmp_path) as shown:
        coder = participant(
            "coder",
            calling(call("sh", cmd="rm")),
            tools=[tool("sh", policy="ask")],
            approval=Approval(shown.app.questions.ask),
        )
        await shown.room.invite(coder)
        await shown.say("go")
        await shown.asked()
        shown.room.interrupt()
        await shown.quiet()
        assert not shown.asking
        assert "interrupted" in shown.text


async def test_what_others_write_is_no_markup_and_no_escape(tmp_path: Path) -> None:
    hostile = (
        "[red]x[/red] [@click=app.quit]quit[/] \x1b[31mred\x1b]8;;http://evil\x07link\x1b]8;;\x07 "
        "[a](javascript:alert) <script>alert(1)</script> ![i](http://x/y.png)"
    )
    coder = participant(
        "coder",
        calling(call("sh", cmd=hostile)),
        hostile,
        tools=[tool("sh", lambda asked: hostile), tool("other", lambda asked: ToolError("failed", hostile))],
    )
    async with screen(tmp_path, coder, size=(160, 40)) as shown:
        await shown.say(hostile)
        await shown.quiet()
        await shown.pilot.press("ctrl+o")
        text = shown.text
        assert text.count("[red]x[/red] [@click=app.quit]quit[/]") >= 4
        assert "<script>alert(1)</script>" in text
        assert "a (javascript:alert)" in text
        for item in shown.transcript._rows.items:
            for strip in item.strips:
                for segment in strip:
                    assert "\x1b" not in segment.text and "\x07" not in segment.text
                    assert segment.style is None or (segment.style.link is None and not segment.style.meta)


async def test_the_audience_is_shown_as_one_types(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder"), participant("calc")) as shown:

        async def title(text: str) -> str:
            shown.prompt.fill(text)
            await shown.pilot.pause()
            return str(shown.prompt._border_title).strip()

        assert await title("") == "ada → everyone"
        assert await title("@calc") == "ada → @calc alone"
        assert await title("@calc a\n@group b") == "ada → @calc alone, then everyone"
        assert await title("#file:a.md x") == "ada → #file:a.md"
        assert await title("@codr x") == "ada ✗ perhaps you mean @coder"
        assert await title("/who") == "ada → a command for the room"
        assert (await title("!ls")).startswith("ada → a command, run in bubblewrap")
        await shown.room.set_mode("ada", "direct:coder")
        await shown.pilot.pause(0.1)
        assert await title("x") == "ada → @coder alone"


async def test_names_and_commands_are_completed(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder"), participant("calc")) as shown:
        await shown.pilot.press(*"@co", "tab")
        assert shown.prompt.text == "@coder "
        shown.prompt.fill("@c")
        await shown.pilot.press("tab")
        assert shown.prompt.text == "@coder "
        await shown.pilot.press("tab")
        assert shown.prompt.text == "@calc "
        shown.prompt.fill("/inv")
        await shown.pilot.press("tab")
        assert shown.prompt.text == "/invite "
        shown.prompt.fill("/kick cal")
        await shown.pilot.press("tab")
        assert shown.prompt.text == "/kick calc "


async def test_several_lines_and_what_was_typed_before(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder")) as shown:
        await shown.pilot.press(*"one", "ctrl+j", *"two", "shift+enter", *"three")
        assert shown.prompt.text == "one\ntwo\nthree"
        await shown.pilot.press("enter")
        await shown.quiet()
        await shown.say("/who")
        await shown.quiet()
        await shown.type("draft")
        await shown.pilot.press("up")
        assert shown.prompt.text == "/who"
        await shown.pilot.press("up")
        assert shown.prompt.text == "one\ntwo\nthree"
        await shown.pilot.press("down")  # at the end: on
        assert shown.prompt.text == "/who"
        await shown.pilot.press("down")
        assert shown.prompt.text == "draft"
        await shown.pilot.press("ctrl+r", *"thr", "enter")
        assert shown.prompt.text == "one\ntwo\nthree"


async def test_commands_answer_and_errors_keep_the_words(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder")) as shown:
        await shown.say("/who")
        await shown.quiet()
        assert "person  -> everyone" in shown.text
        await shown.say("/hepl")
        await shown.quiet()
        assert "! there is no `/hepl` (did you mean `/help`? to say it," in shown.text
        assert shown.prompt.text == "/hepl"
        shown.prompt.text = ""
        await shown.say("/help")
        assert "Help" in type(shown.app.screen).__name__
        await shown.pilot.press("escape")
        await shown.say("/quit")
        await shown.pilot.pause()
        assert shown.app._exit


async def test_taking_back_removes_from_the_screen(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder", "An answer.")) as shown:
        await shown.say("question")
        await shown.quiet()
        await shown.say("/undo")
        await shown.quiet()
        assert "An answer." not in shown.text
        assert "taken back: question" in shown.text


async def test_files_are_marked(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder"), files=Files()) as shown:
        await shown.say("#file:notes.md remember")
        await shown.quiet()
        assert "ada → #file:notes.md   file" in shown.text


async def test_the_roster_says_who_does_what_and_for_how_long(tmp_path: Path) -> None:
    gate = asyncio.Event()
    coder = participant("coder", model=Model(["half half"], gate=gate), model_name="qwen3:8b")
    calc = participant("calc", model_name="qwen3:8b")
    async with screen(tmp_path, coder, calc, size=(120, 30)) as shown:
        await shown.say("go")
        await shown.until("half")
        shown.clock.now += 65
        await shown.pilot.pause(0.3)
        who = str(shown.app.query_one("#who").render())
        assert "coder\n  simple · qwen3:8b\n  speaking 1 min 5 s" in who
        assert "calc  1 unread" in who
        status = str(shown.app.query_one(Status).render())
        assert "room-1 · in bubblewrap" in status
        assert "1/30 turns" in status and "65/900 s" in status
        gate.set()
        await shown.quiet()
        assert model_of(coder).prompts


async def test_streaming_does_not_pull_down_who_reads_above(tmp_path: Path) -> None:
    gate = asyncio.Event()
    long = "\n".join(f"line {n}" for n in range(200))
    coder = participant("coder", long, Completion(long))
    async with screen(tmp_path, coder) as shown:
        await shown.say("go")
        await shown.quiet()
        assert shown.transcript.following
        await shown.pilot.press("pageup")
        top = shown.transcript.scroll_offset.y
        assert shown.text.endswith("──")
        await shown.room.say("ada", "again")
        await shown.quiet()
        assert shown.transcript.scroll_offset.y == top
        await shown.pilot.press("ctrl+end")
        assert shown.transcript.following
        await shown.pilot.resize_terminal(60, 18)
        await shown.pilot.pause()
        assert shown.transcript.following
        gate.set()


class Fast:
    """Says very much in very small pieces."""

    def __init__(self, pieces: int, piece: str) -> None:
        self.pieces = pieces
        self.piece = piece

    async def complete(self, request: ChatRequest, emit: Callable[[Delta], None]) -> Completion:
        pieces, self.pieces = self.pieces, 0
        for number in range(pieces):
            emit(Delta(self.piece))
            if number % 100 == 0:
                await asyncio.sleep(0)
        return Completion(self.piece * pieces or "PASS", finish="stop")


async def test_many_small_pieces_are_drawn_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0
    draw = Transcript.refresh_scene

    def counted(self: Transcript) -> None:
        nonlocal drawn
        drawn += 1
        draw(self)

    monkeypatch.setattr(Transcript, "refresh_scene", counted)
    async with screen(tmp_path, participant("ann", model=Fast(20_000, "word "))) as shown:
        await shown.say("go")
        await shown.quiet()
        assert "characters are not shown" in shown.text
        assert drawn < 2000
        assert len(shown.rows) < 1000


async def test_a_very_long_line_is_shown_in_part(tmp_path: Path) -> None:
    gate = asyncio.Event()
    ann = participant("ann", model=Model(["x" * 2_000_000], gate=gate))
    async with screen(tmp_path, ann) as shown:
        await shown.say("go")
        await shown.until("xxx")
        assert 1000 < len(shown.transcript._rows._saying["ann"].strips) <= KEPT_ROWS
        gate.set()
        await shown.quiet()
        assert "… 1,970,000 characters are not shown …" in shown.text
        assert len(shown.rows) < 500


async def test_search_marks_and_steps(tmp_path: Path) -> None:
    coder = participant(
        "coder",
        calling(call("sh", cmd="ls")),
        "A needle in the hay, and\n\n" + "\n".join("hay" for _ in range(60)),
        tools=[tool("sh", lambda asked: "another needle here")],
    )
    async with screen(tmp_path, coder) as shown:
        await shown.say("go")
        await shown.quiet()
        await shown.pilot.press("ctrl+f", *"needle")
        status = shown.app.query_one(Status)
        assert status.note.startswith("2 of 2")
        await shown.pilot.press("up")
        assert status.note.startswith("1 of 2")
        assert "another needle here" in shown.text  # what was folded is open now
        await shown.pilot.press("escape")
        assert shown.app.focused is shown.prompt


async def test_light_and_dark(tmp_path: Path) -> None:
    async with screen(tmp_path, participant("coder", "Words.")) as shown:
        await shown.say("hello")
        await shown.quiet()
        before = shown.app.theme
        styles = [s.style for s in shown.transcript._rows.items[-2].strips[-1]]
        await shown.pilot.press("f2")
        await shown.pilot.pause()
        assert shown.app.theme != before
        assert [s.style for s in shown.transcript._rows.items[-2].strips[-1]] != styles
