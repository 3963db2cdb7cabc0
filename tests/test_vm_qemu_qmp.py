"""QEMU's control socket, against a scripted server and the real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from org.errors import EnvironmentProblem, SandboxGone
from org.sandbox.vm import qmp

GREETING = b'{"QMP": {"version": {}}}\r\n'


@asynccontextmanager
async def server(path: Path, answer: Callable[[dict[str, Any]], bytes | None]) -> AsyncIterator[None]:
    """A server that greets, and answers as told; None ends the connection."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while line := await reader.readline():
            said = answer(json.loads(line))
            if said is None:
                break
            writer.write(said)
        writer.close()
        await writer.wait_closed()
        ended.set()

    listening = await asyncio.start_unix_server(serve, path)
    async with listening:
        yield
        await ended.wait()


def returned(request: dict[str, Any], value: Any = None) -> bytes:
    return json.dumps({"return": {} if value is None else value, "id": request["id"]}).encode() + b"\r\n"


async def test_answers_find_who_asked_and_events_are_told(tmp_path: Path) -> None:
    held: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] == "qmp_capabilities":
            return returned(request)
        held.append(request)
        if len(held) < 2:
            return b'{"event": "STOP", "data": {"a": 1}}\r\n'
        return b"".join(returned(one, one["arguments"]) for one in reversed(held))

    events: list[tuple[str, Any]] = []
    async with (
        server(tmp_path / "q", answer),
        qmp.connect(tmp_path / "q", lambda name, data: events.append((name, data))) as connection,
    ):
        one = connection.execute("x", {"n": 1})
        two = connection.execute("x", {"n": 2})
        assert list(await asyncio.gather(one, two)) == [{"n": 1}, {"n": 2}]
    assert events == [("STOP", {"a": 1})]


async def test_a_refusal_has_qemus_words(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] == "qmp_capabilities":
            return returned(request)
        return (
            json.dumps({"error": {"class": "X", "desc": "no such thing"}, "id": request["id"]}).encode()
            + b"\n"
        )

    async with server(tmp_path / "q", answer), qmp.connect(tmp_path / "q") as connection:
        with pytest.raises(EnvironmentProblem, match="no such thing"):
            await connection.execute("x")


async def test_an_end_is_told_to_who_waits_and_who_comes_later(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> bytes | None:
        return None if request["execute"] == "stop" else returned(request)

    async with server(tmp_path / "q", answer), qmp.connect(tmp_path / "q") as connection:
        with pytest.raises(SandboxGone, match="ended"):
            await connection.stop()
        with pytest.raises(SandboxGone, match="ended"):
            await connection.cont()


async def test_an_end_before_the_first_word_is_told(tmp_path: Path) -> None:
    async with server(tmp_path / "q", lambda request: None):
        with pytest.raises(SandboxGone, match="ended"):
            async with qmp.connect(tmp_path / "q"):
                pass


async def test_something_else_on_the_socket_is_an_expected_error(tmp_path: Path) -> None:
    async with server(tmp_path / "q", lambda request: b"hello\n"):
        with pytest.raises(SandboxGone, match="broke"):
            async with qmp.connect(tmp_path / "q"):
                pass


async def test_a_socket_where_nobody_is_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(SandboxGone, match="did not answer within"):
        async with qmp.connect(tmp_path / "none", timeout_s=0.05):
            pass


async def test_a_qemu_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(SandboxGone, match="ended before it answered"):
        async with qmp.connect(tmp_path / "none", alive=lambda: False):
            pass


async def test_a_disk_that_takes_nothing_is_given_up_and_a_slow_one_is_not(tmp_path: Path) -> None:
    state = tmp_path / "state"
    left = 20

    async def written() -> None:
        nonlocal left
        while left:
            with state.open("ab") as file:
                file.write(b"x")
            left -= 1
            await asyncio.sleep(0.01)

    state.touch()
    await qmp._while_it_grows(state, written(), 0.05)
    assert left == 0

    def answer(request: dict[str, Any]) -> bytes:
        return returned(request, {"status": "active"})

    async with server(tmp_path / "q", answer), qmp.connect(tmp_path / "q") as connection:
        with pytest.raises(EnvironmentProblem, match="nothing more was written"):
            await connection.save(tmp_path / "another", 0.05)


@asynccontextmanager
async def empty_machine(path: Path, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A QEMU that has nothing in it but its control socket."""
    words = ("-M", "none", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on,wait=off")
    process = await asyncio.create_subprocess_exec("qemu-system-x86_64", *words, *more)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.vm
async def test_a_real_qemu_stops_goes_on_and_ends(tmp_path: Path) -> None:
    events: list[str] = []
    async with empty_machine(tmp_path / "q") as process:
        async with qmp.connect(tmp_path / "q", lambda name, data: events.append(name)) as connection:
            await connection.stop()
            assert (await connection.execute("query-status"))["status"] == "paused"
            await connection.cont()
            assert (await connection.execute("query-status"))["status"] == "running"
            await connection.quit()
            await connection.quit()
        assert await process.wait() == 0
    assert events[:2] == ["STOP", "RESUME"]


@pytest.mark.vm
async def test_a_state_is_saved_once_and_loaded(tmp_path: Path) -> None:
    async with empty_machine(tmp_path / "q"), qmp.connect(tmp_path / "q") as connection:
        await connection.stop()
        await connection.save(tmp_path / "state")
        with pytest.raises(FileExistsError):
            await connection.save(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600
    async with (
        empty_machine(tmp_path / "r", "-incoming", "defer") as process,
        qmp.connect(tmp_path / "r") as connection,
    ):
        await connection.load(tmp_path / "state")
        assert process.returncode is None


@pytest.mark.vm
async def test_a_broken_state_is_an_expected_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"not a state at all")
    async with (
        empty_machine(tmp_path / "r", "-incoming", "defer"),
        qmp.connect(tmp_path / "r") as connection,
    ):
        with pytest.raises((EnvironmentProblem, SandboxGone)):
            await connection.load(tmp_path / "state")
