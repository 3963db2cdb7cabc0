"""`org demo`: a room of three scripted models at work, everything but their words real."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import textwrap
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from org.cli.options import Parser
from org.cli.render import Plain
from org.cli.run import exit_code
from org.cli.style import Style
from org.compose.opening import Opening
from org.compose.rooms import open_session
from org.compose.session import Session
from org.config import DEFAULT_ROSTER, Settings, load
from org.errors import ExitCode
from org.llm.demo_scripts import demo_scripts
from org.llm.scripted import scripted_model
from org.wording import clean

INTRODUCTION = """\
These models only recite. For ones that think: `org` with Ollama up, or `org -m FILE.gguf`.
Server, tool calls, sandbox and room are real.
"""


def parser() -> argparse.ArgumentParser:
    return Parser(prog="org demo", description="Watch a room of three scripted models at work.")


def run(argv: list[str]) -> int:
    """The exit code is that of the exchange. Raises `EnvironmentProblem` without the engine."""
    parser().parse_args(argv)
    print(INTRODUCTION, flush=True)
    demo = demo_scripts()
    settings = load(cwd=Path("/"), flags={}, env=os.environ)
    model = scripted_model(demo.scripts, settings.places.cache / "models")
    roster = tuple(replace(member, system=f"[[{member.id}]]") for member in DEFAULT_ROSTER)
    settings = replace(settings, model=str(model), participants=roster, policy="in-turn")
    return asyncio.run(_watch(settings, demo.task.strip()))


async def _watch(settings: Settings, task: str) -> ExitCode:
    style = Style.for_stream(sys.stdout, os.environ)
    async with open_session(settings, Opening()) as session:
        print(style.dim(f"{session.id} · commands run {session.place}"))
        print(f"\n{style.bold(settings.name)}\n{textwrap.fill(task, 92)}\n", flush=True)
        with ExitStack() as stack:
            view = Plain(sys.stdout, style, session.room, live=Style.is_live(sys.stdout, os.environ))
            stack.callback(view.close)
            session.room.observe(view)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, session.room.interrupt)
            stack.callback(loop.remove_signal_handler, signal.SIGINT)
            stopped = await session.room.say(settings.name, task)
        await _show_files(session, style)
    print(f"\n`org show {session.id} --tools` prints it all again.")
    return exit_code(stopped)


async def _show_files(session: Session, style: Style) -> None:
    """What is left in the workspace."""
    for path in sorted(session.workspace.iterdir()):
        print(f"\n{style.bold(path.name)} {style.dim(f'in {session.workspace}')}")
        if session.sandbox is not None:
            content = await session.sandbox.read_file(path.name)
            print(textwrap.indent(clean(content.decode(errors="replace")).rstrip(), "  "))
