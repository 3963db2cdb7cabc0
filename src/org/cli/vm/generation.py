"""`org vm generation`: a verb of generations, carried out in a machine."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from org.cli.vm.shown import later, steps_shown
from org.cli.vm.verb import Call, Verb, known
from org.errors import EnvironmentProblem, OrgError, SandboxGone, UsageError
from org.ops import place, program, settings, trust, user
from org.ops.cli import compare, fitness
from org.ops.cli.answer import require_writable
from org.ops.fitness import tasks
from org.ops.git import Git
from org.ops.layout import Layout
from org.ops.program import Program
from org.sandbox.vm import layout
from org.sandbox.vm.channel import Attached
from org.sandbox.vm.git_host import Repository
from org.sandbox.vm.git_programs import STATE
from org.sandbox.vm.install import install
from org.sandbox.vm.programs import Names, ProgramThere, path_there
from org.wording import clean

_SERVED_BY_A_SUPERVISOR = frozenset(
    {"start", "stop", "status", "fitness", "promote", "rollback", "recover", "compare"}
)
_TAKES_IN = frozenset({"start", "candidate", "fitness", "promote", "compare"})
_WITH_FILES = {"fitness": fitness.parser, "compare": compare.parser}
_TELLS_OF_BRANCHES = frozenset({"start", "candidate", "promote", "rollback", "recover", "status", "history"})


@dataclass(slots=True)
class Carried:
    """Files that a verb reads or writes here: what the verb is told of them, more words, and what each is
    called there, by the paths that the person named."""

    words: list[str] = field(default_factory=list)
    read: dict[Path, str] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Do a verb of generations (`start`, `promote`, ...) in the machine, with this folder's program: its"
        " commits go in, main and the candidate come out as the branches `org/main` and `org/cand/...`."
        " While the machine `default` is up, the verbs do this by themselves."
    )
    parser.add_argument("generation_verb", metavar="VERB", help="what to do, as in `org VERB`")
    parser.add_argument("words", metavar="WORDS", nargs=argparse.REMAINDER, help="what belongs to it")


def is_for_programs(args: argparse.Namespace) -> bool:
    """Whether all that is said is to be one JSON object, also what goes wrong before the verb begins."""
    return args.verb == "generation" and "--json" in args.words


async def _generation(call: Call) -> int:
    verb, words = call.args.generation_verb, [word for word in call.args.words if word != "--here"]
    here = program.find(Path(), os.environ)
    branch = here.main()
    main = branch.commit
    trusted = _trusted(here, main, verb)
    carried = carried_by(verb, words)
    for path in carried.written:
        require_writable(str(path))
    await known(call.machine)
    with later(f"waiting for the machine `{call.machine.name}` to answer"):
        facts = (await call.machine.up_or_gone()).facts
    memory = int(facts["memory_mib"]) * 1024**2
    own = layout.fetched(call.settings.places.state, call.machine.name, f"programs/{here.layout.root.name}")
    there = ProgramThere(call.machine.channel, memory, names_of(here), own)
    repository = Repository(here.checkout.git)
    await _prepare(call, there, repository, main, trusted, verb)
    here.remember(branch)
    for path, name in carried.read.items():
        await there.put(path, name)
    ports = facts["network"]["inbound"]
    env = _environment(call, here, ports, carried) | (user.author(os.environ) if verb == "candidate" else {})
    async with there.running([verb, *words, *carried.words], env) as org:
        await _shown(org, verb)
    code = _exit_code(org, verb)
    for path, name in carried.written.items():
        data = await there.taken(name)
        if data is not None:
            _write(path, data)
    if verb in _TELLS_OF_BRANCHES:
        with later("bringing main and the candidates here"):
            await _deliver(there, repository)
    return code


def _exit_code(org: Attached, verb: str) -> int:
    """Raises `EnvironmentProblem` for a verb that could not say itself how it ended."""
    if org.code is None:
        raise SandboxGone("the machine did not say how the verb ended")
    if org.code < 0:
        end = "for want of memory" if org.out_of_memory else f"by signal {-org.code}"
        more = "; `org vm down`, `org vm up --memory MIB` gives it more" if org.out_of_memory else ""
        raise EnvironmentProblem(f"`org {verb}` was ended in the machine, {end}", f"`org recover`{more}")
    return org.code


async def _deliver(there: ProgramThere, repository: Repository) -> None:
    """Bring the branches here. When that fails, what the verb did is done all the same."""
    try:
        await there.deliver(repository)
    except OrgError as error:
        print(f"org: `org/main` is not up to date here: {error.message}", file=sys.stderr)
        print("     `org status` brings it again", file=sys.stderr)


async def _prepare(
    call: Call, there: ProgramThere, repository: Repository, main: str, trusted: str, verb: str
) -> None:
    """Have this org, this program and its supervisor there."""
    with steps_shown() as steps:
        installed = await install(call.machine, call.settings.places.cache, steps.progress)
    with later("bringing your commits into the machine"):
        await there.bring(repository, main)
    if trusted:
        await there.trust(trusted)
    if verb in _SERVED_BY_A_SUPERVISOR:
        with later("starting the program's supervisor in the machine"):
            why = await there.supervise()
        if why:
            print(
                f"org: {why}: what it served is not served any more\n"
                "     `org recover` ends what was interrupted, `org start current` serves again",
                file=sys.stderr,
            )
        elif not installed.already:
            await there.renew()


def _trusted(here: Program, main: str, verb: str) -> str:
    """What the person trusts to be started, for a verb that may take it in there. Raises `ConfigError` when
    they do not trust what they want to start."""
    if verb not in _TAKES_IN:
        return ""
    missing, text = Git(here.checkout.git).ask("cat-file", "blob", f"{main}:{settings.FILE}", fine=(0, 128))
    if missing:
        return ""  # the verb says so
    if verb == "start":
        trust.require(os.environ, here.checkout.folder, text)
    return text if trust.holds(os.environ, here.checkout.folder, text) else ""


def names_of(here: Program) -> Names:
    name = here.layout.root.name
    repository = Path(STATE, f"{name}.git")
    kept = Layout.of({"XDG_STATE_HOME": STATE}, repository).root
    return Names(str(repository), str(kept), f"generations-{name}", str(here.checkout.folder))


def carried_by(verb: str, words: Sequence[str]) -> Carried:
    """The files that a verb names. The last of an option's values counts, so that words are only added."""
    carried = Carried()
    if verb not in _WITH_FILES:
        return carried
    args = _WITH_FILES[verb]().parse_args(words)
    if getattr(args, "tasks", ""):
        path = Path(args.tasks).resolve()
        # The same for the same file: a verdict says by which tasks it was reached.
        folder = sha256(os.fsencode(path)).hexdigest()[:16]
        carried.read = {path: f"{folder}/{path.name}"}
        carried.read |= {path.parent / name: f"{folder}/{name}" for name in _scorers(path)}
        carried.words.append(f"--tasks={path_there(carried.read[path])}")
    if args.report:
        path = Path(args.report).resolve()
        carried.written = {path: f"{token_hex(8)}.html"}
        carried.words.append(f"--report={path_there(carried.written[path])}")
    return carried


def _scorers(path: Path) -> list[str]:
    """The programs beside a file of tasks that score answers."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the tasks: {error}") from error
    return [task.check for task in tasks.read(text, path.name).tasks if task.kind == "python"]


def _environment(call: Call, here: Program, ports: dict[str, int], carried: Carried) -> dict[str, str]:
    """What the verb is told there: the model, which has no key, and how this host calls what it names."""
    folder = shlex.quote(str(here.checkout.folder))
    files = {path_there(name): str(path) for path, name in {**carried.read, **carried.written}.items()}
    files[names_of(here).repository] = str(here.checkout.folder)
    outside = {"ports": ports, "files": files, "merge": here.on_main(f"git -C {folder} merge")}
    env = {place.OUTSIDE: json.dumps(outside)}
    model = call.settings.model
    return env | {"ORG_MODEL": model} if model and not model.endswith(".gguf") else env


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}", "name another file") from error


async def _shown(org: Attached, verb: str) -> None:
    """Pass on what the verb says; a terminal is not to be driven by it."""
    decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(3)]
    with later(f"waiting for what `org {verb}` says in the machine"):
        said = await org.next()
    while said is not None:
        stream, data = said
        out = sys.stderr if stream == 2 else sys.stdout
        if out.isatty():
            out.write(clean(decoders[stream].decode(data)))
        else:
            out.buffer.write(data)
        out.flush()
        said = await org.next()


VERBS = {"generation": Verb("do a verb of generations in it", _options, _generation)}
