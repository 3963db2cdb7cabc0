"""`org doctor`: what works here, tried and not guessed; the sandbox's walls are attacked from inside."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

from org import __version__
from org.cli.choose import has_engine, no_server
from org.cli.models import offer_of
from org.cli.options import Parser
from org.cli.style import Style
from org.cli.walls import as_json as walls_as_json
from org.cli.walls import as_lines
from org.compose.places import choose_place
from org.compose.servers import Servers, list_models
from org.config import Settings, is_loopback, load
from org.config.urls import base_url
from org.errors import EnvironmentProblem, ExitCode, ModelError, ServerUnreachable
from org.sandbox.limits import Limits
from org.sandbox.local import GUEST_MARKER
from org.sandbox.proof import Proof, prove
from org.sandbox.proof.inside import prove_inside, virtual_machine
from org.sandbox.proof.machine import prove_machine
from org.sandbox.vm.machine import machine_of
from org.sandbox.vm.place import VirtualMachine
from org.wording import clean, duration

JSON_VERSION = 1
LITTLE_SPACE = 1024**3
"""Bytes of free disk below which there is a warning."""

Status: TypeAlias = Literal["ok", "note", "warning", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `missing` is something without which a room cannot work, `failed` a
    wall that the settings require and that is not there; `hint`, where there is something to do about
    it, may have several lines."""

    section: str
    status: Status
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """`proof` is what came of the attacks on the walls, empty when there is no sandbox."""

    findings: tuple[Finding, ...]
    proof: Proof

    @property
    def exit_code(self) -> ExitCode:
        statuses = {finding.status for finding in self.findings}
        if self.proof.fell or "failed" in statuses:
            return ExitCode.FAILED
        if "missing" in statuses:
            return ExitCode.ENVIRONMENT
        return ExitCode.DONE if self.proof.held else ExitCode.INCONCLUSIVE


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org doctor",
        description="Try what a room needs: the model server, the sandbox's walls (attacked from inside),"
        " the disk. Exit code 1: a wall does not hold, or one that the settings require is not there;"
        " 7: there is no model server, no sandbox, or no place for rooms; 3: an attempt proves nothing.",
    )
    made.add_argument("--sandbox", metavar="PLACE", help="the place to try: auto, vm, bubblewrap or local")
    made.add_argument("--base", metavar="URL", help="the model server")
    made.add_argument(
        "--inside",
        action="store_true",
        help="in a virtual machine: prove that only the model server is reached",
    )
    made.add_argument("--all", action="store_true", help="show every attempt, also those that were held")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(argv: list[str]) -> int:
    """Print what was found; the exit code says whether walls and places are as they must be."""
    args = parser().parse_args(argv)
    flags = {"sandbox.place": args.sandbox, "base": args.base}
    settings = load(cwd=Path(), flags=flags, env=os.environ)
    report = asyncio.run(examine(settings, sys.stderr, inside=args.inside or GUEST_MARKER.exists()))
    if args.json:
        print(as_json(report))
    else:
        print(as_text(report, Style.for_stream(sys.stdout, os.environ), every=args.all))
    return report.exit_code


async def examine(settings: Settings, terminal: TextIO, *, inside: bool) -> Report:
    """Look at everything; what takes long is said on `terminal` when it is one."""
    async with _saying("asking the model server", terminal):
        models = [finding async for finding in _models(settings)]
    if inside:
        async with _saying("trying to get out of this virtual machine", terminal):
            place, proof = await _inside(settings)
    else:
        async with _saying("attacking the sandbox's walls from inside", terminal):
            place, proof = await _sandbox(settings)
    findings = (*models, *place, *_state(settings.places.state), *_python(), *_settings(settings))
    return Report(findings, proof)


def as_json(report: Report) -> str:
    document = {
        "version": JSON_VERSION,
        "exit_code": report.exit_code,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        **walls_as_json(report.proof),
    }
    return json.dumps(document, indent=1)


def as_text(report: Report, style: Style, *, every: bool = False) -> str:
    marks = {
        "ok": style.green("ok      "),
        "note": "note    ",
        "warning": style.yellow("warning "),
        "missing": style.red("MISSING "),
        "failed": style.red("FAILED  "),
    }
    lines: list[str] = []
    for section in dict.fromkeys(finding.section for finding in report.findings):
        lines += ["", style.bold(section)]
        for finding in report.findings:
            if finding.section == section:
                lines.append(f"  {marks[finding.status]}{clean(finding.text)}")
                lines += [f"          {style.dim(clean(hint))}" for hint in finding.hint.splitlines()]
        if section == SANDBOX:
            lines += as_lines(report.proof, style, every=every)
    return "\n".join(lines[1:])


# -- what is looked at

MODELS, SANDBOX, STATE, PYTHON, SETTINGS = "models", "sandbox", "rooms", "program", "settings"


async def _models(settings: Settings) -> AsyncIterator[Finding]:
    if settings.model and settings.model.endswith(".gguf"):
        yield _model_file(Path(settings.model).expanduser())
        return
    try:
        client, models = await list_models(settings)
    except ServerUnreachable as error:
        problem = no_server(error, settings)
        yield Finding(MODELS, "missing", problem.message, problem.hint)
        return
    except ModelError as error:
        yield Finding(MODELS, "warning", error.message, error.hint)
        return
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        offer = offer_of(settings, models)
        yield Finding(MODELS, "ok", f"{offer.base} ({offer.base_source}) answers; models: {len(models)}")
        if not is_loopback(offer.base):
            yield Finding(MODELS, "note", "it is on another machine: all that is said in a room goes there")
        if not offer.chosen:
            yield Finding(MODELS, "warning" if not models else "note", "no model is chosen", offer.why)
            return
        context = settings.context_tokens
        if context is None:
            servers = Servers(settings, stack, lambda text: None)
            context = await servers.context_of(client, offer.chosen)
        yield Finding(MODELS, "ok", f"model: {offer.chosen} ({offer.why}), context: {context:,} tokens")


def _model_file(path: Path) -> Finding:
    if not path.is_file():
        return Finding(MODELS, "warning", f"no such model file: `{path}`", "name one with `-m FILE`")
    if not has_engine():
        hint = "`pipx install --force '.[embedded]'`"
        return Finding(MODELS, "warning", f"`{path}` needs the embedded engine, which is not installed", hint)
    return Finding(MODELS, "ok", f"model file: `{path}` ({path.stat().st_size / 1e9:.1f} GB)")


async def _sandbox(settings: Settings) -> tuple[list[Finding], Proof]:
    chosen, source = settings.sandbox.place, settings.sources["sandbox.place"]
    with tempfile.TemporaryDirectory(prefix="org-doctor-") as scratch:
        try:
            sandbox, place = await choose_place(
                settings, Path(scratch), unsafe_local=chosen == "local", in_machine="doctor"
            )
            if sandbox is None:
                return [
                    Finding(SANDBOX, "missing", f"commands run {place}", "until then tools are off")
                ], Proof()
            if isinstance(sandbox, VirtualMachine):
                machine = machine_of(settings.places.state)
                proof = await prove_machine(machine, sandbox, settings.api_key(settings.base))
            else:
                proof = await prove(sandbox, Limits(), outwards=chosen != "local")
        except EnvironmentProblem as error:
            return [_no_place(settings, error)], Proof()
    text = f"place: {chosen} ({source}): commands run {place}"
    if chosen == "local":
        hint = "a room takes this place only with `--unsafe-local`"
        return [Finding(SANDBOX, "warning", text, hint)], proof
    found = [Finding(SANDBOX, "ok" if proof.held else "warning", text)]
    if isinstance(sandbox, VirtualMachine):
        reached = (await machine_of(settings.places.state).status()).facts.get("network", {})
        return [
            *found,
            *_emulator(settings, proof),
            *_relayed(settings, reached.get("model_server", "")),
        ], proof
    return [*found, *_around()], proof


def _no_place(settings: Settings, error: EnvironmentProblem) -> Finding:
    """A place that is not there is worse where the settings require one."""
    required = settings.sandbox.require
    if not required:
        return Finding(SANDBOX, "missing", error.message, error.hint)
    words = f"sandbox.require = {json.dumps(required)} ({settings.sources['sandbox.require']})"
    return Finding(SANDBOX, "failed", f"{words}: {error.message}", error.hint)


def _emulator(settings: Settings, proof: Proof) -> Iterator[Finding]:
    """Whether QEMU has a wall of its own, which counts where it emulates: that alone is no boundary."""
    accel, *others = proof.stands
    if "bubblewrap" in others:
        return
    required = settings.sandbox.require == "vm"
    hint = "`apt-get install bubblewrap`, then `org vm down` and `org vm up`"
    if accel == "TCG":
        status: Status = "failed" if required else "warning"
        yield Finding(SANDBOX, status, "TCG alone is not a boundary: QEMU is not in a box", hint)
    else:
        yield Finding(SANDBOX, "warning", "QEMU is not in a box: nothing is behind the machine's wall", hint)


def _relayed(settings: Settings, server: str) -> Iterator[Finding]:
    """Whether the machine reaches the model server that rooms ask."""
    if server and base_url(server) != settings.base:
        text = f"the machine reaches {base_url(server)}, rooms ask {settings.base}"
        yield Finding(SANDBOX, "note", text, f"`org vm down`, then `org vm up --base {settings.base}`")


def _around() -> Iterator[Finding]:
    if kind := virtual_machine():
        text = f"this is itself a virtual machine: {kind}"
        yield Finding(SANDBOX, "note", text, "`org doctor --inside` tries what can be reached from it")


async def _inside(settings: Settings) -> tuple[list[Finding], Proof]:
    kind = virtual_machine()
    try:
        proof = await prove_inside(settings.base)
    except EnvironmentProblem as error:
        return [Finding(SANDBOX, "missing", error.message, error.hint)], Proof()
    what = f"this virtual machine ({kind})" if kind else "this machine, which is no virtual one by all signs"
    text = f"{what}, from inside: only {settings.base} may be reached"
    hint = "" if proof.held else "`org vm harden --print` prints rules that see to it"
    return [Finding(SANDBOX, "ok" if proof.held and kind else "warning", text, hint)], proof


def _state(folder: Path) -> Iterator[Finding]:
    """The folder where rooms are kept, or where it will be made."""
    there = folder
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        hint = "check its rights and the disk, or set XDG_STATE_HOME"
        yield Finding(STATE, "missing", f"rooms cannot be kept in `{folder}`: {error.strerror}", hint)
        return
    made = "" if there == folder else " (made when the first room opens)"
    status: Status = "ok" if free >= LITTLE_SPACE else "warning"
    yield Finding(STATE, status, f"kept in `{folder}`{made}, free on that disk: {free / 1e9:.1f} GB")
    if there == folder and folder.stat().st_mode & 0o022:
        yield Finding(STATE, "warning", "others can write there too", f"`chmod go-w {folder}`")


def _python() -> Iterator[Finding]:
    yield Finding(PYTHON, "ok", f"org {__version__}, Python {platform.python_version()}: {sys.executable}")
    if has_engine():
        yield Finding(PYTHON, "ok", "embedded engine: installed; `-m ./model.gguf` needs no server")
    else:
        hint = "`pipx install --force '.[embedded]'`"
        yield Finding(
            PYTHON, "note", "embedded engine: not installed (only `-m ./model.gguf` needs it)", hint
        )


def _settings(settings: Settings) -> Iterator[Finding]:
    places = settings.places
    files = [str(path) for path in (places.project_file, places.user_file) if path is not None]
    yield Finding(SETTINGS, "ok", f"files: {', '.join(files) or 'none'}; `org config` prints all values")
    for warning in settings.warnings:
        yield Finding(SETTINGS, "warning", warning)


@asynccontextmanager
async def _saying(what: str, terminal: TextIO) -> AsyncIterator[None]:
    """Say what is being done, and for how long, until it is done."""
    if not terminal.isatty():
        yield
        return
    ticking = asyncio.create_task(_tick(what, terminal))
    try:
        yield
    finally:
        ticking.cancel()
        terminal.write("\r\x1b[K")
        terminal.flush()


async def _tick(what: str, terminal: TextIO) -> None:
    begun = time.monotonic()
    while True:
        terminal.write(f"\r\x1b[K{what}: {duration(time.monotonic() - begun)}")
        terminal.flush()
        await asyncio.sleep(0.2)
