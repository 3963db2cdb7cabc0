"""What the agent of a guest does, asked through the host's channel: the same code as in a machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from org.errors import Busy, EnvironmentProblem, SandboxGone, UsageError
from org.ports import Command
from org.sandbox.vm import frames
from org.sandbox.vm.channel import Attached, Channel, Surroundings
from sandbox_kit import Heard, alive, ended, token
from vm_kit import NOBODY, PYTHON, SOURCE, Guest, agent

IS_ROOT = os.geteuid() == 0


@pytest_asyncio.fixture
async def guest() -> AsyncIterator[Guest]:
    async with agent() as running:
        yield running


@pytest_asyncio.fixture
async def channel(guest: Guest) -> AsyncIterator[Channel]:
    async with guest.channel() as connected:
        yield connected


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again: what is waited for is in another process, which tells nobody."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def said(channel: Channel, name: str, text: bytes, times: int = 1) -> None:
    """Wait until a job that stays said it so often."""

    async def enough() -> bool:
        return (await channel.log(name)).count(text) >= times

    await until(enough)


async def sh(channel: Channel, text: str, **options: float) -> tuple[int, bytes]:
    result = await channel.exec(Command(["sh", "-c", text], **options))  # type: ignore[arg-type]
    return result.exit_code, result.head + result.tail


# -- how a command runs


async def test_a_command_runs_in_the_workspace_as_somebody_else(guest: Guest, channel: Channel) -> None:
    code, output = await sh(channel, "pwd; id -u; id -G; echo $HOME; echo oops >&2; exit 3")
    assert code == 3
    place = str(guest.workspace)
    assert output.decode().split() == [place, NOBODY, output.decode().split()[2], place, "oops"]
    if IS_ROOT:
        assert output.decode().split()[2] == NOBODY


async def test_its_environment_is_small_and_what_the_host_adds(guest: Guest) -> None:
    where = Surroundings(str(guest.workspace), NOBODY, env={"COLOUR": "blue sky", "TERM": "xterm"})
    async with guest.channel(where) as channel:
        result = await channel.exec(Command(["env"]))
    names = dict(line.split("=", 1) for line in result.head.decode().splitlines())
    assert names["COLOUR"] == "blue sky"
    assert names["TERM"] == "xterm"
    assert set(names) == {"COLOUR", "TERM", "PATH", "HOME", "LANG"}


async def test_it_inherits_nothing_of_the_agent(channel: Channel) -> None:
    _, output = await sh(
        channel, "ls /proc/self/fd; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status"
    )
    lines = output.decode().split()
    assert lines[:4] == ["0", "1", "2", "3"]  # the last is that of ls
    assert lines[4] == "0"
    assert lines[-1] == "1"


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["no-such-program"], 127, b"no-such-program: No such file or directory\n"),
        (["/etc"], 126, b"/etc: Permission denied\n"),
        (["sh", "-c", "kill -SEGV $$"], -signal.SIGSEGV, b""),
        (["sh", "-c", "exit 255"], 255, b""),
        (["python3", "-S", "-c", "import os; os.kill(os.getpid(), 9)"], -9, b""),
    ],
)
async def test_how_it_ends_is_told(channel: Channel, argv: list[str], code: int, says: bytes) -> None:
    result = await channel.exec(Command(argv))
    assert (result.exit_code, result.head) == (code, says)


@pytest.mark.parametrize("argv", [[], ["a\0b"], ["\ud800"]])
async def test_words_that_no_program_can_be_given_are_refused(channel: Channel, argv: list[str]) -> None:
    with pytest.raises(UsageError):
        await channel.exec(Command(argv))
    assert (await sh(channel, "echo on")) == (0, b"on\n")


async def test_words_longer_than_the_kernel_takes(channel: Channel) -> None:
    result = await channel.exec(Command(["true", "x" * 1_000_000]))
    assert result.exit_code == 126
    with pytest.raises(UsageError, match="too long"):
        await channel.exec(Command(["true", "x" * 3_000_000]))


async def test_words_keep_their_bytes(channel: Channel) -> None:
    result = await channel.exec(Command(["printf", "%s", "aé\udcff\n"]))
    assert result.head == "aé".encode() + b"\xff\n"


async def test_an_unknown_user_is_named(guest: Guest) -> None:
    async with guest.channel(Surroundings(str(guest.workspace), "no-such-user")) as channel:
        with pytest.raises(SandboxGone, match="no user `no-such-user`"):
            await channel.exec(Command(["true"]))


# -- streams


async def test_without_input_there_is_an_end_at_once(channel: Channel) -> None:
    assert await sh(channel, "cat; echo done") == (0, b"done\n")


async def test_fifty_megabytes_of_input_arrive(channel: Channel) -> None:
    data = os.urandom(1_000_000) * 50
    result = await channel.exec(Command(["sha256sum"], stdin=data))
    assert result.head.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_input_that_nobody_reads_holds_nobody_up(channel: Channel) -> None:
    data = bytes(5_000_000)
    assert (await channel.exec(Command(["true"], stdin=data))).exit_code == 0
    assert (await channel.exec(Command(["sh", "-c", "exec <&-; echo x"], stdin=data))).head == b"x\n"
    late = await channel.exec(Command(["sleep", "100"], stdin=data, timeout_s=0.1))
    assert late.timed_out


@pytest.mark.parametrize("limit", [0, 1, 2, 1000, 16_384, 100_001])
async def test_the_beginning_and_the_end_are_kept_and_the_rest_is_counted(
    channel: Channel, limit: int
) -> None:
    for size in (0, 1, 999, 1000, 1001, 1499, 1500, 16_384, 16_385, 300_000):
        text = b"".join(b"%08d" % number for number in range(size // 8 + 1))[:size]
        result = await channel.exec(Command(["cat"], stdin=text, output_limit=limit))
        assert result.left_out == max(0, size - limit)
        if size <= limit:
            assert (result.head, result.tail) == (text, b"")
        else:
            assert (result.head, result.tail) == (text[: limit // 2], text[size - (limit - limit // 2) :])


async def test_a_hundred_megabytes_of_output_do_not_cross(guest: Guest, channel: Channel) -> None:
    heard = Heard()
    result = await channel.exec(Command(["head", "-c", "100000000", "/dev/zero"]), heard)
    assert len(result.head) + len(result.tail) + result.left_out == 100_000_000
    assert len(heard.data) == 16_384
    peak = Path(f"/proc/{guest.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(peak) < 100_000  # KiB


async def test_output_is_heard_while_the_command_runs(guest: Guest, channel: Channel) -> None:
    heard = Heard()
    command = Command(["sh", "-c", "echo first; while ! [ -e go ]; do sleep 0.02; done; echo second"])
    running = asyncio.create_task(channel.exec(command, heard))
    await asyncio.wait_for(heard.any.wait(), 20)
    assert heard.data == b"first\n"
    await channel.write_file("go", b"")
    assert (await running).head == b"first\nsecond\n"


async def test_an_error_of_the_listener_ends_the_command(channel: Channel) -> None:
    mark = token()

    def fail(_data: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await channel.exec(Command(["sh", "-c", f"echo x; sleep 1000; : {mark}"]), fail)
    assert alive(mark) == []


# -- its end


@pytest.mark.parametrize("how", ["sleep 1000", "trap '' TERM INT HUP; sleep 1000", "while :; do :; done"])
async def test_the_time_is_up(channel: Channel, how: str) -> None:
    mark = token()
    result = await channel.exec(Command(["sh", "-c", f"echo begun; {how}; : {mark}"], timeout_s=0.3))
    assert (result.timed_out, result.exit_code, result.head) == (True, -9, b"begun\n")
    assert alive(mark) == []


@pytest.mark.parametrize(
    "escape",
    [
        "sleep 1000 {0} &",
        "setsid sh -c 'sleep 1000; : {0}' &",
        "setsid setsid sh -c '(env -i sh -c \"trap : HUP; sleep 1000; : {0}\" &) & exec sleep 1000' &",
        "nohup sh -c 'sleep 1000; : {0}' >/dev/null 2>&1 </dev/null & disown 2>/dev/null || true",
    ],
)
@pytest.mark.skipif(not IS_ROOT, reason="cgroups are root's")
async def test_who_escapes_dies_with_its_command(channel: Channel, escape: str) -> None:
    mark = token()
    assert not channel.missing
    code, _ = await sh(channel, escape.format(mark) + "\nsleep 0.1; exit 5")
    assert code == 5
    assert alive(mark) == []


async def test_a_descriptor_in_other_hands_does_not_keep_a_command(channel: Channel) -> None:
    code = (
        "import socket, os, time\n"
        "s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()\n"
        "print('up', flush=True)\n"
        "c, _ = s.accept()\n"
        "_, fds, _, _ = socket.recv_fds(c, 10, 1)\n"
        "while True: os.write(fds[0], b'x' * 1000)\n"
    )
    await channel.detach("taker", ["python3", "-c", code])
    await said(channel, "taker", b"up")
    give = (
        "import socket\ns = socket.socket(socket.AF_UNIX); s.connect('s'); socket.send_fds(s, [b'x'], [1])\n"
    )
    result = await channel.exec(Command(["python3", "-c", give]))
    assert result.exit_code == 0
    await channel.stop("taker")


async def test_cancelling_kills_before_it_returns(channel: Channel) -> None:
    mark, heard = token(), Heard()
    command = Command(["sh", "-c", f"setsid sh -c 'sleep 1000; : {mark}' & echo; sleep 1000; : {mark}"])
    running = asyncio.create_task(channel.exec(command, heard))
    await asyncio.wait_for(heard.any.wait(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert alive(mark) == []
    assert await sh(channel, "echo on") == (0, b"on\n")


async def test_a_host_that_leaves_takes_its_commands_along(guest: Guest) -> None:
    mark, heard = token(), Heard()
    async with guest.channel() as channel:
        command = Command(["sh", "-c", f"echo; sleep 1000; : {mark}"])
        running = asyncio.create_task(channel.exec(command, heard))
        await asyncio.wait_for(heard.any.wait(), 20)
        assert alive(mark)
    with pytest.raises(SandboxGone):
        await running
    async with guest.channel() as channel:  # a new one is served, and the old commands are ended
        assert await sh(channel, "echo on") == (0, b"on\n")
        await ended(mark)
    assert alive(mark) == []


# -- bounds


@pytest.mark.skipif(not IS_ROOT, reason="cgroups are root's")
async def test_memory_is_bounded_and_measured(channel: Channel) -> None:
    eater = await channel.run(Command(["python3", "-c", "x = bytearray(600_000_000)"]))
    assert eater.result.exit_code == -9
    assert eater.out_of_memory
    assert eater.peak <= 268_435_456
    modest = await channel.run(Command(["python3", "-c", "x = bytearray(100_000_000); print(len(x))"]))
    assert modest.result.exit_code == 0
    assert not modest.out_of_memory
    assert 100_000_000 < modest.peak < 200_000_000


@pytest.mark.skipif(not IS_ROOT, reason="cgroups are root's")
async def test_a_fork_bomb_stays_small_and_disturbs_nobody(guest: Guest, channel: Channel) -> None:
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    running = asyncio.create_task(channel.exec(Command(["python3", "-c", bomb], timeout_s=1.0)))
    pids = 0
    while not running.done() and pids < 100:
        groups = Path("/sys/fs/cgroup").glob(f"**/org-{guest.process.pid}/*/pids.current")
        pids = max([int(group.read_text()) for group in groups], default=0)
        await channel.ping()
    assert 100 <= pids <= 256
    assert (await running).timed_out
    assert await sh(channel, "echo on") == (0, b"on\n")


async def test_twenty_at_a_time(channel: Channel) -> None:
    text = "i=0; while [ $i -lt 200 ]; do echo {0}; i=$((i+1)); done; exit {0}"
    results = await asyncio.gather(*(sh(channel, text.format(number)) for number in range(24)))
    assert results == [(number, b"%d\n" % number * 200) for number in range(24)]


async def test_one_that_says_much_does_not_hold_up_the_others(channel: Channel) -> None:
    loud = asyncio.create_task(channel.exec(Command(["yes"], timeout_s=2.0)))
    for _ in range(10):
        assert (await sh(channel, "echo x"))[1] == b"x\n"
    assert not loud.done()
    assert (await loud).left_out > 1_000_000


async def test_a_listener_that_is_slow_slows_its_command_alone(channel: Channel) -> None:
    async with channel.attached(["head", "-c", "3000000", "/dev/zero"]) as slow:
        for _ in range(5):
            assert (await sh(channel, "echo x"))[1] == b"x\n"
        assert len(await drained(slow)) == 3_000_000
    assert slow.code == 0


# -- attached


async def drained(attached: Attached) -> bytes:
    data = b""
    while (piece := await attached.next()) is not None:
        data += piece[1]
    return data


async def test_streams_are_ones_own_and_apart(channel: Channel) -> None:
    async with channel.attached(["sh", "-c", "read a; echo got $a; echo err >&2; cat; exit 4"]) as attached:
        await attached.write(b"one\n")
        seen = {1: b"", 2: b""}
        while seen[1] != b"got one\n" or seen[2] != b"err\n":
            piece = await attached.next()
            assert piece is not None
            seen[piece[0]] += piece[1]
        await attached.write(b"two\n")
        attached.finish()
        assert await drained(attached) == b"two\n"
        assert attached.code == 4


async def test_who_closes_its_terminal_may_still_end_well(channel: Channel) -> None:
    for _ in range(20):
        async with channel.attached(["sh", "-c", "exec <&- >&- 2>&-; exit 3"], terminal=(24, 80)) as attached:
            await drained(attached)
        assert attached.code == 3


async def test_a_terminal(channel: Channel) -> None:
    async with channel.attached(
        ["sh", "-c", "stty size; tty; read x; stty size"], env={"TERM": "xterm"}, terminal=(33, 101)
    ) as attached:
        text = b""
        while b"/dev/pts/" not in text:
            piece = await attached.next()
            assert piece is not None
            text += piece[1]
        attached.resize(50, 90)
        await attached.write(b"\n")
        text += await drained(attached)
    assert text.startswith(b"33 101\r\n")
    assert text.endswith(b"50 90\r\n")
    assert attached.code == 0


async def test_the_end_of_input_reaches_a_terminal(channel: Channel) -> None:
    async with channel.attached(["cat"], terminal=(24, 80)) as attached:
        attached.finish()
        await drained(attached)
    assert attached.code == 0


async def test_leaving_ends_what_is_attached(channel: Channel) -> None:
    mark = token()
    async with channel.attached(["sh", "-c", f"echo x; sleep 1000; : {mark}"]) as attached:
        assert await attached.next() == (1, b"x\n")
    assert alive(mark) == []


# -- scratch and python


@pytest.mark.parametrize("make", ["true", "mkdir -p a/b; touch a/b/c; chmod 0 a"])
async def test_a_scratch_folder_is_empty_and_goes(channel: Channel, make: str) -> None:
    result = await channel.exec(Command(["sh", "-c", f"ls -A; pwd; {make}"], scratch=True))
    folder = Path(result.head.decode().strip())
    assert folder.parent == Path("/tmp")

    async def is_gone() -> bool:
        return not folder.exists()

    await until(is_gone)  # by a process of its own


async def test_python_is_fresh_each_time(channel: Channel) -> None:
    code = "import sys, os, random; print(sys.argv, __name__, os.getcwd() == os.environ['HOME'], os.getuid())"
    one, two = [await channel.python(code + "; x = 1; import json; json.y = 2") for _ in range(2)]
    assert one.head == f"['-c'] __main__ True {NOBODY}\n".encode() == two.head
    gone = await channel.python("import json; print(hasattr(json, 'y'), 'x' in globals())")
    assert gone.head == b"False False\n"
    numbers = {(await channel.python("import random; print(random.random())")).head for _ in range(5)}
    assert len(numbers) == 5


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        (
            "1/0",
            1,
            'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nZeroDivisionError',
        ),
        ("def f(:", 1, '  File "<string>", line 1\n    def f(:\n          ^\nSyntaxError'),
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('bye')", 1, "bye\n"),
        ("raise SystemExit", 0, ""),
        ("import os; os._exit(9)", 9, ""),
        ("import atexit; atexit.register(print, 'last'); print('first')", 0, "first\nlast\n"),
        (
            "import threading, time\nthreading.Thread(target=lambda: (time.sleep(.05), print('t'))).start()",
            0,
            "t\n",
        ),
        ("import sys; print(repr(sys.stdin.read())); print('e', file=sys.stderr)", 0, ""),
        ("import os; os.abort()", -6, ""),
        ("import subprocess; print(subprocess.run(['echo', 'x']).returncode)", 0, "x\n0\n"),
        (
            "import multiprocessing as m\nwith m.Pool(2) as pool: print(pool.map(abs, [-1, 2]))",
            0,
            "[1, 2]",
        ),
        ("import asyncio; asyncio.run(asyncio.sleep(0)); print('ok')", 0, "ok\n"),
        ("import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)", 0, "True\n"),
    ],
)
async def test_warm_python_does_as_a_cold_one(channel: Channel, code: str, exit_code: int, says: str) -> None:
    warm = await channel.python(code)
    assert warm.exit_code == exit_code
    assert warm.head.decode().startswith(says)
    cold = await channel.exec(Command(["python3", "-S", "-B", "-c", code], scratch=True))
    assert (cold.exit_code, sorted(cold.head.splitlines())) == (
        warm.exit_code,
        sorted(warm.head.splitlines()),
    )


async def test_python_reads_input_and_is_ended_too(channel: Channel) -> None:
    result = await channel.python("import sys; print(len(sys.stdin.read()))", stdin=b"x" * 1_000_000)
    assert result.head == b"1000000\n"
    late = await channel.python("while True: pass", timeout_s=0.2)
    assert (late.timed_out, late.exit_code) == (True, -9)
    many = await asyncio.gather(*(channel.python(f"print({number})") for number in range(20)))
    assert [one.head for one in many] == [b"%d\n" % number for number in range(20)]


async def test_a_warm_interpreter_that_died_is_started_again(guest: Guest, channel: Channel) -> None:
    await channel.python("1")
    children = Path(f"/proc/{guest.process.pid}/task/{guest.process.pid}/children").read_text().split()
    warm = [int(pid) for pid in children if b"warm.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    heard = Heard()
    running = asyncio.create_task(channel.python("print(1, flush=True)\nwhile True: pass", heard))
    await asyncio.wait_for(heard.any.wait(), 20)
    os.kill(warm[0], signal.SIGKILL)
    assert (await running).exit_code == -9
    assert (await channel.python("print(2)")).head == b"2\n"


# -- files


async def test_files_go_in_and_out(channel: Channel) -> None:
    data = os.urandom(3_000_000)
    await channel.write_file("a/b/c", data)
    assert await channel.read_file("a/b/c", 10_000_000) == data
    assert await channel.read_file("a/b/c", 100) == data[:100]
    await channel.write_file("a/b/c", b"new")
    await channel.write_file("./a//b/c", b"er", append=True)
    assert await channel.read_file("a/b/c") == b"newer"
    await channel.write_file("empty", b"")
    assert await channel.read_file("empty") == b""
    assert (await sh(channel, "stat -c %u a/b/c a"))[1].decode().split() == [NOBODY, NOBODY]
    await sh(channel, "ln -s a/b inner; ln -s ../a/b/c a/other")
    await channel.write_file("inner/deep/file", b"x")
    assert await channel.read_file("a/b/deep/file") == b"x"


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "x/", "a\0b", "\ud800", "a" * 300),
        *("x" * 2000, "/".join("a" * 100), "out", "out/passwd", "up", "up/x", "self", "fifo", "dir", "loop"),
        *("absent", "socket", "device"),
    ],
)
async def test_paths_that_are_refused(guest: Guest, channel: Channel, path: str) -> None:
    secret = guest.folder / "x"
    secret.write_text("secret")
    await sh(
        channel,
        "ln -s /etc out; ln -s .. up; ln -s /proc/self/root/etc/passwd self; mkfifo fifo; mkdir dir; "
        "ln -s loop loop; ln -s /dev/zero device; "
        "python3 -c 'import socket as s; s.socket(s.AF_UNIX).bind(\"socket\")'",
    )
    with pytest.raises(UsageError):
        await channel.read_file(path)
    if path != "absent" and path != "/".join("a" * 100):
        with pytest.raises(UsageError):
            await channel.write_file(path, b"gotcha")
    assert secret.read_text() == "secret"


@pytest.mark.skipif(not IS_ROOT, reason="only root has rights to lend")
async def test_the_agents_rights_are_not_lent(guest: Guest, channel: Channel) -> None:
    await channel.write_file("own", b"x")
    secret = guest.folder / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    os.link(secret, guest.workspace / "linked")
    with pytest.raises(UsageError, match="Permission denied"):
        await channel.read_file("linked")
    with pytest.raises(UsageError, match="Permission denied"):
        await channel.write_file("linked", b"gotcha")
    assert secret.read_text() == "secret"
    assert await channel.read_file("own") == b"x"


async def test_a_full_disk_is_an_error_and_not_the_end(channel: Channel) -> None:
    with pytest.raises(UsageError):  # a device is no file
        await channel.write_file("/dev/full", b"x")
    await channel.write_file("a", b"x")
    await sh(channel, "rm a; ln -s b a; chmod 500 .")
    if IS_ROOT:
        with pytest.raises(UsageError, match="Permission denied"):
            await channel.write_file("c", b"x")
    await sh(channel, "chmod 700 .")


# -- what stays


async def test_a_job_outlives_its_host(guest: Guest) -> None:
    async with guest.channel() as channel:
        pid = await channel.detach("clock", ["sh", "-c", "echo up; while :; do sleep 0.05; echo tick; done"])
        with pytest.raises(Busy, match="runs already"):
            await channel.detach("clock", ["true"])
    async with guest.channel() as channel:
        (job,) = await channel.jobs()
        assert (job.name, job.pid, job.code, job.argv[:2]) == ("clock", pid, None, ("sh", "-c"))
        assert abs(job.started - time.time()) < 60
        await said(channel, "clock", b"tick", 3)
        assert (await channel.log("clock")).startswith(b"up\n")
        assert await channel.log("clock", 3) == b"ck\n"
        assert await channel.stop("clock") == -signal.SIGTERM
        assert await channel.jobs() == ()
        with pytest.raises(UsageError, match="no job `clock`"):
            await channel.stop("clock")


async def test_a_job_that_does_not_want_to_stop(channel: Channel) -> None:
    mark = token()
    await channel.detach("deaf", ["sh", "-c", f"trap '' TERM; echo up; while :; do sleep 1; done; : {mark}"])
    await said(channel, "deaf", b"up")
    assert await channel.stop("deaf", 0.1) == -signal.SIGKILL
    assert alive(mark) == []


async def test_a_job_that_ended_is_listed_with_its_code(channel: Channel) -> None:
    await channel.detach(
        "short", ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end; exit 6"]
    )

    async def has_ended() -> bool:
        return (await channel.jobs())[0].code is not None

    await until(has_ended)
    assert (await channel.jobs())[0].code == 6
    log = await channel.log("short", 1_000_000)
    assert 262_144 <= len(log) + 1 <= 262_145
    assert log.endswith(b"x\nend\n")
    await channel.detach("short", ["sleep", "1000"])  # the name is free again
    assert (await channel.jobs())[0].code is None


async def test_the_agents_end_is_the_end_of_all(guest: Guest) -> None:
    mark = token()
    async with guest.channel() as channel:
        await channel.detach("job", ["sh", "-c", f"setsid sleep 1000 & sleep 1000; : {mark}"])
        guest.process.terminate()
        await guest.process.wait()
    assert alive(mark) == []
    left = list(Path("/sys/fs/cgroup").glob(f"**/org-{guest.process.pid}"))
    assert left == []


# -- the guest itself


async def test_after_a_restore_the_session_is_another(channel: Channel) -> None:
    before = channel.session
    await channel.restored()
    assert channel.session != before
    assert (await channel.python("print(1)")).head == b"1\n"


# -- hosts that are out of step


@pytest.mark.parametrize("seed", range(12))
async def test_rubbish_on_the_port_ends_a_session_and_not_the_agent(guest: Guest, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(5):
        reader, writer = await asyncio.open_unix_connection(guest.path)
        writer.write(frames.greeting(chance.randbytes(16)))
        for number in range(2, 20):
            ops = ["exec", "read", "write", "start", "jobs", "stop", "log", "x"]
            request = {"op": chance.choice(ops), "argv": ["true"], "name": 7, "path": "x", "user": NOBODY}
            kind, payload = chance.randrange(12), chance.choice([b"", b"{}", b"[]", chance.randbytes(50)])
            opens = frames.told(frames.OPEN, number, request)
            writer.write(chance.choice([opens, frames.frame(kind, number, payload)]))
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await reader.read()
    async with guest.channel() as channel:
        assert await sh(channel, "echo on") == (0, b"on\n")


@pytest.mark.parametrize("left", [b"", b"\x00\x00", frames.frame(frames.DATA, 2, b"x" * 100)[:9]])
async def test_a_host_that_starts_anew_on_an_open_port_is_greeted(guest: Guest, left: bytes) -> None:
    """As when a machine is restored between two looks at its port: nobody hung up."""
    mark = token()
    request = {"op": "exec", "argv": ["sh", "-c", f"sleep 1000; : {mark}"], "user": NOBODY}
    request |= {"workspace": str(guest.workspace), "memory": 100_000_000, "pids": 50}  # type: ignore[dict-item]
    reader, writer = await asyncio.open_unix_connection(guest.path)
    writer.write(frames.greeting(b"1" * 16) + frames.told(frames.OPEN, 2, request))
    await reader.readuntil(b"}")
    writer.write(left + frames.greeting(b"2" * 16) * 8)
    async with asyncio.timeout(30):
        await reader.readuntil(frames.greeting(b"2" * 16))
        writer.write(frames.told(frames.OPEN, 2, {**request, "argv": ["echo", "anew"]}))
        await reader.readuntil(b"anew\n")
    writer.close()
    await ended(mark)
    assert alive(mark) == []


@pytest.mark.parametrize(("off_s", "says"), [(-3600.0, "set\n"), (3600.0, "set\n"), (0.0, "")])
def test_a_clock_that_is_right_is_left_alone(off_s: float, says: str) -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {str(SOURCE)!r}); import agent\n"
        f"now = time.time() + {off_s}\n"
        "agent.set_clock(now, lambda clock, to: print('set' if (clock, to) == (0, now) else 'wrong'))"
    )
    ran = subprocess.run([PYTHON, "-S", "-B", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == says


async def test_an_unknown_operation_is_refused(channel: Channel) -> None:
    with pytest.raises(UsageError, match="does not know `dance`"):
        await channel._ask({"op": "dance"})
    for request in (
        {"op": "exec"},
        {"op": "read", "path": 7, "workspace": [], "user": NOBODY},
        {"op": "stop"},
    ):
        with pytest.raises(UsageError, match="does not understand"):
            await channel._ask(request)
    assert await sh(channel, "echo on") == (0, b"on\n")


@pytest.mark.skipif(not IS_ROOT, reason="it takes root to become somebody else")
async def test_without_rights_it_says_what_is_not_enforced() -> None:
    async with agent(user=65534) as guest, guest.channel() as channel:
        assert len(channel.missing) == 3
        assert await sh(channel, "id -u") == (0, b"65534\n")
        assert (await channel.python("print(1)")).head == b"1\n"
        mark = token()
        await sh(channel, f"sleep 1000 {mark} & exit 0")
        async with asyncio.timeout(30):
            while alive(mark):  # noqa: ASYNC110 -- killed, and nobody tells when it is gone
                await asyncio.sleep(0.01)
        late = await channel.run(Command(["sh", "-c", f"sleep 1000; : {mark}"], timeout_s=0.2))
        assert late.result.timed_out
        assert late.peak > 100_000
        await channel.write_file("a/b", b"x")
        assert await channel.read_file("a/b") == b"x"


async def test_a_workspace_that_cannot_be_made(guest: Guest) -> None:
    (guest.folder / "file").write_text("")
    async with guest.channel(Surroundings(str(guest.folder / "file/work"), NOBODY)) as channel:
        with pytest.raises(SandboxGone, match="no command can be started"):
            await channel.exec(Command(["true"]))
        with pytest.raises(EnvironmentProblem):
            await channel.read_file("x")
