"""A participant that is a model: profile, model and tools, and a prompt that is kept within its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from org.chat.context import SUMMARY_REQUEST, Estimate, as_text, cut_point
from org.chat.loop import Approval, Means, take_turn
from org.chat.profiles import Profile
from org.errors import ContextExceeded, ModelError
from org.events import Compacted, Delta, Joined, Notice
from org.messages import ChatRequest, Completion, Entry, View
from org.ports import ChatModel, Turn
from org.tooling import Tool

KEPT_AFTER_COMPACTION = 0.4
"""The part of the budget that stays: a big step, so that the prefix seldom changes."""

SUMMARY_TOKENS = 700


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model is asked. `context_tokens` is the size of its context, prompt and answer together;
    `steps` is how many completions a turn may take."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048
    context_tokens: int = 8192
    steps: int = 16
    seed: int | None = None

    @property
    def prompt_budget(self) -> int:
        return max(512, self.context_tokens - min(self.max_tokens, self.context_tokens // 2))


@dataclass(slots=True)
class ModelParticipant:
    """Speaks through a `ChatModel`; `introduction` names it, its model and its system prompt."""

    introduction: Joined
    profile: Profile
    model: ChatModel
    tools: Sequence[Tool] = ()
    sampling: Sampling = Sampling()
    approval: Approval = field(default_factory=Approval)
    _estimate: Estimate = field(default_factory=Estimate, repr=False)
    _estimated: View | None = field(default=None, repr=False)
    _warned: bool = field(default=False, repr=False)

    async def respond(self, turn: Turn) -> str:
        answer_only = self.profile.shows == "answer"
        means = Means(self._complete, self.tools, self.approval, self.sampling.steps, answer_only)
        return await take_turn(turn, means)

    async def compact(self, turn: Turn) -> bool:
        """Replace the older part of the view by the model's own summary; whether there was one."""
        view = turn.view()
        entries = view.since(0)
        total = self._estimate_for(view).tokens(self._size(view))
        share = KEPT_AFTER_COMPACTION * self.sampling.prompt_budget / max(total, 1)
        dropped = cut_point(entries, int(view.size * min(share, KEPT_AFTER_COMPACTION)))
        if not dropped:
            return False
        summary = await self._summary(entries[1 : 1 + dropped])
        await turn.commit(Compacted(turn.participant, dropped, summary))
        turn.emit(Notice(f"older context was summarised ({dropped} entries)", "", turn.participant))
        return True

    async def _complete(self, turn: Turn, emit: Callable[[Delta], None], talk_only: bool) -> Completion:
        """Ask the model, with a prompt that is made to fit when it is too long, or turns out to be."""
        if self._estimate_for(turn.view()).tokens(self._size(turn.view())) > self.sampling.prompt_budget:
            await self.compact(turn)
        try:
            return await self._ask(turn, emit, talk_only)
        except ContextExceeded:
            if not await self.compact(turn):
                raise
        return await self._ask(turn, emit, talk_only)

    async def _ask(self, turn: Turn, emit: Callable[[Delta], None], talk_only: bool) -> Completion:
        view = turn.view()
        sampling = self.sampling
        request = ChatRequest(
            self.introduction.model,
            view,
            () if talk_only else tuple(tool.spec for tool in self.tools),
            sampling.temperature,
            sampling.top_p,
            sampling.max_tokens,
            sampling.seed,
        )
        size = self._size(view)
        completion = await self.model.complete(request, emit)
        if completion.usage and self._estimate_for(view).note(size, completion.usage.prompt):
            self._warn(turn, size, completion.usage.prompt)
        return completion

    async def _summary(self, entries: Sequence[Entry]) -> str:
        limit = int(self.sampling.prompt_budget / Estimate.PER_CHARACTER / 2)
        view = View([Entry("user", f"{as_text(entries, limit)}\n\n---\n\n{SUMMARY_REQUEST}")])
        request = ChatRequest(self.introduction.model, view, max_tokens=SUMMARY_TOKENS, temperature=0.2)
        try:
            completion = await self.model.complete(request, lambda delta: None)
        except ModelError:
            return ""  # the marker that stands for it says so
        return completion.text.strip()

    def _estimate_for(self, view: View) -> Estimate:
        if self._estimated is not view:
            self._estimated, self._estimate = view, Estimate()
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
