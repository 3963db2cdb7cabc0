import asyncio
import errno
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

from org.errors import SandboxGone
from org.ports import Command
from org.sandbox import bubblewrap
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.cgroup import ROOT
from org.sandbox.limits import Limits
from org.sandbox.process import gone
from sandbox_kit import Heard, alive, token

pytestmark = pytest.mark.sandbox

LIMITS = Limits(processes=40, memory=512 * 1024**2, file_size=1_024_000, tmp=4 * 1024**2, cpu_s=1)


@pytest.fixture
def place(tmp_path: Path) -> Bubblewrap:
    return Bubblewrap(tmp_path, LIMITS)


def sh(script: str, **fields: object) -> Command:
    return Command(["sh", "-c", script], **fields)  # type: ignore[arg-type]


async def test_it_starts(place: Bubblewrap) -> None:
    await place.check()


async def test_only_the_workspace_can_be_written(place: Bubblewrap, tmp_path: Path) -> None:
    script = "pwd; for d in . / /usr /etc /dev /home /root /var; do : > $d/made && echo $d; done 2> /dev/null"
    result = await place.exec(sh(script))
    assert result.head == b"/workspace\n.\n"
    assert os.listdir(tmp_path) == ["made"]


async def test_the_environment_is_empty_but_for_a_few(
    place: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    result = await place.exec(sh("cat /proc/*/environ | tr '\\0' '\\n' | cut -d= -f1 | sort -u"))
    assert set(result.head.split()) == {b"PATH", b"HOME", b"LANG", b"TERM", b"PWD", b"ORG_JOB"}


async def test_exit_codes_and_signals(place: Bubblewrap) -> None:
    assert (await place.exec(sh("exit 3"))).exit_code == 3
    assert (await place.exec(sh("kill -SEGV $$"))).exit_code == -signal.SIGSEGV
    assert (await place.exec(Command(["no-such-program"]))).exit_code == 127


async def test_stdin_and_bytes_pass_through(place: Bubblewrap) -> None:
    data = bytes(range(256)) * 4
    assert (await place.exec(Command(["cat"], stdin=data))).head == data
    assert (await place.exec(Command(["true"], stdin=b"x" * 3_000_000))).exit_code == 0


async def test_endless_output_is_counted(place: Bubblewrap) -> None:
    result = await place.exec(Command(["head", "-c", "50000000", "/dev/zero"], output_limit=1_000))
    assert (len(result.head), len(result.tail), result.left_out) == (500, 500, 50_000_000 - 1_000)


async def test_scratch_hides_the_workspace(place: Bubblewrap, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    result = await place.exec(sh("ls; echo x > made; ls", scratch=True))
    assert result.head == b"made\n"
    assert os.listdir(tmp_path) == ["kept"]


async def test_a_daemon_does_not_outlive_its_command(place: Bubblewrap) -> None:
    word = token()
    daemon = f"echo up; echo > started; sleep 60; : {word}"
    result = await place.exec(sh(f"mkfifo started; setsid sh -c '{daemon}' & read _ < started"))
    assert (result.head, result.timed_out) == (b"up\n", False)
    assert not alive(word)


@pytest.mark.parametrize("bomb", ["b() { b | b & }; b; sleep 60", "while :; do setsid sleep 60 & done"])
async def test_a_fork_bomb_is_contained_and_ended(place: Bubblewrap, bomb: str) -> None:
    word = token()
    result = await place.exec(Command(["bash", "-c", bomb, word], timeout_s=1.0))
    assert result.timed_out or result.exit_code
    assert not alive(word)


async def test_the_number_of_processes_is_limited(place: Bubblewrap) -> None:
    script = (
        "import os\nfor n in range(100):\n    if not os.fork(): os.read(0, 1) or __import__('signal').pause()"
    )
    result = await place.exec(Command(["python3", "-S", "-c", script]))
    assert b"BlockingIOError" in result.head
    assert result.exit_code == 1


async def test_memory_of_a_process_is_limited(place: Bubblewrap) -> None:
    result = await place.exec(Command(["python3", "-S", "-c", "bytearray(600 * 1024**2)"]))
    assert b"MemoryError" in result.head


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
async def test_temporary_folders_are_limited(place: Bubblewrap, folder: str) -> None:
    script = f"for i in 1 2 3 4 5 6; do head -c 1000000 /dev/zero > {folder}/$i || exit 9; done"
    assert (await place.exec(sh(script))).exit_code == 9


async def test_file_size_is_limited(place: Bubblewrap) -> None:
    assert (await place.exec(sh("head -c 2000000 /dev/zero > big"))).exit_code != 0
    assert len(await place.read_file("big", 10_000_000)) == LIMITS.file_size


async def test_cpu_time_is_limited(place: Bubblewrap) -> None:
    result = await place.exec(sh("while :; do :; done", timeout_s=30))
    assert (result.exit_code, result.timed_out) == (-signal.SIGKILL, False)


async def test_the_timeout_ends_everything(place: Bubblewrap) -> None:
    word = token()
    result = await place.exec(sh(f"setsid sleep 60 & echo up; sleep 60; : {word}", timeout_s=2.0))
    assert (result.exit_code, result.timed_out, result.head) == (-signal.SIGKILL, True, b"up\n")
    assert not alive(word)


async def test_cancelling_ends_everything(place: Bubblewrap) -> None:
    word, heard = token(), Heard()
    task = asyncio.create_task(place.exec(sh(f"setsid sleep 60 & echo up; sleep 60; : {word}"), heard))
    await heard.any.wait()
    pids = alive(word)
    assert len(pids) >= 3  # bubblewrap outside, the first process inside, the shell
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(word)


async def test_cancelling_at_any_instant_leaves_nothing(place: Bubblewrap) -> None:
    before = len(os.listdir("/proc/self/fd"))
    chance = random.Random(6)
    for _ in range(40):
        word = token()
        task = asyncio.create_task(place.exec(sh(f"sleep 60; : {word}")))
        await asyncio.sleep(chance.uniform(0, 0.02))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(word)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_killed_bubblewrap_is_a_sandbox_gone(place: Bubblewrap) -> None:
    word, heard = token(), Heard()
    task = asyncio.create_task(place.exec(sh(f"echo up; sleep 60; : {word}"), heard))
    await heard.any.wait()
    os.kill(min(alive(word)), signal.SIGKILL)
    with pytest.raises(SandboxGone, match="ended from outside"):
        await task
    assert not alive(word)


@pytest.mark.parametrize("code", [1, 2, 125, 126, 127, 255])
async def test_no_exit_code_and_no_words_of_a_command_fake_that(place: Bubblewrap, code: int) -> None:
    result = await place.exec(sh(f"echo 'bwrap: setting up uid map: Permission denied' >&2; exit {code}"))
    assert result.exit_code == code


async def test_the_command_has_no_descriptor_but_its_three(place: Bubblewrap) -> None:
    result = await place.exec(Command(["ls", "/proc/self/fd"]))
    assert result.head.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads


async def test_a_workspace_that_is_gone(place: Bubblewrap, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    with pytest.raises(SandboxGone, match=f"{tmp_path}` is gone"):
        await place.exec(sh("true"))


async def test_bubblewrap_is_not_installed(place: Bubblewrap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "_OUTER", {"PATH": "/nowhere"})
    with pytest.raises(SandboxGone, match="not installed") as caught:
        await place.exec(sh("true"))
    assert caught.value.hint == "`apt-get install bubblewrap`"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "bwrap: No permissions to create new namespace",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        ("bwrap: Unknown option --disable-userns", "bubblewrap 0.8 or newer"),
    ],
)
async def test_bubblewrap_that_cannot_set_up(
    place: Bubblewrap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, hint: str
) -> None:
    bin_folder, proc = tmp_path / "bin", tmp_path / "sys"
    bin_folder.mkdir()
    (bin_folder / "bwrap").write_text(f"#!/bin/sh\necho '{line}' >&2\nexit 1\n")
    (bin_folder / "bwrap").chmod(0o755)
    (proc / "kernel").mkdir(parents=True)
    (proc / "kernel/unprivileged_userns_clone").write_text("0\n")
    monkeypatch.setattr(bubblewrap, "_OUTER", {"PATH": f"{bin_folder}:/usr/bin:/bin"})
    monkeypatch.setattr(bubblewrap, "_PROC_SYS", proc)
    with pytest.raises(SandboxGone, match=line.removeprefix("bwrap: ")) as caught:
        await place.check()
    assert hint in caught.value.hint


KEYS = """
import ctypes
calls = ctypes.CDLL(None, use_errno=True)
for number in {"x86_64": (248, 249, 250, 425, 250 + 0x40000000), "aarch64": (217, 218, 219, 425)}[machine]:
    print(calls.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno())
"""


async def test_keyrings_and_rings_of_the_kernel_are_not_there(place: Bubblewrap) -> None:
    code = f"machine = {os.uname().machine!r}{KEYS}"
    result = await place.exec(Command(["python3", "-S", "-c", code]))
    assert set(result.head.splitlines()) == {f"-1 {errno.ENOSYS}".encode()}


async def test_commands_run_beside_one_another(place: Bubblewrap) -> None:
    results = await asyncio.gather(*(place.exec(sh(f"sleep 0.1; echo {n}")) for n in range(6)))
    assert [int(result.head) for result in results] == list(range(6))


async def test_files(place: Bubblewrap) -> None:
    await place.write_file("a/b.txt", b"one\n")
    assert (await place.exec(sh("cat a/b.txt; echo two >> a/b.txt"))).head == b"one\n"
    assert await place.read_file("a/b.txt") == b"one\ntwo\n"


OWNER = """
import asyncio, sys
from pathlib import Path
from org.ports import Command
from org.sandbox.bubblewrap import Bubblewrap
command = Command(["sh", "-c", f"echo up; sleep 60; : {sys.argv[2]}"])
asyncio.run(Bubblewrap(Path(sys.argv[1])).exec(command, lambda _: print("up", flush=True)))
"""


async def test_it_dies_with_its_owner(tmp_path: Path) -> None:
    word, before = token(), set(ROOT.rglob("org-*"))
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), word, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"up\n"
    left = [os.pidfd_open(pid) for pid in alive(word) if pid != owner.pid]
    assert len(left) >= 3
    owner.kill()
    await owner.wait()
    for pidfd in left:
        await asyncio.wait_for(gone(pidfd), 10)
        os.close(pidfd)
    for folder in set(ROOT.rglob("org-*")) - before:
        folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make the cgroup that adds them up")
async def test_memory_of_all_processes_together_is_limited(place: Bubblewrap) -> None:
    eater = "import time; kept = bytearray(300 * 1024**2); print('kept', flush=True)"
    result = await place.exec(sh(f'for i in 1 2 3; do python3 -S -c "{eater}; time.sleep(1)" & done; wait'))
    assert 0 < result.head.count(b"kept") < 3
