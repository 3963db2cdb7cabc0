"""One turn of a model: complete, run the calls, again, until it has answered. The only loop there is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from org.chat.guards import HINT, RepeatedCalls
from org.chat.routing import is_pass
from org.chat.speech import Speech
from org.errors import Denied, ModelError, SandboxGone
from org.events import CallFinished, CallOutput, CallStarted, Delta, Notice, Nudged, Stepped
from org.messages import Completion
from org.ports import Turn
from org.tooling import Tool, ToolCall, ToolError, ToolErrorKind, ToolResult

Policy: TypeAlias = Literal["run", "ask", "off"]

NUDGE_CUT = (
    "Your tool call was cut off before its end, so it was not run. Make it again, shorter; "
    "write a long file in several calls."
)
NUDGES_EMPTY = (
    "Your reply was empty. Please answer in words, or reply PASS.",
    "Still empty. Say in one sentence what you have got so far, or reply PASS.",
)
NUDGE_LAST = "You have used all your steps. Say now, in words, what you did and found."

CIRCLING = ToolError("repeated", "made twice already with the same result; answer with what you have")
OUT_OF_STEPS = ToolError("denied", "no steps are left in this turn; answer with what you have")


@dataclass(frozen=True, slots=True)
class Approval:
    """Who allows calls. `ask(participant, call)` asks a person, and raises `Denied` when nobody answers;
    it is None where nobody is there. `embedded` is the policy for calls that were found in the text,
    beside each tool's own."""

    ask: Callable[[str, ToolCall], Awaitable[bool]] | None = None
    embedded: Policy = "run"


@dataclass(frozen=True, slots=True)
class Means:
    """What a participant brings to its turn.

    `complete(turn, emit)` asks its model. `steps` is how many completions a turn may take, at least
    one; with `answer_only` the room hears what is addressed and the answer.
    """

    complete: Callable[[Turn, Callable[[Delta], None]], Awaitable[Completion]]
    tools: Sequence[Tool]
    approval: Approval
    steps: int
    answer_only: bool


async def take_turn(turn: Turn, means: Means) -> str:
    """The reply of one turn. What is said before a tool call is posted on the way.

    Raises `ModelError` when no answer comes (with what was `said` of one that broke off),
    `SandboxGone` when tools have nowhere to run. When it is cancelled, returns what had been said.
    """
    repeats = RepeatedCalls()
    nudges = iter(NUDGES_EMPTY)
    over: ToolError | None = None  # why no call is run any more
    cut_before = False
    for left in reversed(range(means.steps)):
        if turn.limit():
            return ""
        if not left and means.steps > 1 and over is None:
            over = OUT_OF_STEPS
            await turn.commit(Nudged(turn.participant, turn.id, NUDGE_LAST))
        completion, interrupted = await _complete(turn, means)
        if interrupted:
            return completion.text
        try:
            await _commit_step(turn, completion)
        except asyncio.CancelledError:
            return completion.text  # interrupted, but all of it was said
        answered = completion.text and (over or not (completion.calls or completion.incomplete))
        if completion.text and not answered and not is_pass(completion.text):
            await turn.post(completion.text, means.answer_only)
        circling = await _run_calls(turn, means, completion.calls, repeats, over)
        if answered:
            return completion.text
        nudge = ""
        if completion.incomplete and over is None:
            if cut_before:
                raise ModelError(
                    f"{turn.participant}'s tool calls keep being cut off", "raise `max_tokens` in `org.toml`"
                )
            cut_before = True
            turn.emit(Notice("a tool call was cut off and not run; asking to go on", "", turn.participant))
            nudge = NUDGE_CUT
        elif over or not completion.calls:
            nudge = next(nudges, "")
            if not nudge:
                break
        if nudge and left:
            await turn.commit(Nudged(turn.participant, turn.id, nudge))
        over = over or circling
    raise ModelError(_nothing_said(turn.participant, completion))


async def _complete(turn: Turn, means: Means) -> tuple[Completion, bool]:
    """(completion, whether it was interrupted). Deltas are shown as they come."""
    speech = Speech(turn.participant, turn.names)

    def emit(delta: Delta) -> None:
        text = speech.feed(delta.text) if delta.kind == "text" else delta.text
        if text:
            turn.emit(Delta(text, delta.kind, turn.participant))

    try:
        completion = await means.complete(turn, emit)
    except asyncio.CancelledError:
        return Completion(_so_far(speech)), True
    except ModelError as error:
        error.said = _so_far(speech)
        raise
    if tail := speech.finish():
        turn.emit(Delta(tail, "text", turn.participant))
    said = Speech(turn.participant, turn.names)
    said.feed(completion.text)
    said.finish()
    if said.cut:
        turn.emit(Notice(f"went on in the name of {said.cut}; cut there", "", turn.participant))
    return replace(completion, text=said.text.strip()), False


def _so_far(speech: Speech) -> str:
    """What counts of an answer that was cut short."""
    speech.finish()
    return "" if is_pass(speech.text) else speech.text.strip()


async def _commit_step(turn: Turn, completion: Completion) -> None:
    await turn.commit(
        Stepped(
            turn.participant, turn.id, completion.text, completion.calls, completion.usage, completion.finish
        )
    )
    if completion.finish == "length" and not completion.incomplete:
        turn.emit(Notice("the answer was cut at `max_tokens`", "raise it in `org.toml`", turn.participant))


async def _run_calls(
    turn: Turn, means: Means, calls: Sequence[ToolCall], repeats: RepeatedCalls, over: ToolError | None
) -> ToolError | None:
    """Run calls one after another, or answer each with `over`; why there should be no more, if so."""
    circling = None
    for call in calls:
        if turn.limit():
            break
        if repeats.exhausted(call):
            circling = CIRCLING
        refusal = over or (CIRCLING if repeats.exhausted(call) else None)
        if refusal:
            result = ToolResult(call.id, "", refusal)
        else:
            result = await _run_call(turn, means, call)
            if repeats.note(call, result):
                result = replace(result, output=f"{result.output}\n{HINT}".lstrip())
        await turn.commit(CallFinished(turn.participant, turn.id, call, result))
    return circling


async def _run_call(turn: Turn, means: Means, call: ToolCall) -> ToolResult:
    started = time.monotonic()

    def failed(kind: ToolErrorKind, message: str) -> CallFinished:
        result = ToolResult(call.id, "", ToolError(kind, message), seconds=time.monotonic() - started)
        return CallFinished(turn.participant, turn.id, call, result)

    try:
        tool = next((t for t in means.tools if t.spec.name == call.name), None)
        refusal = await _refusal(turn, means, tool, call)
        if refusal is not None or tool is None:
            return ToolResult(call.id, "", refusal)
        turn.emit(CallStarted(turn.participant, call))
        started = time.monotonic()
        result = await tool.run(call, lambda text: turn.emit(CallOutput(turn.participant, call.id, text)))
    except asyncio.CancelledError:
        if turn.limit() == "seconds":
            await turn.commit(failed("timeout", "the time for this exchange is over; it was stopped"))
        else:
            await turn.commit(failed("interrupted", "a person stopped it"))
        raise
    except SandboxGone as error:
        await turn.commit(failed("sandbox_gone", error.message))
        raise
    return replace(result, seconds=time.monotonic() - started)


async def _refusal(turn: Turn, means: Means, tool: Tool | None, call: ToolCall) -> ToolError | None:
    """Why a call is not run, if it is not."""
    if tool is None:
        names = ", ".join(t.spec.name for t in means.tools) or "none"
        return ToolError("unknown_tool", f"there is no tool `{call.name}`; there are: {names}")
    if call.error:
        return ToolError("bad_arguments", call.error)
    policies = {tool.policy}
    if call.origin.kind == "embedded":
        policies.add(means.approval.embedded)
    if "off" in policies:
        return ToolError("denied", f"`{call.name}` is switched off for such calls")
    if "ask" in policies:
        if means.approval.ask is None:
            return ToolError("unattended", f"`{call.name}` needs a person's approval, and nobody is there")
        try:
            allowed = await means.approval.ask(turn.participant, call)
        except Denied as error:
            return ToolError("unattended", f"`{call.name}` needs a person's approval: {error.message}")
        if not allowed:
            return ToolError("denied", "a person said no to this call")
    return None


def _nothing_said(name: str, completion: Completion) -> str:
    text = f"{name} gave no answer (finish: {completion.finish or 'none'})"
    if completion.calls:
        text = f"{name} gave no answer, it only called tools (finish: {completion.finish or 'none'})"
    if completion.reasoning:
        text += f"; its thoughts ended with: …{completion.reasoning.strip()[-120:]}"
    return text
