"""`org vm jobs`, `stop` and `joblog`: what was started to stay, by `org vm exec --detach`."""

from __future__ import annotations

import argparse
import codecs
import os
import re
import sys
import time
from collections.abc import Sequence

from org.cli.style import Style, table
from org.cli.vm.verb import Call, Verb
from org.errors import Busy, ExitCode, UsageError
from org.sandbox.vm.channel import Channel, Job, Surroundings
from org.wording import ago, clean, one_line

_GRACE_S = 20.0
_NAME = re.compile(r"[!-~]{1,64}")
_ANYWHERE = Surroundings("/root", "root")


async def detach(channel: Channel, name: str, words: Sequence[str]) -> int:
    """Start a command that stays, and say how to follow it."""
    name = name or os.path.basename(words[0])
    if not _NAME.fullmatch(name):
        raise UsageError(f"not a name for a job: {name!r}", "`--job NAME`: 1 to 64 letters without blanks")
    for job in await channel.jobs():
        if job.name == name and job.code is not None:
            await channel.stop(name)  # its end was there to be read until now
    try:
        pid = await channel.detach(name, words)
    except Busy as error:
        hint = f"`--job NAME` gives it another name, `org vm stop {name}` ends the other"
        raise Busy(error.message, hint) from error
    print(f"the job `{name}` runs (process {pid} there); `org vm joblog {name} -f` shows what it says")
    return ExitCode.DONE


def _no_options(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def _stop_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="its name, see `org vm jobs`")
    parser.add_argument("--grace", metavar="S", type=float, default=_GRACE_S, help="seconds for it to end "
                        f"by itself ({_GRACE_S:g})")  # fmt: skip


def _log_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="its name, see `org vm jobs`")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")


async def _jobs(call: Call) -> int:
    async with call.machine.channel(_ANYWHERE) as channel:
        jobs = await channel.jobs()
    if not jobs:
        print("no job runs; `org vm exec --detach -- COMMAND` starts one", file=sys.stderr)
        return ExitCode.DONE
    print(as_table(jobs, time.time(), Style.for_stream(sys.stdout, os.environ)))
    return ExitCode.DONE


def as_table(jobs: Sequence[Job], now: float, style: Style) -> str:
    rows = [
        (
            clean(job.name),
            "runs" if job.code is None else f"ended: {job.code}",
            ago(job.started, now),
            one_line(clean(" ".join(job.argv)), 80),
        )
        for job in jobs
    ]
    return table(("JOB", "STATE", "STARTED", "COMMAND"), rows, style)


async def _stop(call: Call) -> int:
    async with call.machine.channel(_ANYWHERE) as channel:
        code = await channel.stop(call.args.job, call.args.grace)
    print(f"the job `{clean(call.args.job)}` has ended: {code}")
    return ExitCode.DONE


async def _log(call: Call) -> int:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def say(data: bytes) -> None:
        if sys.stdout.isatty():  # which a guest's words are not to drive
            sys.stdout.write(clean(decoder.decode(data)))
        else:
            sys.stdout.buffer.write(data)
        sys.stdout.flush()

    async with call.machine.channel(_ANYWHERE) as channel:
        if call.args.follow:
            await channel.follow(call.args.job, say)
        else:
            say(await channel.log(call.args.job))
    return ExitCode.DONE


VERBS = {
    "jobs": Verb("what was started in it to stay", _no_options, _jobs),
    "stop": Verb("end a job", _stop_options, _stop),
    "joblog": Verb("what a job said", _log_options, _log),
}
