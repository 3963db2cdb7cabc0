import asyncio
import os
import signal
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.ports import Command
from org.sandbox import process
from org.sandbox.process import Collector
from sandbox_kit import Heard, alive, ended, there, token

ENV = {"PATH": "/usr/bin:/bin"}


async def run(argv: list[str], **fields: object) -> process.Ended:
    command = Command(argv, **fields)  # type: ignore[arg-type]
    return await process.run(command, argv, cwd="/", env=ENV)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(st.lists(st.binary(max_size=40)), st.integers(0, 60))
def test_any_chunking_keeps_the_same_head_and_tail(chunks: list[bytes], limit: int) -> None:
    collector = Collector(limit)
    for chunk in chunks:
        collector.feed(chunk)
    head, tail, left_out = collector.finish()
    everything = b"".join(chunks)
    assert len(head) + left_out + len(tail) == len(everything)
    assert len(head) + len(tail) == min(limit, len(everything))
    assert everything.startswith(head)
    assert everything.endswith(tail)
    if left_out:
        assert len(head) == limit // 2


def test_a_collector_does_not_grow_with_the_stream() -> None:
    collector = Collector(1_000)
    tracemalloc.start()
    for _ in range(1_000):
        collector.feed(b"x" * 65_536)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert collector.finish()[2] == 65_536_000 - 1_000
    assert peak < 3 * 65_536  # some chunks in flight


async def test_exit_code_and_merged_output_in_order() -> None:
    end = await run(["sh", "-c", "echo out; echo err >&2; echo out; exit 3"])
    assert (end.result.exit_code, end.result.head) == (3, b"out\nerr\nout\n")
    assert not end.held


async def test_a_signal_is_a_negative_exit_code() -> None:
    assert (await run(["sh", "-c", "kill -SEGV $$"])).result.exit_code == -signal.SIGSEGV


async def test_bytes_come_back_as_they_are() -> None:
    data = bytes(range(256)) * 10
    assert (await run(["cat"], stdin=data)).result.head == data


async def test_no_stdin_is_an_empty_one() -> None:
    assert (await run(["cat"])).result.head == b""


@pytest.mark.parametrize("argv", [["true"], ["sh", "-c", "exec 0<&-; exec sleep 0.01"]])
async def test_a_large_stdin_that_nobody_reads_holds_nothing_up(argv: list[str]) -> None:
    assert (await run(argv, stdin=b"x" * 3_000_000)).result.exit_code == 0


async def test_the_command_cannot_write_its_stdin() -> None:
    end = await run(["sh", "-c", "echo more >> /proc/self/fd/0; cat"], stdin=b"given")
    assert end.result.head.endswith(b"given")
    assert b"more" not in end.result.head


async def test_endless_output_stays_within_the_limit_and_is_counted() -> None:
    command = Command(["sh", "-c", "head -c 200000000 /dev/zero"], output_limit=1_000)
    heard = Heard()
    end = await process.run(command, command.argv, cwd="/", env=ENV, on_output=heard)
    result = end.result
    assert (len(result.head), len(result.tail), result.left_out) == (500, 500, 200_000_000 - 1_000)
    assert heard.data == bytes(1_000)


async def test_yes_is_ended_by_the_timeout() -> None:
    result = (await run(["yes"], timeout_s=0.2, output_limit=100)).result
    assert result.timed_out
    assert result.exit_code == -signal.SIGKILL
    assert result.left_out > 0


async def test_the_timeout_ends_the_whole_group() -> None:
    word = token()
    end = await run(["sh", "-c", f"sh -c 'sleep 60; : {word}' & sleep 60", word], timeout_s=0.1)
    assert end.result.timed_out
    assert end.held
    await asyncio.wait_for(ended(word), 10)
    assert not alive(word)


async def test_what_is_left_in_the_background_is_ended_with_the_command() -> None:
    word = token()
    end = await run(["sh", "-c", f"sh -c 'sleep 60; : {word}' & echo done"])
    assert end.result.head == b"done\n"
    await asyncio.wait_for(ended(word), 10)
    assert not alive(word)


async def test_an_escaped_daemon_holds_nothing_up_and_is_told_of(tmp_path: Path) -> None:
    word, fifo = token(), tmp_path / "started"
    daemon = f"echo > {fifo}; sleep 60; : {word}"
    end = await run(["sh", "-c", f"mkfifo {fifo}; setsid sh -c '{daemon}' & read _ < {fifo}"])
    assert end.held
    pids = alive(word)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(ended(word), 10)


async def test_cancelling_kills_and_reaps_and_closes() -> None:
    before, word, heard = descriptors(), token(), Heard()
    argv = ["sh", "-c", f"echo ready; sleep 60; : {word}"]
    task = asyncio.create_task(process.run(Command(argv), argv, cwd="/", env=ENV, on_output=heard))
    await heard.any.wait()
    leader = min(alive(word))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not there(leader)  # not even as a zombie
    assert descriptors() == before


async def test_cancelling_twice_still_reaps() -> None:
    word, heard = token(), Heard()
    argv = ["sh", "-c", f"echo ready; sleep 60; : {word}"]
    task = asyncio.create_task(process.run(Command(argv), argv, cwd="/", env=ENV, on_output=heard))
    await heard.any.wait()
    leader = min(alive(word))
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not there(leader)


async def test_an_observer_that_fails_ends_the_command() -> None:
    word = token()

    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    argv = ["sh", "-c", f"echo ready; sleep 60; : {word}"]
    with pytest.raises(ZeroDivisionError):
        await process.run(Command(argv), argv, cwd="/", env=ENV, on_output=fail)
    assert not alive(word)


@pytest.mark.parametrize(("argv", "cwd"), [(["/nowhere/program"], "/"), (["true"], "/nowhere")])
async def test_what_cannot_be_started_leaves_nothing(argv: list[str], cwd: str) -> None:
    before = descriptors()
    with pytest.raises(process.NotStarted):
        await process.run(Command(argv), argv, cwd=cwd, env=ENV)
    assert descriptors() == before


async def test_a_command_that_closes_its_output_is_waited_for() -> None:
    end = await run(["sh", "-c", "exec >&- 2>&-; sleep 0.1; exit 5"])
    assert (end.result.exit_code, end.held) == (5, False)


async def test_many_at_once() -> None:
    before = descriptors()
    results = await asyncio.gather(*(run(["sh", "-c", f"echo {number}"]) for number in range(40)))
    assert [int(end.result.head) for end in results] == list(range(40))
    assert descriptors() == before
