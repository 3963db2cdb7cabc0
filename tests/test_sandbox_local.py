import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from org.errors import EnvironmentProblem, SandboxGone, UsageError
from org.ports import Command
from org.sandbox import local
from org.sandbox.limits import Limits
from org.sandbox.local import Local
from sandbox_kit import Heard, alive, token


def test_refused_outside_of_a_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "GUEST_MARKER", tmp_path / "marker")
    with pytest.raises(EnvironmentProblem, match="without a sandbox"):
        Local(tmp_path)
    Local(tmp_path, unsafe=True)
    (tmp_path / "marker").touch()
    Local(tmp_path)


@pytest.fixture
def place(tmp_path: Path) -> Local:
    return Local(tmp_path, Limits(memory=1024**3, file_size=1_024_000), unsafe=True)


async def test_runs_in_the_workspace(place: Local, tmp_path: Path) -> None:
    result = await place.exec(Command(["sh", "-c", "pwd; echo x > made; exit 4"]))
    assert (result.exit_code, result.head) == (4, f"{tmp_path}\n".encode())
    assert (tmp_path / "made").read_text() == "x\n"


async def test_the_environment_is_small(place: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    result = await place.exec(Command(["env"]))
    names = {line.partition(b"=")[0] for line in result.head.splitlines()}
    assert names <= {b"PATH", b"HOME", b"LANG", b"TERM", b"ORG_JOB", b"PWD", b"SHLVL", b"_", b"OLDPWD"}


async def test_scratch_is_another_folder_and_goes(place: Local, tmp_path: Path) -> None:
    result = await place.exec(Command(["sh", "-c", "echo x > made; pwd"], scratch=True))
    folder = Path(result.head.decode().strip())
    assert folder != tmp_path
    assert folder.name not in os.listdir(folder.parent)
    assert os.listdir(tmp_path) == []


async def test_a_program_that_is_not_there(place: Local) -> None:
    result = await place.exec(Command(["no-such-program"]))
    assert result.exit_code == 127
    assert b"no-such-program" in result.head


async def test_arguments_that_are_too_long(place: Local) -> None:
    result = await place.exec(Command(["echo", "x" * 3_000_000]))
    assert (result.exit_code, result.head) == (126, b"echo: Argument list too long\n")


async def test_the_workspace_is_gone(place: Local, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    with pytest.raises(SandboxGone, match=str(tmp_path)):
        await place.exec(Command(["true"]))
    with pytest.raises(SandboxGone, match=str(tmp_path)):
        await place.read_file("x")


async def test_memory_and_file_size_are_limited(place: Local) -> None:
    eater = await place.exec(Command(["python3", "-c", "bytearray(2 * 1024**3)"]))
    assert b"MemoryError" in eater.head
    writer = await place.exec(Command(["sh", "-c", "head -c 2000000 /dev/zero > big"]))
    assert writer.exit_code != 0
    assert len(await place.read_file("big", 10_000_000)) == 1_024_000


@pytest.mark.parametrize("ending", ["", "sleep 60"])
async def test_a_daemon_that_holds_the_output_is_ended(place: Local, ending: str) -> None:
    word = token()
    daemon = f"echo up; echo > started; sleep 60; : {word}"
    script = f"mkfifo started; setsid sh -c '{daemon}' & read _ < started; {ending}"
    result = await place.exec(Command(["sh", "-c", script], timeout_s=10.0 if not ending else 1.5))
    assert result.timed_out == bool(ending)
    assert result.head == b"up\n"
    assert not alive(word)


async def test_a_tree_of_daemons_is_ended_by_a_cancellation(place: Local) -> None:
    word, heard = token(), Heard()
    script = f"for i in 1 2 3; do setsid setsid sh -c '(sleep 60; : {word}) & sleep 60; : {word}' & done; "
    task = asyncio.create_task(place.exec(Command(["sh", "-c", script + "echo up; sleep 60"]), heard))
    await heard.any.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(word)


async def test_an_exit_by_signal(place: Local) -> None:
    assert (await place.exec(Command(["sh", "-c", "kill -TERM $$"]))).exit_code == -signal.SIGTERM


async def test_an_observer_s_own_error_is_not_taken_for_a_failed_start(place: Local) -> None:
    def fail(data: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await place.exec(Command(["echo", "x"]), fail)


async def test_files(place: Local, tmp_path: Path) -> None:
    await place.write_file("a/b.txt", b"one")
    await place.write_file("a/b.txt", b" two", append=True)
    assert await place.read_file("a/b.txt") == b"one two"
    assert await place.read_file("a/b.txt", 3) == b"one"


async def test_words_that_no_program_can_be_given(place: Local) -> None:
    with pytest.raises(UsageError, match="null byte"):
        await place.exec(Command(["echo", "a\0b"]))


async def test_a_relative_workspace_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    place = Local(Path(tmp_path.name), unsafe=True)
    monkeypatch.chdir("/")
    assert (await place.exec(Command(["pwd"]))).head == f"{tmp_path}\n".encode()
