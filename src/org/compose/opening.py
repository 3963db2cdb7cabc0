"""How a room is opened, as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from org.chat.participant import Sampling
from org.tooling import ToolCall

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
