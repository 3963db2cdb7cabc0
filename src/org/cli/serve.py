"""`org serve`: the rooms over HTTP, for the web page, for programs and for other terminals."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from org.cli.choose import choose_model
from org.cli.options import Parser, add_room_options, settings_from
from org.compose.opening import Opening
from org.compose.rooms import open_session, rooms_of
from org.compose.session import Session
from org.config import Settings
from org.errors import ExitCode, OrgError, UsageError
from org.journal import room_folder
from org.llm.embedded import EmbeddedServer
from org.serve.contract import Contract
from org.serve.doors import read_token
from org.serve.hub import Hub
from org.serve.listener import adopted, bind, is_loopback
from org.serve.logs import write_logs
from org.serve.run import Serving, serve

PORT = 7001


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org serve",
        description="Serve the rooms over HTTP: a web page, a JSON API with event streams, and an endpoint "
        "for OpenAI clients. Ends with SIGTERM (what runs is finished first) or Ctrl-C (at once).",
    )
    made.add_argument(
        "--port", metavar="N", type=_port, default=PORT, help=f"default: {PORT}; 0: any free one"
    )
    made.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1", help="default: 127.0.0.1, this "
                      "machine alone; anything else needs TLS")  # fmt: skip
    made.add_argument("--tls-cert", metavar="FILE", type=Path, help="the certificate, as PEM")
    made.add_argument("--tls-key", metavar="FILE", type=Path, help="its key, as PEM")
    made.add_argument("--name", dest="names", metavar="HOST", action="append", default=[], help="a host "
                      "name by which this server is called; repeatable")  # fmt: skip
    made.add_argument("--room", metavar="NAME", default="", help="open this room at once; made when missing")
    add_room_options(made)
    return made


def run(argv: list[str]) -> int:
    """Serve until told to end. Raises `Busy` when the port is taken, `UsageError` for doors left open."""
    args = parser().parse_args(argv)
    settings = settings_from(args)
    for warning in settings.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    _check_doors(args)
    contract = Contract.of(os.environ)
    listener = adopted(contract.listen_fd) if contract.listen_fd >= 0 else bind(args.listen, args.port)
    url = address(listener, args.names, tls=bool(args.tls_cert))
    serving = Serving(
        settings=settings,
        open_room=_open_room,
        opening=Opening(
            folder=args.folder and args.folder.resolve(), unsafe_local=args.unsafe_local, keep=True, url=url
        ),
        token=read_token(settings.places.state / "serve-token"),
        contract=contract,
        choose=partial(choose_model, interactive=False),
        names=(*args.names, socket.gethostname()),
        certificate=args.tls_cert,
        key=args.tls_key,
    )
    write_logs(sys.stderr)
    asyncio.run(_serve(serving, listener, url, args.room))
    return ExitCode.DONE


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65_536:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, not {port}")
    return port


def _check_doors(args: argparse.Namespace) -> None:
    """Raises `UsageError` when the server would be open to others without TLS."""
    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("TLS needs both, a certificate and its key", "`--tls-cert FILE --tls-key FILE`")
    for path in (args.tls_cert, args.tls_key):
        if path and not path.is_file():
            raise UsageError(f"no such file: `{path}`")
    if args.tls_cert:
        _check_tls(args.tls_cert, args.tls_key)
    if not is_loopback(args.listen) and not args.tls_cert:
        raise UsageError(
            f"`--listen {args.listen}` is refused without TLS: others could read the token and every word",
            "add `--tls-cert FILE --tls-key FILE`, or go through a tunnel: "
            f"`ssh -L {args.port}:127.0.0.1:{args.port} HOST`",
        )


def _check_tls(certificate: Path, key: Path) -> None:
    """Raises `UsageError` when the two cannot be used."""
    try:
        # With a password, so that nobody is asked for one in the middle of a start.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except OSError as error:  # what is wrong with TLS is one too
        raise UsageError(
            f"not a certificate with its key: `{certificate}`, `{key}`: {error.strerror}",
            "both must be PEM, the key without a password",
        ) from error


def address(listener: socket.socket, names: Sequence[str], *, tls: bool) -> str:
    """Where to go to reach what listens there."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:  # every address of this machine: none to go to
        host = names[0] if names else socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


async def _serve(serving: Serving, listener: socket.socket, url: str, room: str) -> None:
    opening: list[asyncio.Task[None]] = []

    def accepting(hub: Hub) -> None:
        print(f"org serves at {url}/#token={serving.token}", flush=True)
        if room:
            opening.append(asyncio.create_task(_open(hub, room)))

    async with _model_file(serving) as running:
        await serve(running, listener, accepting)


@asynccontextmanager
async def _model_file(serving: Serving) -> AsyncIterator[Serving]:
    """With a model file, one engine for all rooms; each would start its own otherwise."""
    settings, opening = serving.settings, serving.opening
    if not (settings.model or "").endswith(".gguf"):
        yield serving
        return
    path = Path(settings.model or "").expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"no such model file: `{path}`")
    print(f"loading {path.name} …", file=sys.stderr)
    # The whole path is the model's name, so that a room finds the file again wherever it is gone on with.
    async with EmbeddedServer(path, str(path)) as engine:
        yield replace(
            serving,
            settings=replace(settings, model=str(path), base=engine.base_url),
            opening=replace(opening, engines={path: engine.base_url}),
        )


async def _open(hub: Hub, room: str) -> None:
    """Open the room that was named; when that cannot be, the others are served all the same."""
    try:
        if room_folder(rooms_of(hub.settings), room).is_dir():
            await hub.open(room)
        else:
            await hub.create(room)
    except OrgError as error:
        print(f"org: {error.message}\n     {error.hint}", file=sys.stderr)


@asynccontextmanager
async def _open_room(settings: Settings, opening: Opening) -> AsyncIterator[Session]:
    """A room; a new one takes the server's only model when none was named."""
    if not opening.resume:
        settings = replace(settings, model=await choose_model(settings, interactive=False))
    async with open_session(settings, opening) as session:
        yield session
