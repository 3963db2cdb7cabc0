"""`org` in a machine: put there, serving rooms whose commands run as somebody else, behind a firewall."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine import Engine, call, serving
from machine_kit import Owner, copy_suspended, processes_of, two_ports
from org import __version__
from org.errors import ExitCode
from org.sandbox.harden import rules, script

pytestmark = [pytest.mark.vm, pytest.mark.engine]

SCRIPTS = {
    "shell": [
        call("sh", cmd="id -un; cat /home/org/.local/state/org/rooms/main/*; echo kept > note; pwd"),
        "@calc and who are you?",
    ],
    "program": [call("python_run", code="print(__import__('os').getuid())"), "Both ran."],
}
ROSTER = """
[[participant]]
id = "coder"
profile = "agent"
system = "[[shell]]"
[[participant]]
id = "calc"
profile = "python"
system = "[[program]]"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reciting(models: Path) -> AsyncIterator[Engine]:
    async with serving(models, SCRIPTS) as engine:
        yield engine


@pytest.fixture(scope="module")
def owner(reciting: Engine, installed: Owner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """With a machine that is up, in which this version is installed."""
    one = Owner(tmp_path_factory.mktemp("vm"), reciting.base_url)
    copy_suspended(installed.machine.folder, one.machine.folder)
    one.up("--port", str(two_ports()))
    said(
        one, ROSTER.encode(), "sh", "-c", "mkdir -p .config/org && cat > .config/org/config.toml", user="org"
    )
    yield one
    assert one.vm("rm", "-y").returncode == 0
    assert processes_of(one.machine) == []


def said(owner: Owner, given: bytes, *words: str, user: str = "job") -> str:
    """What a command in the machine says."""
    done = owner.vm("exec", "--user", user, "--", *words, stdin=given)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


def python(owner: Owner, code: str, user: str) -> str:
    return said(owner, b"", "python3", "-c", code, user=user)


@pytest.fixture
def served(owner: Owner) -> Iterator[str]:
    """The job of a server in the machine."""
    assert owner.vm("exec", "--detach", "--user", "org", "--", "org", "serve").returncode == 0
    yield "org"
    owner.vm("stop", "org")


# -- put there


def test_any_user_of_the_machine_has_it(owner: Owner) -> None:
    for user in ("job", "org", "root"):
        assert said(owner, b"", "org", "--version", user=user) == f"org {__version__}\n"


def test_a_second_time_nothing_is_sent(owner: Owner) -> None:
    done = owner.vm("install")
    assert done.stdout.decode() == f"org {__version__} is in the machine `default` already\n"
    assert done.stderr == b""


def test_nobody_but_root_can_change_it(owner: Owner) -> None:
    search = "find /opt/org /usr/local/bin/org ( ! -user root -o -perm /022 ! -type l ) -print"
    assert said(owner, b"", *search.split(), user="root") == ""
    for user in ("job", "org"):
        done = owner.vm("exec", "--user", user, "--", "sh", "-c", "touch /opt/org/current/lib/x")
        assert b"Permission denied" in done.stderr


def test_what_an_earlier_try_left_is_in_nobodys_way(owner: Owner) -> None:
    undo = "rm /usr/local/bin/org current; mkdir 0123abcd .cut-off; touch -d '2 hours ago' .cut-off"
    undo = f"cd /opt/org; {undo}"
    said(owner, b"", "sh", "-c", undo, user="root")
    assert owner.vm("install").returncode == 0
    assert said(owner, b"", "org", "--version") == f"org {__version__}\n"
    assert len(said(owner, b"", "ls", "-A", "/opt/org").split()) == 2


def test_a_python_that_cannot_run_it_is_named(owner: Owner) -> None:
    other = "/usr/local/bin/python3"
    told = """#!/bin/sh\necho '[[3, 10, 1], "/usr/bin/python3", "x86_64", "glibc 2.36", ""]'\n"""
    hide = f"mv /opt/org/current /opt/org/hidden; cat > {other}; chmod +x {other}"
    said(owner, told.encode(), "sh", "-c", hide, user="root")
    try:
        done = owner.vm("install")
    finally:
        said(owner, b"", "sh", "-c", f"rm {other}; mv /opt/org/hidden /opt/org/current", user="root")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "Python 3.10; org needs 3.11" in done.stderr.decode()


def test_a_full_disk_is_said(owner: Owner) -> None:
    said(owner, b"", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/opt/org", user="root")
    try:
        done = owner.vm("install")
    finally:
        said(owner, b"", "umount", "/opt/org", user="root")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "No space left on device" in done.stderr.decode()
    assert owner.vm("install").stdout.endswith(b"already\n")


# -- serving there


async def test_a_room_that_is_served_there(owner: Owner, served: str) -> None:
    """From outside through port 7001; who runs its commands has neither the journal nor the token."""
    port = await _port(owner)
    token = owner.vm("joblog", served).stdout.decode().partition("#token=")[2].split()[0]
    assert (
        _asked(port, token, "POST", "/rooms", {"id": "main"})["place"] == "in this machine, as the user `job`"
    )
    _asked(port, token, "POST", "/rooms/main/messages", {"text": "@coder go"})
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(120):
        while not any(event["type"] == "stopped" for event in events):
            await asyncio.sleep(0.1)
            events = _asked(port, token, "GET", "/rooms/main/transcript")["events"]
    results = [event["result"] for event in events if event["type"] == "call_finished"]
    assert len(results) == 2, events
    shell, program = results
    assert shell["output"].startswith("job\n")
    assert "Permission denied" in shell["output"]
    assert shell["output"].endswith("/srv/org/main\n")
    assert program["output"] == "1002\n"
    assert [event["message"]["content"] for event in events if event["type"] == "posted"][-1] == "Both ran."
    assert said(owner, b"", "cat", "/srv/org/main/note") == "kept\n"
    assert said(owner, b"", "sh", "-c", "ls .local/state/org/rooms", user="org") == "main\n"


async def _port(owner: Owner) -> int:
    """Where the port 7001 of the machine is here, once it is."""
    network: dict[str, Any] = {"serving": {}}
    async with asyncio.timeout(60):
        while network["serving"].get("7001") != "":
            network = dict((await owner.machine.status()).facts["network"])
            await asyncio.sleep(0.1)
    return int(network["inbound"]["7001"])


def _asked(port: int, token: str, method: str, path: str, body: dict[str, str] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_only_who_serves_rooms_may_have_commands_run(owner: Owner) -> None:
    code = "import socket; print(socket.socket(socket.AF_UNIX).connect_ex('/run/org/jobs.sock'))"
    assert [python(owner, code, user) for user in ("job", "cand", "org")] == ["13\n", "13\n", "0\n"]


def test_who_serves_rooms_becomes_nobody_else(owner: Owner) -> None:
    code = "import os\ntry:\n    os.setuid(1002)\nexcept PermissionError:\n    print('held')"
    assert python(owner, code, "org") == "held\n"


def test_rooms_are_kept_from_who_runs_their_commands(owner: Owner) -> None:
    """A machine is what the settings may require; the weaker place in here would be their own."""
    done = owner.vm("exec", "--user", "org", "--", "org", "run", "--sandbox", "local", "@coder go")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert b"commands run as another user" in done.stderr
    kept = f'[sandbox]\nrequire = "vm"\n{ROSTER}'
    said(owner, kept.encode(), "sh", "-c", "cat > .config/org/config.toml", user="org")
    assert said(owner, b"", "org", "run", "@coder go", user="org").endswith("Both ran.\n")


# -- jobs


def test_a_job_goes_on_by_itself_until_it_is_stopped(owner: Owner) -> None:
    assert owner.vm("jobs").stdout == b""
    started = owner.vm("exec", "--detach", "--job", "slow", "--", "sh", "-c", "echo begun; exec sleep 1000")
    assert b"the job `slow` runs" in started.stdout
    again = owner.vm("exec", "--detach", "--job", "slow", "--", "true")
    assert again.returncode == ExitCode.BUSY
    assert b"`org vm stop slow`" in again.stderr
    assert "slow" in owner.vm("jobs").stdout.decode()
    assert owner.vm("stop", "slow").stdout == b"the job `slow` has ended: -15\n"
    assert owner.vm("joblog", "slow").returncode == ExitCode.USAGE


def test_what_a_job_says_does_not_drive_a_terminal(owner: Owner) -> None:
    owner.vm("exec", "--detach", "--", "sh", "-c", r"printf '\033[31mred\033]0;title\007 end\n'")
    with owner.terminal("vm", "joblog", "sh", "-f") as terminal:
        terminal.wait_for("end")
        assert terminal.exit_code() == 0
        assert "\x1b]0;" not in terminal.raw
    assert b"\033]0;title" in owner.vm("joblog", "sh").stdout
    owner.vm("stop", "sh")


def test_what_a_job_says_is_followed_to_its_end(owner: Owner) -> None:
    owner.vm("exec", "--detach", "--", "sh", "-c", "echo one; sleep 1; echo two; exit 3")
    assert owner.vm("joblog", "sh", "-f").stdout == b"one\ntwo\n"
    assert b"ended: 3" in owner.vm("jobs").stdout
    owner.vm("exec", "--detach", "--", "sh", "-c", "echo three")  # takes the place of one that has ended
    assert owner.vm("joblog", "sh", "-f").stdout == b"three\n"
    owner.vm("stop", "sh")


# -- walls inside

# In a network of its own, whose devices are tunnels to itself: what goes out of one has left.
LEAKS = """
import json, socket, subprocess, sys
def sh(command):
    return subprocess.run(["sh", "-ec", command], check=True, capture_output=True, text=True).stdout
def sent():
    (device,) = json.loads(sh("ip -j -s link show leak"))
    return device["stats64"]["tx"]["packets"]
def tcp(host, port):
    before = sent()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.connect_ex((host, port))
        return sent() > before
def packet(family, kind, protocol, address, data):
    with socket.socket(family, kind, protocol) as one:
        try:
            return one.sendto(data, address) > 0
        except PermissionError:
            return False
sh("modprobe -a ipip sit; ip link set lo up")
sh("for last in 1 2; do ip address add 192.0.2.$last/32 dev lo; done")
sh("ip link add leak type ipip local 192.0.2.1 remote 192.0.2.2; ip link set leak up")
sh("ip address add 10.0.2.15/24 dev leak")
sh("ip link add leak6 type sit local 192.0.2.1 remote 192.0.2.2; ip link set leak6 up")
sh("ip address add fd00::1/64 dev leak6 nodad")
sh(sys.argv[1])
echo, echo6 = bytes([8, 0, 0xf7, 0xff, 0, 0, 0, 0]), bytes([128, 0, 0, 0, 0, 0, 0, 0])
with socket.create_server(("127.0.0.1", 7001)) as server:
    own = socket.socket().connect_ex(server.getsockname())
print(json.dumps({
    "model": tcp("10.0.2.2", 11434), "port": tcp("10.0.2.2", 80), "host": tcp("10.0.2.3", 11434),
    "dns": packet(socket.AF_INET, socket.SOCK_DGRAM, 0, ("10.0.2.3", 53), b"?"),
    "ping": packet(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP, ("10.0.2.3", 0), echo),
    "ping6": packet(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6, ("fd00::2", 0), echo6),
    "own": own == 0, "rules": sh("nft list table inet org || true"),
}))
"""
ATTEMPTS = ("model", "port", "host", "dns", "ping", "ping6")


def leaks(owner: Owner, rules: str) -> dict[str, Any]:
    """What gets out of a network in the machine after that command, and whether it reaches itself."""
    told: dict[str, Any] = json.loads(
        said(owner, LEAKS.encode(), "unshare", "-n", "python3", "-", rules, user="root")
    )
    assert told["own"] is True
    return told


def test_without_a_firewall_everything_leaves(owner: Owner) -> None:
    """The control: what is held below is held by the rules."""
    told = leaks(owner, "true")
    assert [name for name in ATTEMPTS if told[name]] == list(ATTEMPTS)


def test_the_machines_own_firewall_lets_nothing_out(owner: Owner) -> None:
    told = leaks(owner, "nft -f /run/org/nftables.conf")
    assert [name for name in ATTEMPTS if told[name]] == []
    assert told["rules"].count("policy drop") == 3
    # And that is what stands in the machine itself.
    assert said(owner, b"", "nft", "list", "ruleset", user="root") == told["rules"]


def test_the_printed_rules_let_out_what_goes_to_the_model_server(owner: Owner) -> None:
    printed = owner.vm("harden", "--print", "--model", "10.0.2.2:11434", "--ssh", "10.0.2.2").stdout
    assert printed.decode() == script(rules("10.0.2.2", 11434, "10.0.2.2"))
    said(owner, printed, "sh", "-c", "cat > rules; cp -a /etc/ufw before", user="root")
    try:
        told = leaks(owner, "sh /root/rules > /root/status")
    finally:
        said(owner, b"", "sh", "-c", "rm -rf /etc/ufw; mv before /etc/ufw", user="root")
    assert [name for name in ATTEMPTS if told[name]] == ["model"]
    status = said(owner, b"", "cat", "status", user="root")
    assert "Default: deny (incoming), deny (outgoing)" in status
    assert "22/tcp                     ALLOW IN    10.0.2.2" in status
