"""From settings to a room: the only place that picks classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from org.chat.loop import Approval
from org.chat.participant import ModelParticipant, Sampling
from org.chat.profiles import PROFILES, Profile, system_prompt
from org.chat.room import Limits, Room, Schedule
from org.chat.state import State
from org.config import Member, Settings
from org.errors import Busy, EnvironmentProblem, ModelError, ServerUnreachable, UsageError
from org.events import Committed, Event, Joined, Posted, Stepped
from org.journal import RoomJournal, read_events, remove_room, room_folder
from org.llm.client import ChatClient
from org.llm.embedded import EmbeddedServer
from org.ports import Sandbox
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.local import Local
from org.sandbox.vm.machine import machine_of
from org.sandbox.vm.place import ThisMachine, VirtualMachine, memory_here, memory_of
from org.tooling import Tool, ToolCall
from org.tools.chat_mode import chat_mode
from org.tools.python_run import python_run
from org.tools.sh import sh

OLLAMA_CONTEXT = 4096
"""What Ollama gives a model that is not loaded yet, below 24 GB of video memory."""

UNKNOWN_CONTEXT = 8192
CONTEXT_PROBE_S = 3.0
"""How long a room waits to be told the size of a context; a server that stalls is asked later."""
CONNECT_PROBE_S = 2.0
ANSWER_PROBE_S = 10.0
"""A list of models needs no model: even a busy server answers within this."""

Ask = Callable[[str, ToolCall], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a room, beside the settings.

    `room` is its id (empty: the next free number), `resume` goes on with one that exists, `folder`
    is a working folder of the person's own. `ask` puts a tool call before a person, None where
    nobody is. `unsafe_local` lets commands run on this machine itself. `keep` keeps a new room in
    which nothing was said. `progress` is told what takes long. `url` is where others can join the
    room meanwhile.
    """

    room: str = ""
    resume: bool = False
    folder: Path | None = None
    ask: Ask | None = None
    unsafe_local: bool = False
    keep: bool = False
    progress: Callable[[str], None] = field(default=lambda text: None, repr=False)
    url: str = ""
    sampling: Callable[[Sampling], Sampling] = field(default=lambda sampling: sampling, repr=False)
    engines: Mapping[Path, str] = field(default_factory=dict)


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


class Context(NamedTuple):
    """The size of a model's context in tokens, and whether its server has not told it yet."""

    tokens: int
    guessed: bool = False


class Servers:
    """The clients of a session, one for each base URL, and the servers that it started itself."""

    def __init__(
        self,
        settings: Settings,
        stack: AsyncExitStack,
        progress: Callable[[str], None],
        engines: Mapping[Path, str] | None = None,
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._progress = progress
        self._clients: dict[str, ChatClient] = {}
        self._engines = dict(engines or {})
        self._contexts: dict[tuple[str, str], Context] = {}
        self._silent: set[str] = set()

    async def context_of(self, client: ChatClient, model: str, *, again: bool = False) -> int:
        """The size of a model's context as its server runs it, in tokens; a guess while the server does
        not tell. Asked once, and once more with `again` when it was a guess."""
        key = client.base_url, model
        known = self._contexts.get(key)
        if known is None and client.base_url in self._silent and not again:
            known = self._contexts[key] = Context(UNKNOWN_CONTEXT, guessed=True)
        if known is None or (known.guessed and again):
            try:
                async with asyncio.timeout(CONTEXT_PROBE_S):
                    known = await _context_of(client, model)
            except TimeoutError:
                self._silent.add(client.base_url)
                known = known or Context(UNKNOWN_CONTEXT, guessed=True)
            self._contexts[key] = known
        return known.tokens

    def guesses(self, client: ChatClient, model: str) -> bool:
        """Whether what `context_of` said is a guess."""
        known = self._contexts.get((client.base_url, model))
        return known is not None and known.guessed

    async def of(self, member: Member, joined: Joined | None = None) -> tuple[ChatClient, str]:
        """(client, model) for a participant. Raises `UsageError` when no model was chosen."""
        chosen = member.model or self._settings.model
        source = self._settings.sources["participant" if member.model else "model"]
        if joined and (not chosen or self._settings.sources.get("model") != "flag"):
            chosen = joined.model
        if not chosen:
            raise UsageError(
                "no model was chosen", "take one with `-m NAME` or ORG_MODEL; `org models` lists them"
            )
        return await self.of_model(member, chosen, self._folder_of(source))

    async def of_model(self, member: Member, model: str, folder: Path = Path()) -> tuple[ChatClient, str]:
        """(client, name) of a model of a participant's server, or of a model file, relative to `folder`."""
        if model.endswith(".gguf"):
            try:
                path = (folder / Path(model).expanduser()).resolve()
            except (RuntimeError, ValueError):  # nobody's home, or no path
                raise UsageError(f"no such model file: `{model}`") from None
            return await self._file(path)
        return await self.client(member.base or self._settings.base), model

    async def client(self, base: str) -> ChatClient:
        if base not in self._clients:
            timeouts = self._settings.client
            self._clients[base] = await self._stack.enter_async_context(
                ChatClient(
                    base,
                    api_key=self._settings.api_key(base),
                    connect_timeout_s=timeouts.connect_timeout_s,
                    idle_timeout_s=timeouts.idle_timeout_s,
                )
            )
        return self._clients[base]

    def _folder_of(self, source: str) -> Path:
        """What a relative path is relative to: a settings file means its own folder."""
        places = self._settings.places
        files = (places.project_file, places.user_file)
        return next((file.parent for file in files if file and str(file) == source), Path())

    async def _file(self, path: Path) -> tuple[ChatClient, str]:
        """A model file, served by llama.cpp in a child process of ours. The whole path is the model's
        name, so that a room that is resumed from anywhere finds the file again."""
        if path not in self._engines:
            if not path.is_file():
                raise UsageError(f"no such model file: `{path}`")
            self._progress(f"loading {path.name}")
            server = await self._stack.enter_async_context(EmbeddedServer(path, str(path)))
            self._engines[path] = server.base_url
        return await self.client(self._engines[path]), str(path)


@asynccontextmanager
async def open_session(settings: Settings, opening: Opening) -> AsyncIterator[Session]:
    """A room with its journal, models and sandbox, until the block ends.

    Raises `Busy` when another process writes the room, `UsageError` for a room that is not there,
    `EnvironmentProblem` when `[sandbox] require` cannot be met.
    """
    async with AsyncExitStack() as stack:
        journal, room_id = await _journal(settings, opening)
        if not (opening.resume or opening.keep):
            stack.callback(_drop_unused, rooms_of(settings), room_id)
        await stack.enter_async_context(journal)
        workspace = opening.folder or room_folder(rooms_of(settings), room_id) / "work"
        _make(workspace, exist_ok=True)
        name = "" if opening.folder else room_id
        sandbox, place = await choose_place(
            settings, workspace, unsafe_local=opening.unsafe_local, in_machine=name
        )
        if isinstance(sandbox, VirtualMachine) and not opening.resume:
            await sandbox.clear()
        history = [entry.event for entry in journal.read()]
        if settings.model is None:
            settings = replace(settings, model=_model_of(history))
        servers = Servers(settings, stack, opening.progress, opening.engines)
        session = Session(settings, opening, room_id, workspace, sandbox, place, servers)
        await enter_room(session, stack, await _roster(session, history), history, journal)
        yield session


async def enter_room(
    session: Session,
    stack: AsyncExitStack,
    participants: Sequence[ModelParticipant],
    history: Sequence[Committed],
    journal: RoomJournal | None,
) -> None:
    """Make the room of a session, until the stack is closed. Without a journal nothing of it is kept."""
    settings = session.settings
    limits = settings.limits
    session.room = Room(
        participants=participants,
        people=(settings.name,),
        journal=journal,
        files=session.sandbox,
        limits=Limits(limits.turns, limits.seconds, limits.tokens, limits.tools),
        schedule=Schedule(settings.policy, settings.parallel, settings.per_model),
        history=history,
    )
    await stack.enter_async_context(session.room)
    await stack.enter_async_context(session.watching())


def rooms_of(settings: Settings) -> Path:
    """The folder of all rooms."""
    return settings.places.rooms


def _drop_unused(rooms: Path, room: str) -> None:
    """Leave no trace of a new room in which nothing was said and nothing was made."""
    work = room_folder(rooms, room) / "work"
    if any(work.iterdir() if work.is_dir() else ()):
        return
    if not any(isinstance(entry.event, Posted) for entry in read_events(room_folder(rooms, room))):
        remove_room(rooms, room)


async def choose_place(
    settings: Settings, workspace: Path, *, unsafe_local: bool, in_machine: str, tried: bool = False
) -> tuple[Sandbox | None, str]:
    """(where commands run, in words); without a place tools that run commands are off.

    `in_machine` is what the workspace is called in a machine, empty for a folder of the person's own,
    which is in none. `tried` says that bubblewrap works here. A machine that is up is taken before
    anything weaker, and one that is there and does not answer is an error. Never falls back to this
    machine itself. Raises `EnvironmentProblem` when a sandbox is required, `UsageError` for a folder
    that is not in the machine.
    """
    chosen, required = settings.sandbox.place, settings.sandbox.require
    if required == "vm" and (unsafe_local or chosen in ("local", "bubblewrap")):
        raise EnvironmentProblem("the settings require a machine: `sandbox.require`", "`--sandbox vm`")
    if chosen == "local" and not unsafe_local and ThisMachine().there:
        raise EnvironmentProblem("here the rooms are kept: commands run as another user", "`--sandbox vm`")
    if unsafe_local or chosen == "local":
        return Local(workspace, unsafe=unsafe_local), "on this machine itself, without a wall"
    if chosen in ("auto", "vm"):
        found = await _in_machine(settings, in_machine)
        if found is not None:
            return found
        if chosen == "vm" or required == "vm":
            raise EnvironmentProblem("no machine is up", "`org vm up` starts one")
    sandbox = Bubblewrap(workspace)
    try:
        if not tried:
            await sandbox.check()
    except EnvironmentProblem as error:
        if chosen == "bubblewrap" or required:
            raise
        return None, f"nowhere: {error.message}" + (f" ({error.hint})" if error.hint else "")
    note = "" if chosen == "bubblewrap" else "; no machine is up (`org vm up`)"
    return sandbox, f"in bubblewrap: no network, only the workspace can be written{note}"


async def _in_machine(settings: Settings, workspace: str) -> tuple[Sandbox, str] | None:
    """The machine as a place, the one that this process is in itself first; None when none runs.
    Raises `EnvironmentProblem`, `UsageError`."""
    here = ThisMachine()
    if here.there and workspace:
        return VirtualMachine(here, workspace, memory=memory_here()), "in this machine, as the user `job`"
    if here.there:
        raise UsageError("commands run as another user here, who is not in your folders", "leave `-C` out")
    machine = machine_of(settings.places.state)
    status = await machine.status()
    if status.state in ("absent", "down"):
        return None
    if status.state != "up":
        raise EnvironmentProblem(
            f"the machine `{machine.name}` does not answer: {status.state}",
            "`org vm status` shows it; `--sandbox bubblewrap` does without it",
        )
    if not workspace:
        raise UsageError(
            "a folder of yours is not in the machine that is up",
            "leave `-C` out, or take a weaker place: `--sandbox bubblewrap`",
        )
    place = VirtualMachine(machine, workspace, memory=memory_of(status))
    walls = " + ".join(status.facts["walls"])
    return place, f"in the machine `{machine.name}`: no network but the model server; {walls}"


async def list_models(settings: Settings) -> tuple[ChatClient, list[str]]:
    """The client of the chosen server, to be closed, and the models that it offers.

    Raises `ServerUnreachable` soon when nothing is there, or nothing that answers.
    """
    client = ChatClient(
        settings.base, api_key=settings.api_key(settings.base), connect_timeout_s=CONNECT_PROBE_S
    )
    try:
        async with asyncio.timeout(ANSWER_PROBE_S):
            return client, await client.models()
    except TimeoutError as error:
        await client.aclose()
        raise ServerUnreachable(
            f"no answer from the model server at {settings.base} within {ANSWER_PROBE_S:g} s"
        ) from error
    except BaseException:
        await client.aclose()
        raise


async def _roster(session: Session, history: Sequence[Committed]) -> list[ModelParticipant]:
    """Who takes part: as configured, or as it was when a room is resumed."""
    configured = {member.id: member for member in session.settings.participants}
    entered: dict[str, Joined | None] = dict.fromkeys(configured)
    if history:
        members = State.of(history).members
        entered = {name: m.joined for name, m in members.items() if m.joined.profile in PROFILES}
    names = [session.settings.name, *entered]
    return [
        await session.participant(
            configured.get(name, Member(name)), [other for other in names if other != name], joined
        )
        for name, joined in entered.items()
    ]


def _model_of(history: Sequence[Committed]) -> str | None:
    """The model of a room that is resumed, for whoever joins it."""
    return next((event.model for event in history if isinstance(event, Joined) and event.model), None)


async def _journal(settings: Settings, opening: Opening) -> tuple[RoomJournal, str]:
    """(the journal, the room's id). A new room without a name takes the next free number."""
    rooms = rooms_of(settings)
    if opening.room:
        folder = room_folder(rooms, opening.room)
        if opening.resume and not folder.is_dir():
            raise UsageError(f"there is no room `{opening.room}`", "`org rooms` lists them")
        if not opening.resume and folder.is_dir():
            raise UsageError(
                f"the room `{opening.room}` exists", f"go on in it with `org chat --resume {opening.room}`"
            )
        return await asyncio.to_thread(RoomJournal.open, folder, url=opening.url), opening.room
    number = 1 + max((int(p.name[5:]) for p in rooms.glob("room-*") if p.name[5:].isdecimal()), default=0)
    while True:
        room_id = f"room-{number}"
        folder = room_folder(rooms, room_id)
        try:
            _make(folder)
            return await asyncio.to_thread(RoomJournal.open, folder, url=opening.url), room_id
        except (FileExistsError, Busy):  # somebody took this number a moment ago
            number += 1


def _make(folder: Path, *, exist_ok: bool = False) -> None:
    """Make a private folder. Raises `FileExistsError` when it is not ours, else `EnvironmentProblem`."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok, mode=0o700)
    except FileExistsError:
        if exist_ok:  # then it is no folder
            raise EnvironmentProblem(f"it is in the way of a folder: `{folder}`") from None
        raise
    except OSError as error:
        raise EnvironmentProblem(
            f"no room can be kept at `{folder}`: {error.strerror}",
            "name a folder that can be written in XDG_STATE_HOME",
        ) from error


async def _context_of(client: ChatClient, model: str) -> Context:
    try:
        props = await client.get_json("//props")
        settings = props.get("default_generation_settings")
        if isinstance(settings, dict) and (told := _count(settings.get("n_ctx"))):
            return Context(told)
    except ServerUnreachable:
        return Context(UNKNOWN_CONTEXT, guessed=True)
    except ModelError:
        pass  # not llama.cpp's own server
    try:
        loaded = (await client.get_json("//api/ps")).get("models", 0)
    except ServerUnreachable:
        return Context(UNKNOWN_CONTEXT, guessed=True)
    except ModelError:
        return Context(UNKNOWN_CONTEXT)  # nor Ollama: nobody tells
    if not isinstance(loaded, list | None):
        return Context(UNKNOWN_CONTEXT)
    for entry in loaded or ():
        names = (entry.get("name"), entry.get("model")) if isinstance(entry, dict) else ()
        if model in names or f"{model}:latest" in names:
            return Context(_count(entry.get("context_length")) or OLLAMA_CONTEXT)
    return Context(OLLAMA_CONTEXT, guessed=True)  # not loaded before it is asked something


def _count(value: object) -> int:
    """A number of tokens out of a server's answer, 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
