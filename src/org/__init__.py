"""org: a room in which people and language models talk, call tools and work, safely.

The names of the Python API are imported when they are first used: `import org` costs nothing.
`docs/api.md` shows what can be done with them.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in `typing`, whose import would cost as much as all of `org --version`
if TYPE_CHECKING:
    from typing import Any

    from org.chat.participant import ModelParticipant, Sampling
    from org.chat.profiles import PROFILES, Profile, system_prompt
    from org.chat.room import Limits, Room, Schedule
    from org.errors import ExitCode, OrgError
    from org.events import Joined
    from org.journal import RoomJournal
    from org.llm.client import ChatClient
    from org.llm.extract import Extraction, ToolCallStream, extract_tool_calls
    from org.lock import ChannelLock
    from org.messages import Audience, ChatRequest, Completion, Entry, Message, View
    from org.ports import ChatModel, Journal, Participant, Sandbox, Turn
    from org.sandbox.bubblewrap import Bubblewrap
    from org.tooling import Tool, ToolCall, ToolError, ToolResult, ToolSpec
    from org.tools.python_run import python_run
    from org.tools.sh import sh

_HOMES = {
    "org.chat.participant": ("ModelParticipant", "Sampling"),
    "org.chat.profiles": ("PROFILES", "Profile", "system_prompt"),
    "org.chat.room": ("Limits", "Room", "Schedule"),
    "org.errors": ("ExitCode", "OrgError"),
    "org.events": ("Joined",),
    "org.journal": ("RoomJournal",),
    "org.llm.client": ("ChatClient",),
    "org.llm.extract": ("Extraction", "ToolCallStream", "extract_tool_calls"),
    "org.lock": ("ChannelLock",),
    "org.messages": ("Audience", "ChatRequest", "Completion", "Entry", "Message", "View"),
    "org.ports": ("ChatModel", "Journal", "Participant", "Sandbox", "Turn"),
    "org.sandbox.bubblewrap": ("Bubblewrap",),
    "org.tooling": ("Tool", "ToolCall", "ToolError", "ToolResult", "ToolSpec"),
    "org.tools.python_run": ("python_run",),
    "org.tools.sh": ("sh",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "PROFILES",
    "Audience",
    "Bubblewrap",
    "ChannelLock",
    "ChatClient",
    "ChatModel",
    "ChatRequest",
    "Completion",
    "Entry",
    "ExitCode",
    "Extraction",
    "Joined",
    "Journal",
    "Limits",
    "Message",
    "ModelParticipant",
    "OrgError",
    "Participant",
    "Profile",
    "Room",
    "RoomJournal",
    "Sampling",
    "Sandbox",
    "Schedule",
    "Tool",
    "ToolCall",
    "ToolCallStream",
    "ToolError",
    "ToolResult",
    "ToolSpec",
    "Turn",
    "View",
    "__version__",
    "extract_tool_calls",
    "python_run",
    "sh",
    "system_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
