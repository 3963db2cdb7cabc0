"""A participant that is a model: profile, model and tools, and a prompt that is kept within its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from org.chat.context import SUMMARY_REQUEST, Estimate, as_text, clip, cut_point, render
from org.chat.loop import Approval, Means, take_turn
from org.chat.profiles import Profile
from org.errors import ContextExceeded, ModelError
from org.events import NO_SUMMARY, Compacted, Delta, Joined, Notice
from org.messages import ChatRequest, Completion, Entry, Usage, View
from org.ports import ChatModel, Turn
from org.tooling import Tool

KEPT_AFTER_COMPACTION = 0.4
"""The part of the budget that stays: a big step, so that the prefix seldom changes."""

WORTHWHILE = 0.1
"""The part of a view that a compaction must replace: it costs a completion and the server's cache."""

ASKED_LENGTH = 2000
"""Characters of the newest messages that a summary repeats, and at most the half of an entry."""

ENTRY_SHARE = 0.25
"""The part of the budget that one entry may take: a message, a result and what stands before them fit."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model is asked. `context_tokens` is the size of its context, prompt and answer together;
    `steps` is how many completions a turn may take; `stop` are texts at which the server ends one."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048
    context_tokens: int = 8192
    steps: int = 16
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def prompt_budget(self) -> int:
        return max(512, self.context_tokens - min(self.max_tokens, self.context_tokens // 2))

    @property
    def longest(self) -> int:
        """Tokens that an answer may have at most: the prompt needs its part of the context."""
        return max(256, self.context_tokens // 2)

    @property
    def entry_limit(self) -> int:
        """Characters that one entry of a prompt may take."""
        return int(ENTRY_SHARE * self.prompt_budget / Estimate.PER_CHARACTER)


@dataclass(slots=True)
class ModelParticipant:
    """Speaks through a `ChatModel`; `identity` names it, its model and its system prompt."""

    identity: Joined
    profile: Profile
    model: ChatModel
    tools: Sequence[Tool] = ()
    sampling: Sampling = Sampling()
    approval: Approval = field(default_factory=Approval)
    _estimate: Estimate = field(default_factory=Estimate, repr=False)
    _estimated: tuple[View, str] | None = field(default=None, repr=False)  # of which view and model
    _unbilled: Usage = field(default=Usage(), repr=False)  # of summaries, counted with the next step
    _warned: bool = field(default=False, repr=False)

    @property
    def introduction(self) -> Joined:
        """Its identity, with how much one entry of its prompts may take as it is asked now."""
        return replace(self.identity, limit=self.sampling.entry_limit)

    @introduction.setter
    def introduction(self, joined: Joined) -> None:
        self.identity = joined

    async def respond(self, turn: Turn) -> str:
        answer_only = self.profile.shows == "answer"
        means = Means(self._complete, self.tools, self.approval, self.sampling.steps, answer_only)
        return await take_turn(turn, means)

    async def compact(self, turn: Turn) -> bool:
        """Replace the older part of the view by the model's own summary; whether that was worth it."""
        view = turn.view()
        entries = view.since(0)
        total = self._estimate_for(view).tokens(self._size(view))
        share = KEPT_AFTER_COMPACTION * self.sampling.prompt_budget / max(total, 1)
        count = cut_point(entries, int(view.size * min(share, KEPT_AFTER_COMPACTION)))
        dropped, kept = entries[1 : 1 + count], entries[1 + count :]
        if sum(entry.size for entry in dropped) <= WORTHWHILE * view.size:
            return False
        summary = await self._summary(dropped)
        asked = render(turn.causes, turn.participant, self.sampling.entry_limit)
        if asked and all(entry.content != asked for entry in kept):
            # In the middle of a turn: what it is about must not hang on a summary.
            repeated = clip(asked, min(ASKED_LENGTH, self.sampling.entry_limit // 2))
            summary = f"{summary or NO_SUMMARY}\n\nThe newest you were told:\n{repeated}"
        event = Compacted(turn.participant, count, summary)
        await turn.commit(event)
        how = "summarised" if event.summarised else "dropped without a summary, none could be made"
        turn.emit(Notice(f"older context was {how} ({count} entries)", "", turn.participant))
        return True

    async def _complete(self, turn: Turn, emit: Callable[[Delta], None]) -> Completion:
        """Ask the model, with a prompt that is made to fit when it is too long, or turns out to be."""
        if self._estimate_for(turn.view()).tokens(self._size(turn.view())) > self.sampling.prompt_budget:
            await self.compact(turn)
        try:
            completion = await self._ask(turn, emit)
        except ContextExceeded:
            if not await self.compact(turn):
                raise
            completion = await self._ask(turn, emit)
        if completion.usage:
            completion = replace(completion, usage=completion.usage + self._unbilled)
            self._unbilled = Usage()
        return completion

    async def _ask(self, turn: Turn, emit: Callable[[Delta], None]) -> Completion:
        view = turn.view()
        completion = await self.model.complete(self._request(view, self.tools), emit)
        if completion.usage and self._estimate_for(view).note(self._size(view), completion.usage.prompt):
            self._warn(turn, self._size(view), completion.usage.prompt)
        return completion

    def _request(self, view: View, tools: Sequence[Tool] = ()) -> ChatRequest:
        sampling = self.sampling
        return ChatRequest(
            self.identity.model,
            view,
            tuple(tool.spec for tool in tools),
            sampling.temperature,
            sampling.top_p,
            sampling.max_tokens,
            sampling.seed,
            sampling.stop,
        )

    async def _summary(self, entries: Sequence[Entry]) -> str:
        limit = int(self.sampling.prompt_budget / Estimate.PER_CHARACTER / 2)
        view = View([Entry("user", f"{as_text(entries, limit)}\n\n---\n\n{SUMMARY_REQUEST}")])
        try:
            # What an answer ends at may stand in a summary.
            request = replace(self._request(view), stop=())
            completion = await self.model.complete(request, lambda delta: None)
        except ModelError:
            return ""  # the marker that stands for it says so
        self._unbilled += completion.usage or Usage()
        return completion.text.strip()

    def _estimate_for(self, view: View) -> Estimate:
        model = self.identity.model
        if self._estimated is None or self._estimated[0] is not view or self._estimated[1] != model:
            self._estimated = view, model
            self._estimate.restart()
        return self._estimate

    def _size(self, view: View) -> int:
        """Characters of the prompt, the descriptions of the tools included."""
        tools = sum(len(t.spec.description) + len(str(t.spec.parameters)) + 60 for t in self.tools)
        return view.size + tools

    def _warn(self, turn: Turn, size: int, counted: int) -> None:
        if self._warned:
            return
        self._warned = True
        turn.emit(
            Notice(
                f"the server dropped a part of the prompt: about {size:,} characters were sent, "
                f"{counted:,} tokens were read",
                "give the model a larger context (OLLAMA_CONTEXT_LENGTH, or `num_ctx` in a Modelfile), "
                f"or set `context_tokens` below {counted}",
                turn.participant,
            )
        )
