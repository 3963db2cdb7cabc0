"""Who is let in."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path

import pytest

from org.errors import EnvironmentProblem
from org.serve import bodies, connection
from org.serve.doors import Pace, read_token
from org.serve.passes import Passes
from serve_kit import TOKEN, Client, request, site


async def test_without_the_token_nothing_is_told(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        for token in ("", "x", TOKEN[:-1], TOKEN + "t", "ü"):
            for method, path in (
                ("GET", "/rooms"),
                ("GET", "/rooms/main"),
                ("GET", "/rooms/main/events"),
                ("GET", "/rooms/main/transcript"),
                ("GET", "/metrics"),
                ("GET", "/nowhere"),
                ("POST", "/rooms"),
                ("POST", "/health"),
                ("POST", "/login"),
            ):
                answer = await server.ask(method, path, token=token)
                assert (answer.status, answer.headers.get("www-authenticate")) == (401, "bearer")
        assert (await server.ask("GET", "/health", token="")).status == 200
        assert (await server.ask("GET", "/openapi.json", token="")).status == 200
        basic = await server.ask("GET", "/rooms", authorization=f"Basic {TOKEN}")
        assert basic.status == 401


async def test_a_page_takes_a_key_for_the_token(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        host = f"127.0.0.1:{server.port}"
        answer = await server.ask("POST", "/login", host=host)
        assert answer.status == 200
        key = answer.json["key"]
        assert (TOKEN in key, answer.json["seconds"]) == (False, 7 * 86_400)
        assert (await server.ask("GET", "/rooms", token=key, host=host)).status == 200
        assert (await server.ask("POST", "/rooms", token=key, host=host)).status == 201
        assert (await server.ask("GET", "/rooms", token=key[:-1], host=host)).status == 401
        assert (await server.ask("POST", "/login", token=key, host=host)).status == 401  # it gets no new one
        # It is good for the address that the page has.
        assert (await server.ask("GET", "/rooms", token=key, host="127.0.0.1:9")).status == 401


async def test_nothing_is_let_in_for_a_cookie(tmp_path: Path) -> None:
    """A browser sends them to every port of a host, whoever listens there."""
    async with site(tmp_path) as server:
        host = f"127.0.0.1:{server.port}"
        login = await server.ask("POST", "/login", host=host)
        assert "set-cookie" not in login.headers
        for value in (TOKEN, login.json["key"]):
            cookie = f"org-{server.port}={value}; org={value}"
            answer = await server.ask("GET", "/rooms", token="", host=host, cookie=cookie)
            assert answer.status == 401


async def test_an_event_stream_takes_a_ticket_once(tmp_path: Path) -> None:
    async def begun(path: str, **headers: str) -> int:
        async with await Client.connect(server.port) as client:
            client.send(request("GET", path, token="", **headers))
            return (await client.head())[0]

    async def ticket() -> str:
        answer = await server.ask("POST", "/rooms/main/tickets")
        assert answer.status == 201
        return str(answer.json["ticket"])

    async with site(tmp_path) as server:
        for room in ("main", "other"):
            await server.ask("POST", "/rooms", {"id": room})
        assert (await server.ask("POST", "/rooms/none/tickets")).status == 404
        assert (await server.ask("POST", "/rooms/main/tickets", token="")).status == 401
        first = await ticket()
        assert await begun(f"/rooms/main/events?ticket={first}") == 200
        assert await begun(f"/rooms/main/events?ticket={first}") == 401
        second = await ticket()
        for path in ("/rooms/other/events", "/rooms/main/transcript", "/rooms/main", "/rooms"):
            assert await begun(f"{path}?ticket={second}") == 401
        assert await begun("/rooms", authorization=f"Bearer {second}") == 401
        assert await begun(f"/rooms/main/events?ticket={second[:-1]}") == 401
        assert await begun(f"/rooms/main/events?ticket={second}") == 200


def test_passes_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    passes = Passes("secret")
    page, ticket = passes.issue("page", 10), passes.issue("ticket", 10)
    assert passes.holds(page, "page")
    assert Passes("secret").holds(page, "page")  # as a server that took over would have it
    assert not Passes("other").holds(page, "page")
    assert not passes.holds(page, "ticket")
    assert not passes.holds("", "page")
    assert not passes.holds(f"f{page}", "page")  # later
    now += 9.5
    assert passes.take(ticket, "ticket")
    assert not passes.take(ticket, "ticket")
    now += 1
    assert not passes.holds(page, "page")
    assert not passes.take(ticket, "ticket")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:7001", 200),
        ("localhost:7001", 200),
        ("LocalHost.", 200),
        ("app.localhost", 200),
        ("[::1]:7001", 200),
        ("10.0.0.7:80", 200),  # an address cannot be pointed here by somebody else's name server
        ("mine.example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:7001", 421),
        ("evil.example@127.0.0.1", 421),
        ("127.0.0.1/evil", 421),
        ("127.0.0.1:x", 421),
        ("[::1", 421),
        (":7001", 421),
    ],
)
async def test_names_that_are_not_ours(tmp_path: Path, host: str, status: int) -> None:
    async with site(tmp_path, names=["Mine.example"]) as server:
        assert (await server.ask("GET", "/rooms", host=host)).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:7001"}, 201),
        ({"origin": "http://127.0.0.1:7002"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://127.0.0.1:7001"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "same-origin"}, 201),
        ({"sec_fetch_site": "none"}, 201),
    ],
)
async def test_requests_of_other_pages(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with site(tmp_path) as server:
        answer = await server.ask("POST", "/rooms", host="127.0.0.1:7001", **headers)
        assert answer.status == status
        assert "access-control-allow-origin" not in answer.headers


async def test_a_link_from_elsewhere_may_be_followed(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        headers = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
        assert (await server.ask("GET", "/health", **headers)).status == 200


async def test_too_many_requests(tmp_path: Path) -> None:
    async with site(tmp_path, pace=Pace(0.001, 3)) as server:
        answers = [await server.ask("POST", "/rooms/none/clear") for _ in range(5)]
        assert [answer.status for answer in answers] == [404, 404, 404, 429, 429]
        assert answers[-1].headers["retry-after"] == "1"
        assert (await server.ask("GET", "/rooms")).status == 200  # looking is free
        # What stops things gets through.
        assert (await server.ask("POST", "/rooms/none/interrupt")).status == 404
        assert (await server.ask("POST", "/rooms/none/approvals/1", {"allow": False})).status == 404


async def test_who_has_no_token_takes_nobodys_turn(tmp_path: Path) -> None:
    async with site(tmp_path, pace=Pace(0.001, 3)) as server:
        guesses = [await server.ask("POST", "/rooms", token="x") for _ in range(5)]
        assert [answer.status for answer in guesses] == [401, 401, 401, 429, 429]
        assert (await server.ask("GET", "/rooms", token="x")).status == 429
        assert (await server.ask("POST", "/rooms", {"id": "main"})).status == 201


async def test_too_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 2)
    async with (
        site(tmp_path) as server,
        await Client.connect(server.port) as one,
        await Client.connect(server.port) as two,
    ):
        assert [(await client.ask("GET", "/health")).status for client in (one, two)] == [200, 200]
        async with await Client.connect(server.port) as three:
            assert (await three.ask("GET", "/health")).status == 503
        assert (await one.ask("GET", "/health")).status == 200
        assert (await two.ask("GET", "/health")).status == 200


async def test_who_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.05)
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: 127")
        assert await client.closed()


async def test_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.05)
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        client.send(request("POST", "/rooms", {"id": "main"}, content_length="100"))
        assert (await client.answer()).status == 408


async def test_a_head_without_end_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"x: y\r\n" * 20_000)
        assert (await client.answer()).status == 400
        assert await client.closed()


async def test_two_hosts_are_no_host(tmp_path: Path) -> None:
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
        assert (await client.answer()).status == 400


async def test_a_websocket_is_not_understood(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        headers = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
        assert (await server.ask("GET", "/rooms/none", **headers)).status == 404


def test_the_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    token = read_token(path)
    assert len(token) == 43
    assert read_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert read_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["token"]


async def test_several_servers_agree_on_a_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    tokens = await asyncio.gather(*(asyncio.to_thread(read_token, path) for _ in range(8)))
    assert len(set(tokens)) == 1


@pytest.mark.parametrize("text", ["", "short\n"])
def test_a_file_that_is_no_token(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(EnvironmentProblem, match="no token"):
        read_token(path)


def test_a_token_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(EnvironmentProblem, match="cannot be kept"):
        read_token(tmp_path / "state" / "token")
