"""One completion while it comes in: bytes to payloads to text, reasoning and calls."""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from contextlib import suppress

from org.errors import ServerRefused, StreamBroken
from org.events import Delta
from org.llm import wire
from org.llm.assemble import Assembler, PairJoiner
from org.llm.extract import ToolCallStream
from org.llm.http import Response
from org.llm.sse import BOM, Splitter
from org.llm.think import ThinkSplitter
from org.messages import ChatRequest, Completion
from org.tooling import ToolCall


class Answer:
    """One completion while it comes in: bytes to payloads to text, reasoning and calls."""

    def __init__(self, request: ChatRequest, emit: Callable[[Delta], None]) -> None:
        self._emit = emit
        self._splitter = Splitter()
        self._assembler = Assembler()
        self._text_pairs = PairJoiner()
        self._reasoning_pairs = PairJoiner()
        self._think = ThinkSplitter()
        self._calls = ToolCallStream(wire.schemas(request.tools))
        self._reasoning: list[str] = []
        self._begun = False

    @property
    def swallowed(self) -> bool:
        return self._assembler.swallowed

    def begun(self) -> bool:
        """Whether anything of the answer has come, so that asking again would repeat it."""
        return self._begun

    def feed(self, data: bytes) -> bool:
        """Take bytes of the stream; whether it is over."""
        self._take(self._splitter.feed(data))
        return self._assembler.done

    def end(self, response: Response) -> None:
        """The answer is over. Raises `StreamBroken` when the server did not say so itself."""
        body = response.body
        if not body:
            with suppress(StreamBroken):  # cut within an event: what came before it decides
                self._take(self._splitter.finish())
        elif body.lstrip().startswith(b"{"):
            self._take([body])
        elif body.lstrip(BOM + b"\r\n").startswith((b"data:", b":", b"event:")):  # not declared as a stream
            self._take([*self._splitter.feed(body), *self._splitter.finish()])
        else:
            kind = response.headers.get("content-type", "something unnamed")
            raise ServerRefused(
                f"the server answered a chat with {kind}",
                "is this the address of a model server, with its path (`/v1`)?",
                status=response.status,
            )
        if not self._assembler.complete:
            raise StreamBroken(
                "the server ended the stream early, without a finish reason",
                "the model's runner may have failed: the server's own log says why (`ollama serve`)",
            )

    def completion(self) -> Completion:
        last, thought = self._think.feed(self._text_pairs.finish())
        said, rest, unclosed = self._think.finish()
        thought = self._reasoning_pairs.finish() + thought + rest
        shown = self._calls.feed(last + said)
        if unclosed:
            # Only a closed thought is surely none of the answer: an unclosed one may hold the call.
            self._calls.feed(unclosed)
        extraction = self._calls.finish()
        if unclosed:
            text = ""
        else:
            text = extraction.content
            if not self._reasoning and not thought:
                text, thought = _after_unopened_thought(text)
            self._show(shown + extraction.tail, "")
        self._reasoning.append(thought)
        calls = (*self._assembler.calls(new_call_id), *map(_with_id, extraction.calls))
        # The last call of an answer that was cut by length has half its arguments: none is run.
        cut = self._assembler.finish == "length" and bool(calls)
        return Completion(
            text=text,
            calls=() if cut else calls,
            reasoning="".join(self._reasoning),
            finish=self._assembler.finish,
            incomplete=cut or bool(extraction.incomplete),
            usage=self._assembler.usage,
        )

    def _take(self, payloads: list[bytes]) -> None:
        run: list[str] = []  # pieces in a row that are all text, or all reasoning
        thinking = False
        try:
            for payload in payloads:
                text, thought = self._assembler.feed(payload)
                if thought:
                    if run and not thinking:
                        self._deliver(run, thinking=False)
                        run = []
                    thinking = True
                    run.append(thought)
                if text:
                    if run and thinking:
                        self._deliver(run, thinking=True)
                        run = []
                    thinking = False
                    run.append(text)
        finally:  # what came before an error is shown, too
            if run:
                self._deliver(run, thinking=thinking)

    def _deliver(self, run: list[str], *, thinking: bool) -> None:
        self._begun = True
        if thinking:
            text, thought = "", self._reasoning_pairs.feed("".join(run))
        else:
            text, thought = self._think.feed(self._text_pairs.feed("".join(run)))
            text = self._calls.feed(text)
        if thought:
            self._reasoning.append(thought)
        self._show(text, thought)

    def _show(self, text: str, reasoning: str) -> None:
        if reasoning:
            self._emit(Delta(reasoning, "reasoning"))
        if text:
            self._emit(Delta(text))


ALPHANUMERIC = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Nine letters and digits: what the strictest chat templates accept."""
    return "".join([ALPHANUMERIC[byte % len(ALPHANUMERIC)] for byte in os.urandom(9)])


def _with_id(call: ToolCall) -> ToolCall:
    return ToolCall(new_call_id(), call.name, call.arguments, call.origin, call.error)


def _after_unopened_thought(text: str) -> tuple[str, str]:
    """(text, thought) of an answer whose template opened the thought before the answer began."""
    thought, mark, rest = text.partition("</think>")
    return (rest.lstrip("\n"), thought) if mark else (text, "")
