"""A server from its parts: the rooms, the application with its doors, the sockets, the contract."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from org.compose.opening import Opening
from org.config import Settings
from org.events import Event
from org.serve import drain
from org.serve.acts import Acts
from org.serve.app import Api, make_app
from org.serve.connection import KEEP_ALIVE_S, Connection
from org.serve.contract import Contract
from org.serve.doors import Doors, Pace
from org.serve.forks import Choose, Forks, chosen
from org.serve.health import Health, probe_models
from org.serve.hub import Hub, OpenRoom
from org.serve.logs import Requests
from org.serve.metrics import Metrics, metrics_endpoint
from org.serve.openai import OpenAi
from org.serve.otel import traces
from org.serve.page import page_endpoint
from org.serve.passes import Passes

PUBLIC = frozenset({"/", "/health", "/openapi.json"})
"""Paths that tell nothing of anybody's rooms."""
PATIENCE_S = drain.DRAIN_S + 5
"""How long a new generation waits for a room: until the old one must have let go."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve. `choose` finds the model for OpenAI's clients when none was set; `names` are host
    names of ours; `certificate` and `key` are files for TLS."""

    settings: Settings
    open_room: OpenRoom
    opening: Opening
    token: str
    contract: Contract = field(default_factory=Contract)
    choose: Choose = chosen
    names: Collection[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    pace: Pace = field(default_factory=Pace)
    keep_alive_s: float = KEEP_ALIVE_S
    drain_s: float = drain.DRAIN_S
    more_routes: Callable[[Hub], Sequence[BaseRoute]] = lambda hub: ()


async def serve(
    serving: Serving, listener: socket.socket, accepting: Callable[[Hub], None] = lambda hub: None
) -> None:
    """Serve until SIGTERM has drained the server, or SIGINT ended it. `accepting` is called once the
    doors are open."""
    contract = serving.contract
    metrics, trace = Metrics(), traces()
    health = Health(partial(probe_models, serving.settings), commit=contract.commit, nonce=contract.nonce)

    def observers(room: str) -> Sequence[Callable[[Event], None]]:
        return (metrics.event, *([trace(room)] if trace else []))

    hub = Hub(
        serving.settings,
        serving.open_room,
        serving.opening,
        patience_s=PATIENCE_S if contract.takes_over else 0.0,
        observers=observers,
    )
    forks = Forks(serving.settings, serving.opening, serving.choose, observers)
    _allow_connections()
    app = _application(serving, hub, forks, health, metrics)

    def opened() -> None:
        health.state = "serving"
        contract.say("accepting")
        accepting(hub)

    def draining() -> None:
        health.state = "draining"
        contract.say("draining")
        hub.drain()

    server = drain.Server(
        drain.config(
            app,
            ssl_certfile=serving.certificate and str(serving.certificate),
            ssl_keyfile=serving.key and str(serving.key),
        ),
        accepting=opened,
        draining=draining,
        finish=hub.close,
        keep_alive_s=serving.keep_alive_s,
        drain_s=serving.drain_s,
    )
    async with hub, forks, _private_health(contract.health_socket, health), _signals(server):
        contract.say("ready")
        if await _told_to_go(contract, server):
            await server.serve(sockets=[listener])
        await health.close()
    contract.say("drained")


async def _told_to_go(contract: Contract, server: drain.Server) -> bool:
    """Whether we are to serve; not when we are told to end first, or nobody is left to tell us."""
    going = asyncio.create_task(contract.go())
    ending = asyncio.create_task(server.told.wait())
    await asyncio.wait({going, ending}, return_when=asyncio.FIRST_COMPLETED)
    go = going.done() and going.result()
    for task in (going, ending):
        task.cancel()
    await asyncio.wait({going, ending})
    return go


@asynccontextmanager
async def _signals(server: drain.Server) -> AsyncIterator[None]:
    """SIGTERM drains; SIGINT, or a second SIGTERM, ends the server now. Both end it well."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, server.tell, number == signal.SIGINT)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _application(serving: Serving, hub: Hub, forks: Forks, health: Health, metrics: Metrics) -> ASGIApp:
    routes = [
        Route("/", page_endpoint()),
        Route("/metrics", metrics_endpoint(metrics, hub, forks)),
        *Acts(hub).routes(),
        *OpenAi(hub, forks).routes(),
    ]
    passes = Passes(serving.token)
    app = make_app(Api(hub, health, passes), [*routes, *serving.more_routes(hub)])
    doors = Doors(app, serving.token, passes, names=serving.names, public=PUBLIC, pace=serving.pace)
    app.add_route("/login", doors.login, methods=["POST"])
    return Requests(doors, metrics.request)


@asynccontextmanager
async def _private_health(path: str, health: Health) -> AsyncIterator[None]:
    """`GET /health` on a Unix socket, for whoever started us, for as long as we live."""
    if not path:
        yield
        return
    with suppress(FileNotFoundError):
        os.unlink(path)
    config = drain.config(Starlette(routes=[Route("/health", health.endpoint)]))
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(config, state, {}), path)
    try:
        yield
    finally:
        server.close()


def _allow_connections() -> None:
    """Each reader of an event stream is an open file: take as many as we may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
