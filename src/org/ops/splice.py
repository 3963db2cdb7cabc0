"""Speaks the contract for a program that does not: the program runs on a port of its own behind it, and
every connection is passed on byte by byte.

    python -m org.ops.splice SPEC

SPEC is JSON: `argv`, `env`, `health` (a path), `drain_s`. A drain takes no new connections; those that
live go on until they end, or until the deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

from org.ops import health, streams
from org.ops.intake import Intake
from org.ops.listener import HOST
from org.ops.plan import command

# What was meant for this process, and not for the program behind it.
_OURS = frozenset(
    {
        *("ORG_CONTRACT", "ORG_LISTEN_FD", "ORG_GO_FD", "ORG_ACK_FD", "ORG_HEALTH_SOCK", "ORG_NONCE"),
        "PYTHONPATH",
    }
)
_BLOCK = 65_536
_POLL_S = 0.05
_ENDS_S = 5.0
_LINGER_S = 5.0
_MARGIN_S = 1.0  # before whoever set the deadline ends everything


def main() -> int:
    return asyncio.run(_run(json.loads(sys.argv[1])))


async def _run(spec: dict[str, Any]) -> int:
    return await Splice(spec).run()


class Splice:
    """One program and the connections to it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._port = _free_port()
        self._status = "starting"
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._told = asyncio.Event()

    async def run(self) -> int:
        """The program's exit code, 0 after a drain."""
        loop = asyncio.get_running_loop()
        program = self._start()
        handle = os.pidfd_open(program.pid)
        loop.add_reader(handle, self._see, program, handle)
        loop.add_signal_handler(signal.SIGTERM, self._told.set)
        async with await asyncio.start_unix_server(self._say_health, os.environ["ORG_HEALTH_SOCK"]):
            _say("ready")
            if await self._told_to_go():
                await self._serve()
        if not self._ended.done():
            program.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._ended), _ENDS_S)
        code = self._ended.result() if self._ended.done() and not self._told.is_set() else 0
        _say("drained")
        return code if code >= 0 else 1

    def _start(self) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if name not in _OURS}
        argv = command(self._spec["argv"], {"port": str(self._port)})
        return subprocess.Popen(argv, env={**kept, **self._spec["env"], "PORT": str(self._port)})

    def _see(self, program: subprocess.Popen[bytes], handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        self._ended.set_result(program.wait())

    async def _told_to_go(self) -> bool:
        go = int(os.environ["ORG_GO_FD"])
        os.set_blocking(go, False)
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bool] = loop.create_future()

        def read() -> None:
            loop.remove_reader(go)
            told.set_result(bool(os.read(go, 64)))

        loop.add_reader(go, read)
        ending = asyncio.create_task(self._told.wait())
        await streams.first_of(told, ending, self._ended)
        ending.cancel()
        return told.done() and told.result() and not self._ended.done()

    async def _serve(self) -> None:
        with socket.socket(fileno=int(os.environ["ORG_LISTEN_FD"])) as listener:
            listener.setblocking(False)
            intake = Intake(listener, self._pass_on)
            intake.begin()
            self._status = "serving"
            _say("accepting")
            ending = asyncio.create_task(self._told.wait())
            await streams.first_of(ending, self._ended)
            ending.cancel()
            intake.end()
        self._status = "draining"
        _say("draining")
        if intake.handled:
            limit = _ENDS_S if self._ended.done() else max(0.0, self._spec["drain_s"] - _MARGIN_S)
            await asyncio.wait(intake.handled, timeout=limit)
        for connection in intake.handled:
            connection.cancel()
        if intake.handled:
            await asyncio.wait(intake.handled)

    async def _say_health(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            well = not self._ended.done() and await health.is_well(self._port, self._spec["health"])
            said = {
                "status": self._status,
                "commit": os.environ["ORG_COMMIT"],
                "nonce": os.environ["ORG_NONCE"],
                "pid": os.getpid(),
            }
            body = json.dumps(said).encode()
            head = "200 OK" if well else "503 Service Unavailable"
            writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # whoever asked has left
        except asyncio.CancelledError:
            return  # this process ends; raised, it would be the last that the log has
        finally:
            writer.close()

    # -- connections

    async def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError):  # the program takes no connection, or the client has left
            reader, writer = await asyncio.open_connection(sock=client)
            try:
                await self._join(reader, writer)
                writer.close()
                await writer.wait_closed()  # when the client has all that the program said
            finally:
                writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what either side says, until the program has said all, and a little longer: that the
        client keeps its own side open does not make a connection last."""
        theirs, ours = await asyncio.open_connection(HOST, self._port)
        there = asyncio.create_task(_copy(reader, ours))
        back = asyncio.create_task(_copy(theirs, writer))
        try:
            await asyncio.wait({back})
            await streams.first_of(there, self._ended, seconds=_LINGER_S)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.wait({there, back})
            ours.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Everything, and then that it is all; the other direction goes on."""
    try:
        while data := await source.read(_BLOCK):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.transport.abort()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _say(word: str) -> None:
    with suppress(BrokenPipeError):  # whoever started us may be gone
        os.write(int(os.environ["ORG_ACK_FD"]), f"{word}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
