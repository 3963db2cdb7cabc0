"""What a slot says of itself: looked at when it is asked, never stored."""

from __future__ import annotations

import os
import pwd
import socket
import time
from typing import Any

from org.ops.generation import Generation
from org.ops.layout import state_folder
from org.ops.slot import Slot

NOT_GUARANTEED = (
    "that what answers is this commit: the program does not name it",
    "at a swap, requests over connections that the program itself closes as idle",
    "at a swap, connections that still live at the drain's deadline: they are cut",
)
"""Of a program that knows no contract."""
NOT_PREVENTED = (
    "it can read what you can read, keys and rooms included",
    "it can signal your processes; a keeper or supervisor that it ends is noticed",
    "it can change files of yours, its own worktree included",
)
"""Of a candidate that runs as ourselves."""


async def slot(one: Slot) -> dict[str, Any]:
    """All that there is to know of a colour, as JSON has it."""
    serving = one.serving
    wanted = one.wanted
    told: dict[str, Any] = {
        "state": _state(one),
        "commit": serving.plan.commit if serving else wanted.commit if wanted else "",
        "port": one.listener.getsockname()[1],
        "url": url(one.listener),
        "restarts": one.restarts.total,
        "ended": one.ended,
        "trouble": one.trouble,
        "previous": one.previous.commit if one.previous else "",
        "draining": [_draining(old) for old in one.draining],
    }
    if serving is not None:
        told |= await _serving(serving)
    return told


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


def _state(one: Slot) -> str:
    if one.serving is not None:
        return "swapping" if one.starting is not None else "serving"
    if one.starting is not None:
        return "starting"
    return "waiting" if one.wanted is not None else "draining"


async def _serving(generation: Generation) -> dict[str, Any]:
    plan = generation.plan
    before = time.perf_counter()
    said = await generation.health()
    return {
        "pid": generation.pid,
        "uptime_s": round(time.time() - generation.began, 3),
        "folder": plan.folder,
        "state_home": str(state_folder({**plan.env, **plan.more}).parent),
        "health": {
            "ok": said.get("nonce") == plan.nonce and said.get("commit") == plan.commit,
            "status": str(said.get("status", "silent"))[:40],
            "latency_ms": round((time.perf_counter() - before) * 1000, 1),
        },
        "log": {"lost": generation.log["lost"], "why": generation.log["why"]},
        "contract": int(plan.speaks),
        "not_guaranteed": [] if plan.speaks else list(NOT_GUARANTEED),
        "containment": _containment(generation),
    }


def _containment(generation: Generation) -> dict[str, Any]:
    plan = generation.plan
    uid = plan.uid if plan.uid >= 0 else os.getuid()
    return {
        "user": _name(uid),
        "own_user": plan.uid >= 0,
        "shared_because": plan.shared,
        "limits": dict(plan.limits),
        "not_prevented": list(NOT_PREVENTED) if plan.shared else [],
    }


def _draining(old: Generation) -> dict[str, Any]:
    left = old.drain_began + old.plan.drain_s - time.time()
    return {
        "commit": old.plan.commit,
        "pid": old.pid,
        "killed_in_s": round(max(0.0, left), 1),
        "accepts": not old.has_said("draining"),
    }


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
