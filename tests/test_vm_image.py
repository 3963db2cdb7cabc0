"""The image, from inside a guest of it."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from guest import CACHE, Guest, guest, image
from org.errors import EnvironmentProblem
from org.sandbox.vm import qmp
from org.sandbox.vm.image import Image, Progress, import_image
from org.sandbox.vm.qemu import Memory

pytestmark = pytest.mark.vm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> Image:
    return await image()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(made: Image, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guest]:
    """One guest for what only looks."""
    async with guest(tmp_path_factory.mktemp("machine"), made) as one:
        yield one


looks = pytest.mark.asyncio(loop_scope="module")


@looks
async def test_the_agent_runs_as_root_and_is_the_last_to_be_killed(running: Guest) -> None:
    assert await running.ask("[os.getuid(), read('/proc/self/oom_score_adj'), os.getppid()]") == [
        0,
        "-1000\n",
        1,
    ]


@looks
async def test_the_guest_says_what_it_is(running: Guest) -> None:
    assert await running.ask("os.path.exists('/run/org-guest')") is True
    assert await running.ask("os.uname().nodename") == "org"
    assert await running.ask("sorted(os.listdir('/dev/virtio-ports'))") == ["org.ctl", "org.net"]


@looks
@pytest.mark.parametrize(
    "command",
    [
        "python3 -c 'import ssl, sqlite3, venv'",
        "git --version",
        "tmux -V",
        "curl --version",
        "nft --version",
        "ufw version",
        "ip -V",
        "ps --version",
        "modinfo -n nf_tables",
        "tar --version",
        "bash -c true",
    ],
)
async def test_every_promised_program_runs(running: Guest, command: str) -> None:
    assert (
        await running.ask(f"subprocess.run({command!r}, shell=True, capture_output=True).returncode")
    ) == 0


@looks
async def test_every_package_is_configured(running: Guest, made: Image) -> None:
    assert await running.ask("run('dpkg --audit')") == ""
    states = await running.ask("run(\"dpkg-query -W -f '${Status} ${Package} ${Version}\\n'\")")
    found = dict(line.removeprefix("install ok installed ").split() for line in states.splitlines())
    assert {"git", "python3", "ufw"} <= found.keys()
    assert found.items() <= dict(made.packages).items()


@looks
async def test_three_accounts_have_homes_of_their_own(running: Guest) -> None:
    assert await running.ask("run('id -u org; id -u cand; id -u job').split()") == ["1000", "1001", "1002"]
    modes = await running.ask(
        "[oct(os.stat('/home/' + name).st_mode & 0o777) for name in ('org', 'cand', 'job')]"
    )
    assert modes == ["0o700"] * 3
    assert "denied" in await running.ask("run('setpriv --reuid 1002 --clear-groups ls /home/org')")


@looks
async def test_there_is_no_way_out_and_no_waiting_for_one(running: Guest) -> None:
    assert await running.ask("os.listdir('/sys/class/net')") == ["lo"]
    assert await running.ask("read('/etc/resolv.conf')") == ""
    assert "hosts: files\n" in await running.ask("read('/etc/nsswitch.conf')")
    rules = await running.ask("run('nft list ruleset')")
    assert rules.count("policy drop") == 3


@looks
async def test_the_loopback_is_open(running: Guest) -> None:
    expression = "(lambda s: __import__('socket').create_connection(s.getsockname()).getpeername()[0])"
    assert (
        await running.ask(f"{expression}(__import__('socket').create_server(('127.0.0.1', 0)))")
        == "127.0.0.1"
    )


@looks
async def test_memory_and_processes_can_be_limited(running: Guest) -> None:
    controllers = await running.ask("read('/sys/fs/cgroup/cgroup.subtree_control').split()")
    assert {"cpu", "memory", "pids"} <= set(controllers)


@looks
async def test_the_certificates_are_there(running: Guest) -> None:
    expression = "len(__import__('ssl').create_default_context().get_ca_certs())"
    assert await running.ask(expression) > 100
    assert await running.ask("read('/etc/ssl/certs/ca-certificates.crt').count('BEGIN')") > 100


@looks
async def test_the_standard_library_is_compiled(running: Guest) -> None:
    assert await running.ask(
        "__import__('json').__cached__ and os.path.exists(__import__('json').__cached__)"
    )


@looks
async def test_orphans_are_buried(running: Guest) -> None:
    await running.ask("run('for i in 1 2 3; do (true & exec true) & done; wait')")
    # They are taken in soon, in the first process's own time: asked until it is so, or the test's end.
    assert await running.ask(
        "next(states for states in iter(lambda: run('ps -eo stat='), '') if 'Z' not in states)"
    )


async def test_an_agents_end_is_the_machines_and_loses_nothing(made: Image, tmp_path: Path) -> None:
    async with guest(tmp_path, made) as one:
        await one.ask("open('/srv/org/kept', 'w').write('text')")
        await one.tell("end")
        assert await one.process.wait() == 0
        assert "the agent ended with status 0" in one.console()
    async with guest(tmp_path, made) as again:
        assert await again.ask("read('/srv/org/kept')") == "text"


async def test_a_root_without_a_firewall_starts_and_says_so(made: Image, tmp_path: Path) -> None:
    async with guest(tmp_path, made) as one:
        await one.ask("os.unlink('/usr/sbin/nft')")
        await one.tell("end")
        await one.process.wait()
    async with guest(tmp_path, made) as again:
        assert await again.ask("os.listdir('/sys/class/net')") == ["lo"]
        await again.tell("end")
        await again.process.wait()
        assert "the root has no nftables" in again.console()


async def test_a_panic_ends_qemu_and_is_on_the_console(made: Image, tmp_path: Path) -> None:
    async with guest(tmp_path, made) as one:
        await one.tell("open('/proc/sysrq-trigger', 'w').write('c')")
        await one.process.wait()
        assert "Kernel panic" in one.console()


async def test_a_guest_goes_on_from_a_snapshot(made: Image, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    ram = tmp_path / "ram"
    async with guest(first, made, memory=Memory(str(ram), share=True)) as one:
        await one.ask("globals().update(kept='in memory')")
        async with qmp.connect(one.folder.qmp) as control:
            await control.stop()
            await control.save(tmp_path / "state")
            await control.quit()
        await one.process.wait()
    (second / "overlay.qcow2").write_bytes((first / "overlay.qcow2").read_bytes())
    before = ram.stat().st_mtime_ns
    async with guest(second, made, memory=Memory(str(ram), share=False), incoming=True) as other:
        async with qmp.connect(other.folder.qmp) as control:
            await control.load(tmp_path / "state")
            await control.cont()
        assert await other.ask("kept") == "in memory"
    assert ram.stat().st_mtime_ns == before


async def test_a_root_of_ones_own_becomes_an_image(made: Image, tmp_path: Path) -> None:
    said: list[str] = []
    own = await import_image(
        tmp_path, made.folder.root, base=made, on_progress=lambda progress: said.append(progress.what)
    )
    assert said == ["reading the file", "configure"]
    assert own.key != made.key
    machine = tmp_path / "machine"
    machine.mkdir()
    async with guest(machine, own) as one:
        assert await one.ask("os.path.exists('/home/job')") is True


async def test_a_root_that_lacks_python_is_refused_by_name(made: Image, tmp_path: Path) -> None:
    path = tmp_path / "root.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in (("bin/sh", made.folder.busybox.read_bytes()), ("etc/hosts", b"")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(EnvironmentProblem, match="lacks /usr/bin/python3"):
        await import_image(tmp_path, path, base=made, on_progress=lambda progress: None)


async def test_an_interrupted_import_leaves_no_guest_behind(made: Image, tmp_path: Path) -> None:
    started = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.what == "configure":
            started.set()

    task = asyncio.create_task(import_image(tmp_path, made.folder.root, base=made, on_progress=note))
    await started.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    mine = str(tmp_path).encode()
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            assert mine not in words.read_bytes()


async def test_an_image_is_found_without_asking_anybody(made: Image) -> None:
    assert (await image()) == made
    assert made.folder.path.parent == CACHE / "images"
