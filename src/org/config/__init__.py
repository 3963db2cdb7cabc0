"""Settings: what can be set, where it is looked for, and whom a project's file must be allowed by."""

from org.config.load import Setting, Settings, load
from org.config.places import Places, find_places
from org.config.schema import (
    DEFAULT_ROSTER,
    Limits,
    MachineChoice,
    Member,
    SandboxChoice,
    Timeouts,
    ToolPolicies,
    parse_with,
)
from org.config.starter import starter_toml
from org.config.urls import base_url, is_loopback

__all__ = [
    "DEFAULT_ROSTER",
    "Limits",
    "MachineChoice",
    "Member",
    "Places",
    "SandboxChoice",
    "Setting",
    "Settings",
    "Timeouts",
    "ToolPolicies",
    "base_url",
    "find_places",
    "is_loopback",
    "load",
    "parse_with",
    "starter_toml",
]
