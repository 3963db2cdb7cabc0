"""The network of a real machine: the model server's streams on their way in, its servers on their way out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from guest import image
from machine_kit import MEMORY, Owner, owning, two_ports
from org.ports import Command
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.place import VirtualMachine
from stepping import Server, stepping

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

DEADLINE_S = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with stepping() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Owner]:
    """With a machine that is up, whose ports are at two of this host that nobody holds."""
    await image()
    base = f"http://127.0.0.1:{server.port}/v1"
    with owning(tmp_path_factory.mktemp("vm"), base, "--port", str(two_ports())) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def inside(owner: Owner) -> AsyncIterator[Channel]:
    """What runs in there, and ends with the test."""
    where = Surroundings("/srv/org/tests", memory=MEMORY)
    async with owner.machine.channel(where) as channel:
        yield channel
    async with owner.machine.channel(where) as channel:  # the machine may have been another meanwhile
        for job in await channel.jobs():
            await channel.stop(job.name, grace_s=0)


# -- streams of the model server

# Opens so many streams at once and says of each event that it came, then what all came to.
READER = """
import hashlib, json, socket, sys, threading
def asked(name, count):
    body = json.dumps({"stream": name, "count": count}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n"
    return head % len(body) + body
def read(name, count):
    came = b""
    with socket.create_connection(("127.0.0.1", 11434)) as one:
        one.sendall(asked(name, count))
        while data := one.recv(65536):
            before = came.count(b"\\n\\n")
            came += data
            for number in range(before, min(came.count(b"\\n\\n"), count)):
                say(f"{name} {number}")
    say(f"{name} {hashlib.sha256(came).hexdigest()}")
def say(line):
    with speaking:
        print(line, flush=True)
speaking = threading.Lock()
names, count = sys.argv[2:], int(sys.argv[1])
readers = [threading.Thread(target=read, args=(name, count)) for name in names]
for one in readers:
    one.start()
for one in readers:
    one.join()
"""


async def directly(server: Server, name: str, count: int) -> bytes:
    """What somebody beside the server gets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps({"stream": name, "count": count}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    came = await reader.readuntil(b"\r\n\r\n")
    for _ in range(count):
        came += await reader.readuntil(b"\n\n")
        server.gates[name].set()
    came += await reader.read(-1)
    writer.close()
    return came


@pytest.mark.parametrize(("streams", "events"), [(1, 40), (8, 10), (32, 4)])
async def test_events_come_one_by_one_and_unchanged(
    server: Server, owner: Owner, streams: int, events: int
) -> None:
    """None is sent before the one before it was seen in there: what was held back would wait for ever."""
    names = [f"s{number}" for number in range(streams)]
    seen: dict[str, list[str]] = {name: [] for name in names}
    most_open = 0
    held = bytearray()

    def hear(data: bytes) -> None:
        nonlocal most_open
        held.extend(data)
        *lines, rest = bytes(held).split(b"\n")
        held[:] = rest
        for line in lines:
            name, what = line.decode().split()
            seen[name].append(what)
            most_open = max(most_open, server.open)
            if what != "0":
                server.gates[name].set()
            elif all(seen.values()):  # all are under way: now they go on
                for each in names:
                    server.gates[each].set()

    place = VirtualMachine(owner.machine, "tests", memory=MEMORY)
    words = ["python3", "-S", "-c", READER, str(events), *names]
    result = await place.exec(Command(words, timeout_s=DEADLINE_S), hear)
    assert result.exit_code == 0, result.head
    assert most_open == streams
    for name in names:
        assert seen[name][:-1] == [str(number) for number in range(events)]
        assert seen[name][-1] == hashlib.sha256(await directly(server, name, events)).hexdigest()


async def test_who_leaves_in_the_middle_of_a_stream_is_gone_at_the_server_too(
    server: Server, inside: Channel
) -> None:
    server.cut.clear()
    await inside.detach("reader", ["python3", "-S", "-c", READER, "2", "left"])
    async with asyncio.timeout(DEADLINE_S):
        while b"left 0" not in await inside.log("reader"):  # noqa: ASYNC110 -- another process's doing
            await asyncio.sleep(0.02)
        await inside.stop("reader", grace_s=0)
        await server.cut.wait()
    assert server.open == 0


# -- servers in there

SERVER = """
import http.server, sys
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


async def serve(inside: Channel, port: int) -> None:
    await inside.detach(f"server-{port}", ["python3", "-c", SERVER, str(port)])


async def facts(owner: Owner) -> dict[str, Any]:
    network: dict[str, Any] = (await owner.machine.up_or_gone()).facts["network"]
    return network


async def served(owner: Owner, true: Callable[[dict[str, str]], bool]) -> int:
    """Wait until that holds of the ports that are served; where 7001 is here."""
    async with asyncio.timeout(DEADLINE_S):
        while not true((network := await facts(owner))["serving"]):  # noqa: ASYNC110 -- likewise
            await asyncio.sleep(0.05)
    return int(network["inbound"]["7001"])


async def echoed(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + data)
        async with asyncio.timeout(DEADLINE_S):
            return (await reader.read(-1)).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


async def refused(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def listeners(port: int) -> set[str]:
    """The addresses at which somebody listens at that port of this host."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = {row[1] for row in rows if row[3] == "0A"}
    return {address.partition(":")[0] for address in found if address.endswith(f":{port:04X}")}


async def test_a_server_in_there_is_at_a_port_here_for_as_long_as_it_runs(
    owner: Owner, inside: Channel
) -> None:
    await serve(inside, 7001)
    await serve(inside, 7002)
    port = await served(owner, lambda serving: serving == {"7001": "", "7002": ""})
    assert listeners(port) == listeners(port + 1) == {"0100007F"}  # the loopback alone
    many = [os.urandom(20_000) for _ in range(20)]
    big = os.urandom(1_000_000)
    async with asyncio.timeout(DEADLINE_S):
        assert await asyncio.gather(*(echoed(port + n % 2, data) for n, data in enumerate(many))) == many
        assert await echoed(port, big) == big
    await inside.stop("server-7001", grace_s=0)
    assert await served(owner, lambda serving: serving == {"7002": ""}) == port
    await refused(port)
    assert await echoed(port + 1, b"still") == b"still"


async def test_no_other_port_of_it_appears(owner: Owner, inside: Channel) -> None:
    for port in (7000, 7001, 8000):
        await serve(inside, port)
    port = await served(owner, lambda serving: serving == {"7001": ""})
    assert listeners(port - 1) == set()
    assert set((await facts(owner))["inbound"]) == {"7001", "7002"}


HOLDER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print("holds", flush=True)
    sys.stdin.read()
"""


async def test_who_holds_a_port_here_is_named_and_the_other_is_served(owner: Owner, inside: Channel) -> None:
    second = int((await facts(owner))["inbound"]["7002"])
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(second)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    await holder.stdout.readline()
    await serve(inside, 7001)
    await serve(inside, 7002)
    port = await served(owner, lambda serving: len(serving) == 2)
    held = (await facts(owner))["serving"]["7002"]
    assert held.endswith(f"(process {holder.pid})")
    assert held in (await asyncio.to_thread(owner.vm, "status")).stdout.decode()
    assert await echoed(port, b"first") == b"first"
    holder.stdin.close()
    await holder.wait()
    await served(owner, lambda serving: serving == {"7001": "", "7002": ""})
    assert await echoed(port + 1, b"free") == b"free"


async def test_a_port_is_let_go_with_its_machine_and_comes_back_with_it(
    owner: Owner, inside: Channel
) -> None:
    await serve(inside, 7001)
    port = await served(owner, lambda serving: serving == {"7001": ""})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\n")  # in the middle of a request
    await owner.machine.down()
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read(-1) == b""
    writer.close()
    await refused(port)
    await asyncio.to_thread(owner.up)  # woken: the server never ended
    await served(owner, lambda serving: serving == {"7001": ""})
    assert await echoed(port, b"awake") == b"awake"
    assert (await asyncio.to_thread(owner.vm, "reset", "-y")).returncode == 0
    await refused(port)
    assert (await facts(owner))["serving"] == {}


async def test_a_guest_that_opens_what_it_can_gets_no_more_than_its_share(
    server: Server, owner: Owner, inside: Channel
) -> None:
    """Who comes too much is told so, others' requests go on, and so do commands."""
    flood = """
import socket
held = []
while len(held) < 400:
    one = socket.create_connection(("127.0.0.1", 11434))
    one.sendall(b"POST /v1/chat/comp")
    held.append(one)
answers = [one.recv(100) for one in held[64:]]
print(sum(b" 503 " in answer for answer in answers), len(answers))
for one in held:
    one.close()
answer = b" 503 "
while b" 503 " in answer:  # until those who left are gone out there
    with socket.create_connection(("127.0.0.1", 11434)) as one:
        one.sendall(b"GET /v1/models HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        answer = one.recv(100).partition(b"\\r")[0]
print(answer.decode())
"""
    flooding = asyncio.create_task(inside.python(flood, timeout_s=DEADLINE_S))
    while not flooding.done():
        assert (await inside.exec(Command(["echo", "well"]))).head == b"well\n"
    told = (await flooding).head.decode().split("\n")
    assert told[:2] == ["336 336", "HTTP/1.1 200 OK"]
    assert server.open == 0
