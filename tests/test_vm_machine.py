"""A machine's life, as a person and as a room meet it: `org vm`, and the place where commands run."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from cli_kit import models_server
from engine import Engine
from guest import image
from machine_kit import MEMORY, UP_S, Owner, processes_of
from org.compose.places import choose_place
from org.errors import EnvironmentProblem, ExitCode, SandboxGone, UsageError
from org.ports import Command
from org.sandbox.vm.place import VirtualMachine
from waiting import until

pytestmark = pytest.mark.vm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> None:
    await image()


@pytest.fixture(scope="module")
def owner(made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """With a machine that is up, for tests that leave it so."""
    with models_server("only") as base:
        one = Owner(tmp_path_factory.mktemp("vm"), base)
        one.up()
        yield one
        assert one.vm("rm", "-y").returncode == 0
    assert processes_of(one.machine) == []


@pytest.fixture
def spare(made: None, tmp_path: Path) -> Iterator[Owner]:
    """With a machine that is up, to be broken."""
    one = Owner(tmp_path)
    one.up()
    yield one
    one.vm("down", "--hard")
    assert processes_of(one.machine) == []


@pytest_asyncio.fixture
async def place(owner: Owner) -> AsyncIterator[VirtualMachine]:
    yield VirtualMachine(owner.machine, "tests", memory=MEMORY)


async def said(place: VirtualMachine, script: str, **more: float) -> tuple[int, str]:
    result = await place.exec(Command(["sh", "-c", script], timeout_s=more.get("timeout_s", 60.0)))
    return result.exit_code, (result.head + result.tail).decode()


# -- as a person meets it


def test_its_status_says_what_it_reaches(owner: Owner) -> None:
    status = json.loads(owner.vm("status", "--json").stdout)
    assert (status["version"], status["state"], status["memory_mib"]) == (1, "up", 512)
    assert status["missing"] == []
    assert status["network"]["device"] == "none"
    assert status["network"]["model_server"] == owner.env["ORG_BASE"]
    assert "/v1/chat/completions" in status["network"]["paths"]
    assert set(status["network"]["inbound"]) == {"7001", "7002"}
    text = owner.vm("status").stdout.decode()
    assert "default: up" in text
    assert owner.env["ORG_BASE"] in text


def test_a_folder_and_a_socket_for_nobody_else(owner: Owner) -> None:
    assert owner.machine.folder.path.stat().st_mode & 0o777 == 0o700
    assert owner.machine.folder.socket.stat().st_mode & 0o777 == 0o600


def test_a_commands_streams_and_exit_code_are_its_own(owner: Owner) -> None:
    done = owner.vm("exec", "--", "sh", "-c", "id -un; cat; echo apart >&2; exit 3", stdin=b"given\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"job\ngiven\n", b"apart\n")


def test_any_bytes_pass_through(owner: Owner) -> None:
    data = os.urandom(1_000_000)
    assert owner.vm("exec", "--", "cat", stdin=data).stdout == data


def test_a_signal_is_told_as_a_shell_tells_it(owner: Owner) -> None:
    assert owner.vm("exec", "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_a_shell_is_a_terminal_there(owner: Owner) -> None:
    with owner.terminal("vm", "shell") as terminal:
        terminal.wait_for("job@org")
        terminal.type("tty; echo in $((20+1))\n")
        terminal.wait_for("/dev/pts/")
        terminal.wait_for("in 21")
        terminal.type("exit 4\n")
        assert terminal.exit_code() == 4


def test_a_second_up_finds_it_up(owner: Owner) -> None:
    before = owner.machine.folder.lock.read_text()
    assert b"is up" in owner.vm("up").stdout
    assert owner.machine.folder.lock.read_text() == before


@pytest.mark.parametrize(
    ("words", "code"),
    [(("exec",), ExitCode.USAGE), (("rm",), ExitCode.DENIED), (("shell",), ExitCode.USAGE)],
)
def test_what_cannot_be_done_is_refused(owner: Owner, words: tuple[str, ...], code: ExitCode) -> None:
    assert owner.vm(*words).returncode == code


# -- as a room meets it


async def test_a_room_takes_the_machine_when_one_is_up(owner: Owner, tmp_path: Path) -> None:
    for choice in ("auto", "vm"):
        settings = owner.settings(sandbox__place=choice)
        sandbox, words = await choose_place(settings, tmp_path, unsafe_local=False, in_machine="room-1")
        assert words.startswith("in the machine `default`")
        assert sandbox is not None
        result = await sandbox.exec(Command(["sh", "-c", "pwd; test -e /run/org-guest && echo guest"]))
        assert result.head == b"/srv/org/room-1\nguest\n"


async def test_a_folder_of_ones_own_is_not_in_it(owner: Owner, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not in the machine"):
        await choose_place(owner.settings(), tmp_path, unsafe_local=False, in_machine="")


async def test_without_a_machine_what_requires_one_is_refused(tmp_path: Path) -> None:
    lonely = Owner(tmp_path)
    lonely.user_settings('[sandbox]\nrequire = "vm"')
    for choice, unsafe in (("auto", False), ("vm", False), ("bubblewrap", False), ("auto", True)):
        with pytest.raises(EnvironmentProblem, match="machine"):
            await choose_place(
                lonely.settings(sandbox__place=choice), tmp_path, unsafe_local=unsafe, in_machine="room-1"
            )


@pytest.mark.sandbox
async def test_without_a_machine_the_weaker_place_is_named(tmp_path: Path) -> None:
    _, words = await choose_place(Owner(tmp_path).settings(), tmp_path, unsafe_local=False, in_machine="r")
    assert words.startswith("in bubblewrap")
    assert "no machine is up" in words


@pytest.mark.engine
def test_the_tools_of_a_room_run_in_it(owner: Owner, engine: Engine) -> None:
    owner.roster({"coder": ("agent", "tool")})
    owner.env |= {"ORG_MODEL": engine.model}
    assert (
        owner.vm("exec", "--room", "told", "--", "sh", "-c", "mkdir -p old/er; echo >.left").returncode == 0
    )
    done = owner.run("run", "--base", engine.base_url, "--room", "told", "go on")
    assert done.returncode == 0, done.stderr
    assert "commands run in the machine" in done.stderr
    assert owner.vm("exec", "--room", "told", "--", "ls", "-A").stdout == b""


async def test_twenty_at_a_time(place: VirtualMachine) -> None:
    results = await asyncio.gather(*(said(place, f"sleep 0.1; echo {number}") for number in range(20)))
    assert results == [(0, f"{number}\n") for number in range(20)]


async def test_output_comes_while_a_command_runs(place: VirtualMachine) -> None:
    first = asyncio.Event()
    running = asyncio.create_task(
        place.exec(
            Command(["sh", "-c", "echo first; until test -e go; do sleep 0.05; done; echo last"]),
            lambda data: first.set(),
        )
    )
    async with asyncio.timeout(30):
        await first.wait()
        await place.write_file("go", b"")
        assert (await running).head == b"first\nlast\n"


async def test_too_long_is_ended_with_its_family(place: VirtualMachine) -> None:
    result = await place.exec(Command(["sh", "-c", "setsid sleep 4711 & sleep 4711"], timeout_s=0.5))
    assert result.timed_out
    assert (await said(place, "pgrep -x sleep -a | grep 4711"))[0] == 1


async def test_cancelled_is_ended_with_its_family(place: VirtualMachine) -> None:
    begun = asyncio.Event()
    running = asyncio.create_task(
        place.exec(Command(["sh", "-c", "setsid sleep 4712 & echo; sleep 4712"]), lambda data: begun.set())
    )
    async with asyncio.timeout(30):
        await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await said(place, "pgrep -x sleep -a | grep 4712"))[0] == 1


async def test_a_client_that_is_killed_leaves_no_command(owner: Owner, place: VirtualMachine) -> None:
    with owner.start("vm", "exec", "--", "sh", "-c", "echo on; exec sleep 4713") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "on\n"
        client.kill()
    gone = "while pgrep -x sleep -a | grep -q 4713; do sleep 0.05; done"
    assert await said(place, gone, timeout_s=30) == (0, "")


async def test_long_output_keeps_its_two_ends(place: VirtualMachine) -> None:
    result = await place.exec(Command(["sh", "-c", "seq 1000000"], output_limit=2000))
    assert result.head.startswith(b"1\n2\n")
    assert result.tail.endswith(b"\n999999\n1000000\n")
    assert len(result.head) + len(result.tail) == 2000
    assert result.left_out > 6_000_000


async def test_files_pass_both_ways_and_none_from_outside(place: VirtualMachine) -> None:
    data = os.urandom(700_000)
    await place.write_file("deep/in/it.bin", data)
    assert await place.read_file("deep/in/it.bin") == data
    await said(place, "ln -s /etc/passwd out")
    for path in ("../escape", "/etc/passwd", "out", "absent"):
        with pytest.raises(UsageError):
            await place.read_file(path)


async def test_the_model_server_is_reached_and_no_more_of_it(owner: Owner, place: VirtualMachine) -> None:
    code, answer = await said(place, "curl -sS http://127.0.0.1:11434/v1/models")
    assert (code, json.loads(answer)) == (0, {"data": [{"id": "only"}]})
    answer = (await said(place, "curl -s -d '{}' http://127.0.0.1:11434/api/pull"))[1]
    assert json.loads(answer)["error"]["type"] == "refused"
    counts = json.loads(owner.vm("status", "--json").stdout)["network"]["counts"]
    assert (counts["requests"] >= 1, counts["refused"] >= 1) == (True, True)


async def test_what_eats_everything_is_ended_alone(place: VirtualMachine) -> None:
    eater = "b = bytearray()\nwhile True: b += bytes(1 << 24)"
    ate, _ = await asyncio.gather(
        place.exec(Command(["python3", "-c", eater])),
        place.exec(Command(["sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 30"], timeout_s=2)),
    )
    assert ate.exit_code == -signal.SIGKILL
    assert await said(place, "echo still here") == (0, "still here\n")


# -- how it ends


async def test_its_disk_outlives_it_and_a_reset_empties_it(spare: Owner) -> None:
    place = VirtualMachine(spare.machine, "kept", memory=MEMORY)
    await place.write_file("a", b"kept")
    assert spare.vm("down").returncode == 0
    assert processes_of(spare.machine) == []
    assert json.loads(spare.vm("status", "--json").stdout)["state"] == "down"
    with pytest.raises(SandboxGone, match="not up"):
        await said(place, "true")
    both = [spare.start("vm", "up") for _ in range(2)]
    assert [len(one.communicate(timeout=UP_S)) and one.returncode for one in both] == [0, 0]
    assert await place.read_file("a") == b"kept"
    assert spare.vm("reset", "-y").returncode == 0
    with pytest.raises(UsageError):
        await place.read_file("a")


async def test_no_qemu_outlives_its_supervisor(spare: Owner) -> None:
    pid = (await spare.machine.status()).pid
    assert pid is not None
    assert processes_of(spare.machine)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not processes_of(spare.machine))
    await is_down(spare)
    spare.up()
    assert spare.vm("exec", "--", "true").returncode == 0


async def test_none_lives_on_without_its_folder(spare: Owner) -> None:
    shutil.rmtree(spare.machine.folder.path)
    await until(lambda: not processes_of(spare.machine))
    assert (await spare.machine.status()).state == "absent"


async def is_down(owner: Owner) -> None:
    """Wait until the supervisor, which outlives its QEMU by a moment, has let go."""
    async with asyncio.timeout(60):
        while (await owner.machine.status()).state != "down":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("way", ["killed", "frozen", "panic"])
async def test_a_command_in_a_machine_that_dies_is_told_so(spare: Owner, way: str) -> None:
    place = VirtualMachine(spare.machine, "work", memory=MEMORY)
    begun = asyncio.Event()
    running = asyncio.create_task(
        place.exec(Command(["sh", "-c", "echo; sleep 100"]), lambda data: begun.set())
    )
    async with asyncio.timeout(60):
        await begun.wait()
        if way == "panic":
            spare.vm("exec", "--root", "--", "sh", "-c", "echo c > /proc/sysrq-trigger")
        else:
            for pid in processes_of(spare.machine):
                with suppress(ProcessLookupError):  # it ended with the one around it
                    os.kill(pid, signal.SIGKILL if way == "killed" else signal.SIGSTOP)
        with pytest.raises(SandboxGone, match="whether `sh` was done is unknown"):
            await running
    await until(lambda: not processes_of(spare.machine))
    await is_down(spare)
    assert b"ended: the machine" in spare.vm("logs").stdout
    if way == "panic":
        assert b"Kernel panic" in spare.vm("logs", "--console").stdout
