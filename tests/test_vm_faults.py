"""What goes wrong with a machine, and what its own root can do to it: whoever waits is told, this host
stays as it is, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from cli_kit import models_server
from guest import image
from machine_kit import MEMORY, Owner, owning, processes_of, two_ports
from org.errors import EnvironmentProblem, ExitCode, OrgError, SandboxGone
from org.ports import Command, ExecResult
from org.sandbox.vm.channel import Surroundings
from org.sandbox.vm.place import VirtualMachine
from waiting import until

pytestmark = pytest.mark.vm

DEADLINE_S = 120.0
ROOT = Surroundings("/root", "root", memory=MEMORY)
MOST_RESIDENT = 160 << 20  # bytes; a machine's process begins with a quarter of it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> None:
    await image()


@pytest.fixture(scope="module")
def owner(made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """With a machine that has a model server."""
    folder = tmp_path_factory.mktemp("vm")
    with models_server("only") as base, owning(folder, base, "--port", str(two_ports())) as one:
        yield one


@pytest.fixture
def fresh(owner: Owner) -> Owner:
    """With a machine that nobody has used, to be broken."""
    done = owner.vm("reset", "-y")
    assert done.returncode == 0, done.stderr
    owner.machine.folder.log.write_text("")
    return owner


@pytest.fixture
def place(owner: Owner) -> VirtualMachine:
    """A place in a machine that is up, and is left so."""
    if owner.vm("exec", "--", "true").returncode:
        assert owner.vm("reset", "-y").returncode == 0
    return VirtualMachine(owner.machine, "tests", memory=MEMORY)


# -- a machine whose root is hostile

# Takes a port from whoever serves it in there: that one stands still, with nobody to notice.
SEIZE = """
import ctypes, itertools, json, os, random, signal, sys, threading
sys.path.insert(0, "/run/org")
import frames
def holders(device):
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == device:
                    yield pid, int(fd)
        except OSError:
            pass
def seized(name):
    owner, fd = min(holders(os.path.realpath("/dev/virtio-ports/" + name)))  # its children come and go
    os.kill(owner, signal.SIGSTOP)
    pidfd_getfd = 438
    port = ctypes.CDLL(None).syscall(pidfd_getfd, os.pidfd_open(owner), fd, 0)
    assert port >= 0
    os.set_blocking(port, True)
    return owner, port
owner, port = seized(sys.argv[1])
def say(data):
    while data:
        data = data[os.write(port, data):]
"""

FLOODS = {
    "garbage": "while True: say(os.urandom(65536))",
    "openings": """
for number in itertools.count(1_000_001, 2):
    say(frames.told(frames.OPEN, number, {"to": "model"}))
""",
    "bytes": """
say(frames.told(frames.OPEN, 1_000_001, {"to": "model"}))
while True: say(frames.frame(frames.DATA, 1_000_001, b"G" * frames.MOST_DATA))
""",
    "notes": "while True: say(frames.told(frames.NOTE, 0, {'serving': [7001, 7002] * 1000}))",
    "answers": "while True: say(frames.frame(frames.PONG, 0, bytes(8)))",
    "output": """
while True: say(b"".join(frames.frame(frames.DATA, number, b"x" * 60000) for number in range(2, 40, 2)))
""",
    "half": "say(frames.told(frames.NOTE, 0, {'serving': ['x' * 60000]})[:-1]); signal.pause()",
}
BROKEN = "it broke the protocol"
UNREAD = "it does not read what it is sent"
SILENT = "it did not answer 3 pings"


@asynccontextmanager
async def intruder(owner: Owner, port: str, script: str, *words: str) -> AsyncIterator[None]:
    """A program of the machine's root that has taken a port."""
    async with owner.machine.channel(ROOT) as channel:
        with suppress(SandboxGone):  # it may be quicker than the agent's answer
            await channel.detach("intruder", ["python3", "-c", SEIZE + script, port, *words])
    yield


async def peak(pid: int) -> int:
    """The most memory that a process had until its end, in bytes; or until this is cancelled."""
    most = 0
    with suppress(FileNotFoundError, ProcessLookupError, asyncio.CancelledError):
        while True:
            status = Path(f"/proc/{pid}/status").read_text()
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            if found is None:  # a process that is no more but was not waited for
                break
            most = int(found[1]) << 10
            await asyncio.sleep(0.02)
    return most


async def words_at_its_end(owner: Owner) -> str:
    """Wait until a machine has ended by itself; why, by its log."""
    async with asyncio.timeout(DEADLINE_S):
        while (await owner.machine.status()).state != "down":  # noqa: ASYNC110 -- another process's doing
            await asyncio.sleep(0.02)
        await until(lambda: not processes_of(owner.machine))
    log = owner.machine.folder.log.read_text()
    assert "Traceback" not in log
    assert "relay failed" not in log
    *_, last = log.splitlines()
    return last.partition(" ended: ")[2]


@pytest.mark.parametrize(
    ("port", "flood", "why"),
    [
        ("org.net", "garbage", BROKEN),
        ("org.net", "openings", f"{UNREAD}|{SILENT}"),
        ("org.net", "bytes", f"{BROKEN}|{SILENT}"),
        ("org.net", "notes", SILENT),
        ("org.net", "half", SILENT),
        ("org.ctl", "garbage", BROKEN),
        ("org.ctl", "openings", BROKEN),
        ("org.ctl", "answers", BROKEN),
        ("org.ctl", "output", f"{BROKEN}|{SILENT}"),
    ],
)
async def test_a_machine_that_floods_its_host_is_ended(fresh: Owner, port: str, flood: str, why: str) -> None:
    pid = (await fresh.machine.up_or_gone()).pid
    assert pid is not None
    memory = asyncio.create_task(peak(pid))
    async with intruder(fresh, port, FLOODS[flood]):
        assert re.search(why, await words_at_its_end(fresh))
    assert 0 < await memory < MOST_RESIDENT


# Opens without end, and hears each refusal: nothing of it breaks a rule.
POLITE = """
def listen():
    decoder = frames.Decoder(frames.MOST_ASKED)
    while True:
        for frame in decoder.feed(os.read(port, 65536)):
            if frame.kind == frames.PING:
                with speaking:
                    say(frames.frame(frames.PONG, 0, frame.payload))
speaking = threading.Lock()
threading.Thread(target=listen, daemon=True).start()
for number in itertools.count(1_000_001, 2):
    with speaking:
        say(frames.told(frames.OPEN, number, {"to": "model"}) + frames.told(frames.CLOSE, number, {}))
"""


async def test_a_flood_that_breaks_no_rule_is_in_nobodys_way(fresh: Owner) -> None:
    pid = (await fresh.machine.up_or_gone()).pid
    assert pid is not None
    memory = asyncio.create_task(peak(pid))
    place = VirtualMachine(fresh.machine, "tests", memory=MEMORY)

    async def asked() -> int:
        counts = (await fresh.machine.up_or_gone()).facts["network"]["counts"]
        return int(counts["requests"]) + int(counts["refused"])

    async with intruder(fresh, "org.net", POLITE), asyncio.timeout(DEADLINE_S):
        while await asked() < 5000:
            assert (await place.exec(Command(["echo", "well"]))).head == b"well\n"
    memory.cancel()
    assert 0 < await memory < MOST_RESIDENT


FUZZ = """
r = random.Random(sys.argv[2])
ours = itertools.count(1_000_001, 2)
opened = [0, 2, 4, 6, 8, 10, 20, 30]
rude = float(sys.argv[3])
USUAL = [frames.DATA] * 9 + [frames.CLOSE, frames.CLOSE, frames.NOTE, frames.PONG]
USUAL += [frames.OPEN] * 3 if sys.argv[1] == "org.net" else [frames.TAIL, frames.ERR]
KEYS = ("version", "serving", "to", "error", "message", "code", "total", "peak", "timed_out", "pid", "jobs")
HTTP = (
    b"GET /v1/models HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", b"CONNECT a:1 HTTP/1.1\\r\\n\\r\\n",
    b"POST /api/show HTTP/1.1\\r\\nContent-Length: 5\\r\\n\\r\\n", b"12345", b"\\r\\n",
    b"POST /v1/chat/completions HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n", b"5\\r\\n",
    b"0\\r\\n\\r\\n", b"Expect: 100-continue\\r\\n", b"\\0" * 50,
)
def value(depth=0):
    plain = (None, True, -1, 0, 7001, 1 << 70, 1e300, "model", "", "\\ud800", "x" * 300)
    if depth > 3 or r.random() < 0.7:
        return r.choice(plain)
    inner = [value(depth + 1) for _ in range(r.randrange(4))]
    return inner if r.random() < 0.5 else {r.choice(KEYS): one for one in inner}
def said(kind):
    if kind in (frames.OPEN, frames.CLOSE, frames.NOTE):
        one = {r.choice(KEYS): value() for _ in range(r.randrange(4))}
        if r.random() < 0.8:
            one = {"to": r.choice(("model", 1))} if kind == frames.OPEN else {"serving": [7001, value()]}
        return json.dumps(one).encode()
    if kind in (frames.DATA, frames.ERR, frames.TAIL):
        return r.choice((*HTTP, r.randbytes(r.choice((1, 100, 4000)))))
    if kind == frames.CREDIT:
        return r.choice((1, 1, 100, 262144)).to_bytes(4, "big")
    return b"" if kind == frames.EOF else r.randbytes(8)
def one():
    kind = r.randrange(1, 11) if r.random() < rude else r.choice(USUAL)
    number = r.choice(opened)
    if kind == frames.OPEN:
        opened.append(number := next(ours))
    data = frames.frame(kind, 0 if kind in (frames.NOTE, frames.PING, frames.PONG) else number, said(kind))
    if r.random() < rude:
        data = bytearray(data)
        for _ in range(r.randrange(1, 4)):
            data[r.randrange(min(len(data), r.choice((9, 200))))] = r.randrange(256)
    return bytes(data)
for _ in range(3000):
    say(one())
os.set_blocking(port, False)
os.kill(owner, signal.SIGCONT)
open("/tmp/done", "w").close()
"""


@pytest.mark.parametrize("port", ["org.net", "org.ctl"])
@pytest.mark.parametrize(("seed", "rude"), [("one", "0"), ("two", "0.001"), ("three", "0.01")])
async def test_frames_of_any_kind_end_the_machine_or_nothing(
    fresh: Owner, port: str, seed: str, rude: str
) -> None:
    """Commands run meanwhile, so that there are channels to lie in; who is lied to may believe it."""
    place = VirtualMachine(fresh.machine, "tests", memory=MEMORY)
    running = asyncio.create_task(place.exec(Command(["sleep", "1000"], timeout_s=1000)))
    async with intruder(fresh, port, FUZZ, seed, rude), asyncio.timeout(DEADLINE_S):
        while not (done := await is_done(place)) and (await fresh.machine.status()).state == "up":
            pass
        if done:
            assert (await place.exec(Command(["echo", "well"]))).head == b"well\n"
        else:
            assert re.match("the machine is gone: it .*", await words_at_its_end(fresh))
    running.cancel()
    (came,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(came, OrgError | ExecResult | asyncio.CancelledError)
    log = fresh.machine.folder.log.read_text()
    assert "Traceback" not in log
    assert "relay failed" not in log


async def is_done(place: VirtualMachine) -> bool:
    with suppress(OrgError):
        return (await place.exec(Command(["test", "-e", "/tmp/done"]))).exit_code == 0
    return False


# -- ends


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo c > /proc/sysrq-trigger", r"last words: .*Kernel panic - not syncing: sysrq triggered crash"),
        ("exec kill -9 $(pgrep -o -P 1)", r"last words: .*org-boot: the agent ended with status -9"),
        ("echo o > /proc/sysrq-trigger", "it hung up|QEMU: 0"),
    ],
)
async def test_how_it_ended_is_told_with_its_last_words(fresh: Owner, script: str, told: str) -> None:
    done = await asyncio.to_thread(fresh.vm, "exec", "--root", "--", "sh", "-c", f"{script}; sleep 1000")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert b"whether `sh` was done is unknown" in done.stderr
    words = await words_at_its_end(fresh)
    assert re.search(told, words)
    assert fresh.vm("exec", "--", "true").returncode == ExitCode.ENVIRONMENT


async def test_a_process_of_a_machine_that_stands_still_is_named_and_can_be_ended(fresh: Owner) -> None:
    pid = (await fresh.machine.up_or_gone()).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        words = (("status", "--json"), ("exec", "true"), ("up",))
        status, done, up = await asyncio.gather(*(asyncio.to_thread(fresh.vm, *verb) for verb in words))
        assert json.loads(status.stdout)["state"] == "silent"
        assert done.returncode == ExitCode.ENVIRONMENT
        assert up.returncode == ExitCode.BUSY
        assert f"process {pid}".encode() in up.stderr
        assert (await asyncio.to_thread(fresh.vm, "down", "--hard")).returncode == 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert processes_of(fresh.machine) == []


# -- what is used up


async def test_a_full_disk_is_an_error_and_no_more(place: VirtualMachine) -> None:
    fill = "fallocate -l $(($(df --output=avail -B1 . | tail -n 1) - 1000000)) full; cat /dev/zero > more"
    filled = await place.exec(Command(["sh", "-c", fill]))
    try:
        assert b"No space left on device" in filled.head
        with pytest.raises(EnvironmentProblem, match="No space left on device"):
            await place.write_file("another", b"x" * 1_000_000)
        assert (await place.exec(Command(["sh", "-c", "ls | wc -l"]))).exit_code == 0
        assert (await place.exec(Command(["python3", "-S", "-c", "print(1 + 1)"]))).head == b"2\n"
    finally:
        await place.exec(Command(["rm", "-f", "full", "more", "another"]))
    await place.write_file("another", b"x" * 1_000_000)
    assert await place.read_file("another") == b"x" * 1_000_000


async def test_who_does_not_take_a_commands_output_holds_up_nobody(
    owner: Owner, place: VirtualMachine
) -> None:
    pid = (await owner.machine.up_or_gone()).pid
    assert pid is not None
    memory = asyncio.create_task(peak(pid))
    deaf = [owner.start("vm", "exec", "--", "yes") for _ in range(4)]
    try:
        for client in deaf:
            assert client.stdout is not None
            client.stdout.readline()
        deaf[0].send_signal(signal.SIGSTOP)
        for _ in range(10):
            big = await place.exec(Command(["seq", "100000"], output_limit=1_000_000))
            assert (big.exit_code, big.left_out) == (0, 0)
        assert (await place.exec(Command(["pgrep", "-xc", "yes"]))).head == b"4\n"
    finally:
        for client in deaf:
            client.kill()
            client.communicate()
    gone = "while pgrep -x yes; do sleep 0.05; done"
    assert (await place.exec(Command(["sh", "-c", gone]))).exit_code == 0
    memory.cancel()
    assert 0 < await memory < MOST_RESIDENT
