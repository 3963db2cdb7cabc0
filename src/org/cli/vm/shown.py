"""What `org vm` shows of a machine, and of how far its start is."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from org.cli.style import Style
from org.sandbox.vm import box
from org.sandbox.vm.image import Progress
from org.sandbox.vm.machine import Status
from org.wording import ago, clean, duration

JSON_VERSION = 1
_QUIET_S = 2.0  # without a word


HOW = {"boot": "", "snapshot": " from the snapshot", "suspension": " where it was suspended"}
"""The ways in which a machine came up."""


def as_json(status: Status, others: Sequence[Status]) -> str:
    """`others` are told by name and state."""
    document = {
        "version": JSON_VERSION,
        "name": status.name,
        "state": status.state,
        "suspended": status.suspended,
        "pid": status.pid,
        **status.facts,
        "others": [{"name": one.name, "state": one.state, "suspended": one.suspended} for one in others],
    }
    return json.dumps(document, indent=1)


def as_text(status: Status, others: Sequence[Status], now: float, style: Style) -> str:
    lines = [_headline(status, style)]
    if status.facts:
        lines += _facts(status.facts, now, style)
    return "\n".join([*lines, *(_headline(one, style) for one in others)])


def _headline(status: Status, style: Style) -> str:
    words = {
        "absent": "there is none; `org vm up` makes it",
        "down": "suspended; `org vm up` wakes it" if status.suspended else "down; `org vm up` starts it",
        "starting": f"starting (process {status.pid})",
        "ending": f"ending (process {status.pid})",
        "silent": f"it does not answer (process {status.pid}); `org vm down` ends it",
        "up": style.green("up") + f" (process {status.pid})",
    }
    return f"machine  {status.name}: {words[status.state]}"


def _facts(facts: Mapping[str, Any], now: float, style: Style) -> list[str]:
    network, counts = facts["network"], facts["network"]["counts"]
    lines = [
        f"started  {ago(facts['started'], now)}, ready after {duration(facts['boot_s'])}{HOW[facts['way']]}",
        f"walls    {' + '.join(facts['walls'])}",
        f"image    {facts['image']}, memory: {facts['memory_mib']} MiB",
        f"network  no device; the model server only: {network['model_server']}",
        f"         paths: {' '.join(network['paths'])}",
        f"         requests: {counts['requests']}, refused: {counts['refused']}, "
        f"bytes from the guest: {counts['received']:,}, to it: {counts['sent']:,}",
    ]
    for port, here in network["inbound"].items():
        held = network["serving"].get(port)
        state = "nothing serves it" if held is None else f"held here by {clean(held)}" if held else "served"
        lines.append(f"         port {port} of the guest at 127.0.0.1:{here}: {state}")
    missing = [*filter(None, [box.lacking(facts["walls"])]), *facts["missing"]]
    lines += [style.yellow(f"missing  {clean(text)}") for text in missing]
    return lines


class Steps:
    """Progress on a terminal's one line; elsewhere a line for each step."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._last = ""
        self._begun = time.monotonic()

    def step(self, text: str) -> None:
        self._show(text, text)

    def progress(self, progress: Progress) -> None:
        text = progress.what
        if progress.bytes_total:
            text += f" {progress.bytes_done / 1e6:.1f} of {progress.bytes_total / 1e6:.1f} MB"
        if progress.packages_total:
            text += f", packages: {progress.packages_done} of {progress.packages_total}"
        if progress.seconds_left is not None:
            text += f", {duration(progress.seconds_left)} left"
        self._show(progress.what, text)

    def _show(self, step: str, text: str) -> None:
        if self._live:
            room = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\x1b[K{clean(text)[:room]}")
            self._out.flush()
        elif step != self._last:
            self._out.write(f"{clean(step)}\n")
            self._out.flush()
        self._last = step

    def close(self) -> None:
        if self._live and self._last:
            self._out.write("\r\x1b[K")
            self._out.flush()


@contextmanager
def steps_shown() -> Iterator[Steps]:
    """What shows a start's progress on standard error, for as long as the block."""
    steps = Steps(sys.stderr)
    try:
        yield steps
    finally:
        steps.close()


@contextmanager
def later(text: str) -> Iterator[None]:
    """Says on standard error what is waited for, once the block has taken a while; on a terminal, for how
    long. Of a running loop."""
    loop, live = asyncio.get_running_loop(), sys.stderr.isatty()
    began, shown = loop.time(), False
    timer = loop.call_later(_QUIET_S, lambda: say())

    def say() -> None:
        nonlocal timer, shown
        shown = True
        if live:
            timer = loop.call_later(1.0, say)
        waited = f": {duration(loop.time() - began)}"
        sys.stderr.write(f"\r\x1b[K{clean(text)}{waited}" if live else f"{clean(text)}\n")
        sys.stderr.flush()

    try:
        yield
    finally:
        timer.cancel()
        if live and shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
