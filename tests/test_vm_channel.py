"""The host's end of a port against guests that freeze, die, lie, flood and send rubbish: every one of
them ends in `SandboxGone` with a reason, in time, and none takes memory without bound."""

from __future__ import annotations

import asyncio
import json
import random
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from org.errors import EnvironmentProblem, SandboxGone, UsageError
from org.ports import Command
from org.sandbox.vm import channel as channel_module
from org.sandbox.vm import frames, talk
from org.sandbox.vm.channel import Channel
from org.sandbox.vm.link import Link, linked
from sandbox_kit import Heard
from vm_kit import Impostor, agent, impostor

DEADLINE_S = 30.0


@asynccontextmanager
async def against(guest: Impostor, *, ping_s: float = 5.0) -> AsyncIterator[tuple[Channel, Link]]:
    async with asyncio.timeout(DEADLINE_S), linked(guest.path, "the machine", ping_s=ping_s) as connected:
        yield Channel(connected), connected


def told(kind: int, number: int, content: Mapping[str, Any]) -> bytes:
    return frames.told(kind, number, content)


ENDED = {"code": 0, "total": 0, "timed_out": False, "peak": 1, "oom": False}


# -- guests that freeze and die


async def test_a_frozen_guest_is_gone_after_three_pings() -> None:
    async with agent() as guest, guest.channel(ping_s=0.2) as channel:
        heard = Heard()
        running = asyncio.create_task(channel.exec(Command(["sh", "-c", "echo; sleep 1000"]), heard))
        await asyncio.wait_for(heard.any.wait(), DEADLINE_S)
        guest.freeze()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(SandboxGone, match=r"3 pings within 0\.6 s; whether `sh` was done is unknown"):
                await running
        with pytest.raises(SandboxGone) as caught:
            await channel.exec(Command(["true"]))
        assert "unknown" not in caught.value.message  # this one was not even begun


async def test_one_slow_answer_is_no_end() -> None:
    async with impostor() as guest, against(guest, ping_s=0.1) as (channel, connected):
        guest.mute(True)
        await guest.next(frames.PING)
        await guest.next(frames.PING)
        guest.mute(False)
        for _ in range(4):
            await guest.next(frames.PING)
        assert connected.gone is None
        assert await channel.ping() >= 0


async def test_a_killed_guest_is_gone_at_once() -> None:
    async with agent() as guest, guest.channel() as channel:
        heard = Heard()
        running = asyncio.create_task(channel.exec(Command(["sh", "-c", "echo; sleep 1000"]), heard))
        await asyncio.wait_for(heard.any.wait(), DEADLINE_S)
        guest.process.kill()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(SandboxGone, match="unknown"):
                await running


async def test_a_frozen_guest_does_not_hold_up_who_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "_KILL_S", 0.2)
    async with agent() as guest, guest.channel(ping_s=100) as channel:
        heard = Heard()
        running = asyncio.create_task(channel.exec(Command(["sh", "-c", "echo; sleep 1000"]), heard))
        await asyncio.wait_for(heard.any.wait(), DEADLINE_S)
        guest.freeze()
        running.cancel()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(asyncio.CancelledError):
                await running
            with pytest.raises(SandboxGone, match="did not end a cancelled command"):
                await channel.exec(Command(["true"]))


async def test_a_guest_that_never_answers_is_gone_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_GRACE_S", 0.2)
    monkeypatch.setattr(channel_module, "_ANSWER_S", 0.2)
    for ask in asked():
        async with impostor() as guest, against(guest) as (channel, _):
            with pytest.raises(SandboxGone, match="within"):
                await ask(channel)


def asked() -> list[Callable[[Channel], Awaitable[object]]]:
    """One call of each kind."""
    return [
        lambda channel: channel.exec(Command(["x"], stdin=bytes(10_000_000), timeout_s=0.1)),
        lambda channel: channel.read_file("x", 1000),
        lambda channel: channel.write_file("x", bytes(1000)),
        lambda channel: channel.jobs(),
        lambda channel: channel.detach("x", ["x"]),
        lambda channel: channel.stop("x", 0.1),
        lambda channel: channel.log("x", 100),
        lambda channel: channel.restored(),
    ]


async def test_nobody_there_and_nobody_who_greets(tmp_path: Path) -> None:
    with pytest.raises(SandboxGone, match="cannot be reached: No such file"):
        async with linked(tmp_path / "none", "the machine"):
            pass
    async with impostor(greets=False) as guest:
        with pytest.raises(SandboxGone, match=r"did not answer within 0\.2 s"):
            async with linked(guest.path, "the machine", timeout_s=0.2):
                pass


async def test_a_guest_that_did_not_notice_who_came_first_is_come_to_again(tmp_path: Path) -> None:
    async with impostor() as guest:
        came = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            came += 1
            if came > 1:
                await guest.serve(reader, writer)
                return
            await reader.read(-1)
            writer.close()

        async with (
            await asyncio.start_unix_server(serve, tmp_path / "port"),
            linked(tmp_path / "port", "the machine", timeout_s=DEADLINE_S, again_s=0.05),
        ):
            assert came > 1


@pytest.mark.parametrize(
    "said",
    [
        b"x" * 6_000_000,
        frames.greeting(bytes(16)) * 200_000,
        told(frames.NOTE, 0, {"version": 1}),
        b"",
    ],
)
async def test_a_guest_that_greets_wrong(said: bytes) -> None:
    async with impostor(greets=False) as guest:

        async def speak() -> None:
            await guest.say(said)
            await guest.hang_up()

        speaking = asyncio.create_task(speak())
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(SandboxGone, match=r"cannot be reached|did not answer"):
                async with linked(guest.path, "the machine", timeout_s=5):
                    pass
            await speaking


async def test_another_version_is_named() -> None:
    async with impostor(about={"version": "two\x1b[31m"}) as guest:
        with pytest.raises(SandboxGone, match="version two"):
            async with linked(guest.path, "the machine"):
                pass


async def test_what_is_left_of_an_earlier_connection_is_skipped() -> None:
    left = frames.frame(frames.DATA, 3, b"x" * 5000)[7:] + frames.greeting(b"y" * 16)[:-3]
    async with impostor(before=left) as guest, against(guest) as (channel, _):
        assert await channel.ping() >= 0


# -- guests that break the rules


WRONG: list[dict[str, Any]] = [
    *({"code": code} for code in ("0", True, 256, -65, None, 10**400)),
    *({"total": total} for total in (-1, 1, 1.5, 20_000)),
    {"peak": []},
]
BREAKS = [
    *(frames.frame(kind, 2, b"12345678") for kind in (0, 11, 200)),
    b"\xff" * 100,
    frames.frame(frames.DATA, 2, b""),
    frames.frame(frames.DATA, 2, b"x" * 65_537),
    frames.frame(frames.CLOSE, 2, b"[]"),
    frames.frame(frames.CLOSE, 2, b"{" * 60_000),
    frames.frame(frames.CLOSE, 2, b'{"code": NaN}'),
    frames.frame(frames.CLOSE, 2, b"\xff\xfe"),
    frames.frame(frames.EOF, 2) * 2,
    frames.frame(frames.EOF, 2) + frames.frame(frames.DATA, 2, b"x"),
    frames.frame(frames.DATA, 2, bytes(65_536)) * 5,  # more than the window, in one go
    frames.credit(2, 1),
    frames.credit(2, 2**32 - 1),
    frames.frame(frames.CREDIT, 2, bytes(4)),
    told(frames.OPEN, 1, {"to": "model"}),
    told(frames.OPEN, 2, {}),
    told(frames.NOTE, 2, {"x": 1}),
    frames.frame(frames.PING, 0, bytes(8)),
    frames.frame(frames.ERR, 2, b"x"),
    frames.frame(frames.DATA, 2, b"x" * 20_000),  # more than the limit of the output
    frames.frame(frames.TAIL, 2, b"x" * 9_000),
    *(told(frames.CLOSE, 2, {**ENDED, **wrong}) for wrong in WRONG),
    told(frames.CLOSE, 2, {}),
    frames.frame(frames.DATA, 2, b"x") + told(frames.CLOSE, 2, ENDED),
    frames.frame(frames.DATA, 9999, b"x") * 20_000,  # nobody's
    frames.frame(frames.PONG, 0, b"nobody's") * 20_000,
    told(frames.NOTE, 0, {"x": 1}) * 20_000,
]


@pytest.mark.parametrize("said", BREAKS, ids=range(len(BREAKS)))
async def test_what_breaks_the_protocol_is_the_end_of_the_guest(said: bytes) -> None:
    async with impostor() as guest, against(guest) as (channel, connected):
        running = asyncio.create_task(channel.exec(Command(["x"])))
        assert (await guest.next(frames.OPEN)).channel == 2
        saying = asyncio.create_task(guest.say(said))
        with pytest.raises(SandboxGone, match="broke the protocol"):
            await running
        assert connected.gone is not None
        assert connected.gone.startswith("it broke the protocol")
        await saying
        await guest.gone.wait()


@pytest.mark.parametrize(
    "said",
    [
        {"jobs": 1},
        {"jobs": [1]},
        {"jobs": [{}]},
        {"jobs": [{"name": "a", "argv": "x", "started": 1.0, "pid": 1}]},
        {"jobs": [{"name": "a", "argv": [], "started": 1.0, "pid": -1}]},
        {"jobs": [{"name": "a", "argv": [], "started": 1.0, "pid": 1, "code": 999}]},
        {"jobs": [{}] * 5000},
    ],
)
async def test_a_list_of_jobs_that_is_none(said: Mapping[str, Any]) -> None:
    async with impostor() as guest, against(guest) as (channel, _):
        running = asyncio.create_task(channel.jobs())
        await guest.next(frames.OPEN)
        await guest.say(told(frames.CLOSE, 2, said))
        with pytest.raises(SandboxGone, match="broke the protocol"):
            await running


async def test_a_file_longer_than_was_asked_for() -> None:
    async with impostor() as guest, against(guest) as (channel, _):
        running = asyncio.create_task(channel.read_file("x", 10))
        await guest.next(frames.OPEN)
        await guest.say(frames.frame(frames.DATA, 2, b"x" * 11))
        with pytest.raises(SandboxGone, match="more bytes"):
            await running


async def test_words_of_the_guest_are_made_fit_to_show() -> None:
    async with impostor() as guest, against(guest) as (channel, _):
        running = asyncio.create_task(channel.read_file("x"))
        await guest.next(frames.OPEN)
        message = "\x1b[2J\nroot: \u202e" + "x" * 5000
        await guest.say(told(frames.CLOSE, 2, {"error": "usage", "message": message}))
        with pytest.raises(UsageError) as caught:
            await running
        assert caught.value.message.isprintable()
        assert len(caught.value.message) <= 400


@pytest.mark.parametrize("answer", [{"error": 7}, {"error": [], "message": {}}, {"error": "usage"}])
async def test_an_error_without_sense_is_an_error(answer: Mapping[str, Any]) -> None:
    async with impostor() as guest, against(guest) as (channel, _):
        running = asyncio.create_task(channel.write_file("x", b""))
        await guest.next(frames.OPEN)
        await guest.say(told(frames.CLOSE, 2, answer))
        with pytest.raises((UsageError, EnvironmentProblem)):
            await running


async def test_frames_for_an_ended_channel_change_nothing() -> None:
    async with impostor() as guest, against(guest) as (channel, connected):
        for number in (2, 4, 6):
            running = asyncio.create_task(channel.exec(Command(["x"])))
            await guest.next(frames.OPEN)
            await guest.say(told(frames.CLOSE, number, ENDED))
            assert (await running).exit_code == 0
            await guest.say(frames.frame(frames.DATA, number, b"late") + frames.credit(number, 5))
        assert await channel.ping() >= 0
        assert connected.gone is None


async def test_a_guest_that_reads_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_GRACE_S", 0.3)
    async with impostor() as guest, against(guest) as (channel, _):
        await guest.deafen()
        commands = [Command(["x" * 100_000], stdin=bytes(1_000_000), timeout_s=0.1)] * 50
        results = await asyncio.gather(*map(channel.exec, commands), return_exceptions=True)
        assert {type(result) for result in results} == {SandboxGone}


# -- rubbish


def rubbish(chance: random.Random) -> bytes:
    """A frame, or what looks like one, or nothing of the kind."""
    kind = chance.choice([*range(1, 11), *range(1, 11), chance.randrange(256)])
    number = chance.choice([0, 1, 2, 2, 2, 3, 4, chance.randrange(2**32)])
    payload = chance.choice(
        [
            b"",
            chance.randbytes(4),
            chance.randbytes(8),
            frames.credit(1, chance.randrange(300_000))[9:],
            chance.randbytes(chance.randrange(3000)),
            json.dumps(chance.choice([{}, [], ENDED, {"error": "usage"}, {"jobs": []}, 1])).encode(),
            json.dumps({**ENDED, chance.choice([*ENDED]): chance.choice([None, -1, 5, "x"])}).encode(),
        ]
    )
    data = frames.frame(kind, number, payload)
    return data if chance.random() < 0.9 else data[: chance.randrange(len(data) + 1)]


@pytest.mark.parametrize("seed", range(60))
async def test_rubbish_ends_in_an_answer_or_in_sandbox_gone(seed: int) -> None:
    chance = random.Random(seed)
    ask = chance.choice(asked()[:-1])
    async with impostor() as guest, against(guest) as (channel, connected):
        running = asyncio.ensure_future(ask(channel))
        await guest.next(frames.OPEN)
        for _ in range(chance.randrange(1, 60)):
            await guest.say(rubbish(chance))
        await guest.hang_up()
        with_error = (await asyncio.gather(running, return_exceptions=True))[0]
        assert not isinstance(with_error, BaseException) or isinstance(
            with_error, SandboxGone | UsageError | EnvironmentProblem
        )
        await connected.ended.wait()


async def test_a_flood_takes_no_memory() -> None:
    async with impostor() as guest, against(guest) as (channel, connected):
        running = asyncio.create_task(channel.exec(Command(["x"], output_limit=1000)))
        await guest.next(frames.OPEN)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said = 0
        while connected.gone is None:  # bytes that nobody asked for
            await guest.say(frames.frame(frames.DATA, 7, bytes(50_000)))
            await asyncio.sleep(0)
            said += 50_000
        with pytest.raises(SandboxGone, match="not open"):
            await running
        assert said > 100_000_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


async def test_a_command_that_floods_leaves_the_others_alone() -> None:
    async with agent() as guest, guest.channel() as channel:
        flooded = asyncio.create_task(channel.exec(Command(["yes"], timeout_s=1.0, output_limit=50_000_000)))
        count = 0
        while not flooded.done():
            assert (await channel.exec(Command(["echo", "x"]))).head == b"x\n"
            count += 1
        assert count > 1
        assert (await flooded).timed_out


async def test_half_a_frame_is_no_frame() -> None:
    async with impostor() as guest, against(guest, ping_s=0.1) as (channel, _):
        running = asyncio.create_task(channel.exec(Command(["x"])))
        await guest.next(frames.OPEN)
        guest.mute(True)
        await guest.say(frames.frame(frames.DATA, 2, b"x" * 60_000)[:-1])
        with pytest.raises(SandboxGone, match="pings"):
            await running
