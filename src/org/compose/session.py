"""An open room with what it runs on: its participants, their tools, and what their models can hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from org.chat.loop import Approval
from org.chat.participant import ModelParticipant, Sampling
from org.chat.profiles import PROFILES, Profile, system_prompt
from org.chat.room import Room
from org.compose.opening import Opening
from org.compose.servers import Servers
from org.config import Member, Settings
from org.errors import UsageError
from org.events import Event, Joined, Stepped
from org.llm.client import ChatClient
from org.ports import Sandbox
from org.sandbox.vm.place import VirtualMachine
from org.tooling import Tool
from org.tools.chat_mode import chat_mode
from org.tools.python_run import python_run
from org.tools.sh import sh


@dataclass(slots=True)
class Session:
    """An open room with what it runs on. `place` says in words where commands run."""

    settings: Settings
    opening: Opening
    id: str
    workspace: Path
    sandbox: Sandbox | None
    place: str
    servers: Servers
    room: Room = field(init=False)
    _asking: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False, repr=False)

    @property
    def files_in(self) -> str:
        """Where the room's files are, in words."""
        if isinstance(self.sandbox, VirtualMachine):
            return f"{self.sandbox.folder} there"
        return str(self.workspace)

    async def participant(
        self, member: Member, others: Sequence[str], joined: Joined | None = None
    ) -> ModelParticipant:
        """A participant as configured, beside `others`; `joined` is how it entered this room before."""
        profile = PROFILES[joined.profile if joined else member.profile]
        client, model = await self.servers.of(member, joined)
        if joined is None:
            text = system_prompt(profile, member.id, others, member.system or "")
            joined = Joined(member.id, "model", profile.name, model, text)
        sampling = self._sampling(member, await self._context_of(client, model))
        approval = Approval(self.opening.ask, self.settings.tools.embedded)
        tools = self._tools(profile, member.id)
        return ModelParticipant(replace(joined, model=model), profile, client, tools, sampling, approval)

    async def set_model(self, name: str, model: str) -> None:
        """Let a participant speak through another model of its server, or a model file. Raises
        `UsageError`, and `EnvironmentProblem` for a file that cannot be served."""
        participant = self.room.participants.get(name)
        if not isinstance(participant, ModelParticipant):
            raise UsageError(f"no participant with a model is called `{name}`")
        client, model = await self.servers.of_model(self._member(name), model)
        context = await self._context_of(client, model)
        participant.model = client
        participant.introduction = replace(participant.introduction, model=model)
        participant.sampling = self._sampling(self._member(name), context)
        await self.room.note_model(name, model)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Until the block ends, put the true context in the place of a guess once a model has answered."""
        forget = self.room.observe(self._learn)
        try:
            yield
        finally:
            forget()
            for task in self._asking.values():
                task.cancel()
            for ended in await asyncio.gather(*self._asking.values(), return_exceptions=True):
                if isinstance(ended, Exception):  # a cancelled one is none
                    raise ended

    def _learn(self, event: Event) -> None:
        if not isinstance(event, Stepped):
            return
        participant = self.room.participants.get(event.participant)
        asked = self._asking.get(event.participant)
        if isinstance(participant, ModelParticipant) and (asked is None or asked.done()):
            client, model = participant.model, participant.introduction.model
            if isinstance(client, ChatClient) and self.servers.guesses(client, model):
                asking = self._ask_again(client, model)
                self._asking[event.participant] = asyncio.create_task(asking, name=f"context of {model}")

    async def _ask_again(self, client: ChatClient, model: str) -> None:
        context = await self.servers.context_of(client, model, again=True)
        for name, participant in self.room.participants.items():
            if (
                isinstance(participant, ModelParticipant)
                and participant.model is client
                and participant.introduction.model == model
            ):
                participant.sampling = self._sampling(self._member(name), context)

    def _member(self, name: str) -> Member:
        """How a participant is configured; one that is not, is as by default."""
        found = (member for member in self.settings.participants if member.id == name)
        return next(found, Member(name))

    async def _context_of(self, client: ChatClient, model: str) -> int:
        return self.settings.context_tokens or await self.servers.context_of(client, model)

    def _sampling(self, member: Member, context: int) -> Sampling:
        usual = Sampling(context_tokens=context, steps=self.settings.limits.steps)
        sampling = replace(
            usual,
            temperature=usual.temperature if member.temperature is None else member.temperature,
            max_tokens=min(member.max_tokens or usual.max_tokens, usual.longest),
        )
        return self.opening.sampling(sampling)

    def _tools(self, profile: Profile, name: str) -> tuple[Tool, ...]:
        async def set_mode(mode: str) -> None:
            await self.room.set_mode(name, mode)

        made: dict[str, Tool] = {"chat_mode": chat_mode(set_mode)}
        if self.sandbox is not None:
            made |= {"sh": sh(self.sandbox), "python_run": python_run(self.sandbox)}
        policies = self.settings.tools
        allowed = {"sh": policies.sh, "python_run": policies.python_run, "chat_mode": policies.chat_mode}
        return tuple(
            replace(made[tool], policy=allowed[tool])
            for tool in profile.tools
            if tool in made and allowed[tool] != "off"  # what would always be refused is not offered
        )
