"""Journals of rooms: durable, whole, one writer, any readers, nothing overwritten."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from org.errors import Busy, JournalCorrupt, JournalError, JournalTooNew, UsageError
from org.events import Committed, Delta, Invited, Joined, Left, Posted, Stopped, Undone
from org.journal import RoomJournal, holder, list_rooms, read_events, remove_room, room_folder
from org.journal.files import FORMAT, reading
from org.messages import EVERYONE, Audience, Message


def posted(id: int, content: str = "hello") -> Posted:
    return Posted(Message(id, "ada", "person", EVERYONE, content, 1_700_000_000.0))


async def written(folder: Path, *events: Committed) -> Path:
    """A closed journal with these events; answers with its file."""
    async with RoomJournal.open(folder) as journal:
        await journal.append(events)
    return journal.path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


@contextmanager
def process(code: str, *args: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs `code`, with pipes; killed in the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


# -- writing and reading


async def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    events: list[Committed] = [
        Joined("ada", "person"),
        posted(1),
        Invited("coder", 1, (1,)),
        Stopped("quiet"),
    ]
    before = time.time()
    async with RoomJournal.open(tmp_path / "room") as journal:
        assert (journal.read(), journal.last) == ([], 0)
        await journal.append(events[:1])
        await journal.append([])
        await journal.append(events[1:])
        assert journal.last == 4
        recorded = journal.read()
    assert [(seq, event) for seq, _, event in recorded] == list(enumerate(events, 1))
    assert all(before <= at <= time.time() for _, at, _ in recorded)
    assert read_events(tmp_path / "room") == recorded
    assert read_events(tmp_path / "room", after=3) == recorded[3:]


async def test_a_room_goes_on_where_it_ended(tmp_path: Path) -> None:
    await written(tmp_path / "room", posted(1), posted(2))
    async with RoomJournal.open(tmp_path / "room") as journal:
        assert journal.last == 2
        await journal.append([posted(3)])
    assert [(seq, event) for seq, _, event in read_events(tmp_path / "room")] == [
        (1, posted(1)),
        (2, posted(2)),
        (3, posted(3)),
    ]


async def test_any_text_of_a_model_survives(tmp_path: Path) -> None:
    events = [
        posted(1, "\0 \ud83d lone \ude00\ud83d"),
        posted(2, "\ud83d\ude00 halves"),
        posted(3, "\u2028 é 😀"),
    ]
    path = await written(tmp_path / "room", *events)
    assert [entry.event for entry in read_events(tmp_path / "room")] == events
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT typeof(data) FROM events").fetchall() == [("text",)] * 3


async def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "rooms" / "room") as journal:
        await journal.append([posted(1)])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in journal.path.parent.iterdir()}
        assert modes.keys() == {"journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "lock"}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        await journal.append([posted(1)])
        assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_many_append_at_once_and_each_stays_together(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        async with asyncio.TaskGroup() as group:
            for number in range(0, 60, 3):
                group.create_task(journal.append([posted(number + offset) for offset in range(3)]))
        assert [entry.event for entry in journal.read()] == [posted(number) for number in range(60)]


async def test_a_cancelled_append_is_written_before_the_next(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        for number in range(1, 40, 2):
            task = asyncio.create_task(journal.append([posted(number), posted(number + 1)]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await journal.append([posted(41)])
        assert [entry.event for entry in journal.read()] == [posted(number) for number in range(1, 42)]


async def test_closing_waits_for_what_is_being_written(tmp_path: Path) -> None:
    journal = RoomJournal.open(tmp_path / "room")
    append = asyncio.create_task(journal.append([posted(1)]))
    await asyncio.sleep(0)
    await journal.close()
    await append
    await journal.close()
    assert [entry.event for entry in read_events(tmp_path / "room")] == [posted(1)]


async def test_what_is_no_committed_event_is_a_bug(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        with pytest.raises(KeyError):
            await journal.append([posted(1), Delta("x")])  # type: ignore[list-item]
        await journal.append([posted(1)])
        assert [entry.seq for entry in journal.read()] == [1]


# -- one writer


async def test_the_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert holder(folder) == ""
    async with RoomJournal.open(folder, url="http://127.0.0.1:7001"):
        with pytest.raises(Busy) as caught:
            RoomJournal.open(folder)
        who = f"pid {os.getpid()}, http://127.0.0.1:7001"
        assert caught.value.message == f"room `demo` is open elsewhere: {who}"
        assert caught.value.hint == "join it at http://127.0.0.1:7001"
        assert holder(folder) == who
    assert holder(folder) == ""
    async with RoomJournal.open(folder):
        with pytest.raises(Busy) as caught:
            RoomJournal.open(folder)
        assert caught.value.message == f"room `demo` is open elsewhere: pid {os.getpid()}"
        assert caught.value.hint == "leave it there, then `org chat --resume demo`"


HOLD = """
import sys
from pathlib import Path
from org.journal import RoomJournal
journal = RoomJournal.open(Path(sys.argv[1]), url="http://127.0.0.1:9")
print("open", flush=True)
sys.stdin.read()
"""


async def test_a_killed_holder_is_no_obstacle(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "room") as child:
        assert read_line(child) == "open"
        with pytest.raises(Busy, match=f"pid {child.pid}, http://127.0.0.1:9"):
            RoomJournal.open(tmp_path / "room")
        child.kill()
        child.wait()
    assert b"127.0.0.1:9" in (tmp_path / "room" / "lock").read_bytes()
    assert holder(tmp_path / "room") == ""
    async with RoomJournal.open(tmp_path / "room"):
        assert holder(tmp_path / "room") == f"pid {os.getpid()}"


def bystander() -> subprocess.Popen[bytes]:
    """A child that gets every file that children get, and waits for a line."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)


async def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        child = bystander()
    with child:
        async with RoomJournal.open(tmp_path / "room"):
            assert child.poll() is None
        child.communicate(b"\n")
    assert journal.last == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff" * 5000])
async def test_a_lock_file_with_anything_in_it(tmp_path: Path, content: bytes) -> None:
    async with RoomJournal.open(tmp_path / "room"):
        (tmp_path / "room" / "lock").write_bytes(content)
        assert holder(tmp_path / "room") == "another process"
    async with RoomJournal.open(tmp_path / "room"):
        assert holder(tmp_path / "room") == f"pid {os.getpid()}"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="no room can be kept at"):
        RoomJournal.open(tmp_path / "file" / "room")


# -- readers


async def test_a_reader_beside_a_writer_sees_all_and_changes_nothing(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        for number in range(1, 30):
            await journal.append([posted(number)])
            before = contents(tmp_path / "room")
            assert len(read_events(tmp_path / "room")) == number
            after = contents(tmp_path / "room")
            del before["journal.sqlite-shm"], after["journal.sqlite-shm"]  # where readers leave marks
            assert after == before
        with reading(journal.path) as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM events")


READ = """
import sys
from pathlib import Path
from org.journal import list_rooms, read_events
for line in sys.stdin:
    print(len(read_events(Path(line.strip()))), list_rooms(Path(line.strip()).parent)[0].messages, flush=True)
"""


async def test_a_reader_in_another_process(tmp_path: Path) -> None:
    def ask() -> str:
        assert child.stdin is not None
        child.stdin.write(f"{tmp_path / 'room'}\n")
        child.stdin.flush()
        return read_line(child)

    with process(READ) as child:
        async with RoomJournal.open(tmp_path / "room") as journal:
            for number in range(1, 20):
                await journal.append([posted(number)])
                assert ask() == f"{number} {number}"
        assert ask() == "19 19"
        async with RoomJournal.open(tmp_path / "room") as journal:
            await journal.append([posted(20)])
            assert ask() == "20 20"


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from org.events import Posted
from org.journal import RoomJournal
from org.messages import EVERYONE, Message
async def main():
    journal = RoomJournal.open(Path(sys.argv[1]))
    for number in range(1, 8):
        await journal.append([Posted(Message(number, "ada", "person", EVERYONE, "hello", 1_700_000_000.0))])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The folder of a room whose writer was killed, with its log left behind."""
    folder = tmp_path / "room"
    with process(KILLED, folder) as child:
        assert child.wait() == -signal.SIGKILL
    assert (folder / "journal.sqlite-wal").stat().st_size > 0
    return folder


def test_a_reader_after_a_kill_leaves_the_log_as_it_is(killed: Path) -> None:
    for missing in ([], ["journal.sqlite-shm"]):
        for name in missing:
            (killed / name).unlink()
        before = contents(killed)
        assert [entry.event for entry in read_events(killed)] == [posted(number) for number in range(1, 8)]
        after = contents(killed)
        assert after["journal.sqlite"] == before["journal.sqlite"]
        assert after["journal.sqlite-wal"] == before["journal.sqlite-wal"]


@pytest.mark.sandbox
@pytest.mark.parametrize("state", ["clean", "killed", "killed without -shm"])
def test_a_reader_in_a_folder_that_cannot_be_written(killed: Path, state: str) -> None:
    if state == "clean":
        asyncio.run(RoomJournal.open(killed).close())
    if state == "killed without -shm":
        (killed / "journal.sqlite-shm").unlink()
    before = contents(killed)
    assert ("journal.sqlite-wal" in before) is (state != "clean")
    read_only = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/dev/shm"]
    answer = subprocess.run(
        [*read_only, "--setenv", "TMPDIR", "/dev/shm", sys.executable, "-c", READ],
        input=f"{killed}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "7 7\n"
    assert contents(killed) == before


def test_there_is_no_such_room(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such room: nowhere"):
        read_events(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# -- what cannot be used


async def test_a_journal_of_a_newer_version(tmp_path: Path) -> None:
    path = await written(tmp_path / "room", posted(1))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    before = contents(tmp_path / "room")
    for use in (RoomJournal.open, read_events):
        with pytest.raises(JournalTooNew, match=re.escape(str(path))) as caught:
            use(tmp_path / "room")
        assert f"format {FORMAT + 1}, this one knows {FORMAT}" in caught.value.message
        assert "update org" in caught.value.hint
        left = contents(tmp_path / "room")
        assert {name: left[name] for name in before} == before
    assert holder(tmp_path / "room") == ""


async def test_a_newer_journal_with_a_log_left_behind(tmp_path: Path) -> None:
    path = await written(tmp_path / "first", posted(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
        shutil.copytree(tmp_path / "first", tmp_path / "room")  # as a kill would leave it
    before = contents(tmp_path / "room")
    assert before["journal.sqlite-wal"]
    for use in (RoomJournal.open, read_events):
        with pytest.raises(JournalTooNew):
            use(tmp_path / "room")
        left = contents(tmp_path / "room")
        for name in ("journal.sqlite", "journal.sqlite-wal"):
            assert left[name] == before[name]


def _text(path: Path) -> None:
    path.write_text("not a database, but long enough to be looked at. " * 100)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name)")


def _without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE events")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xa5" * (path.stat().st_size - 3 * 4096))


@pytest.mark.parametrize("damage", [_text, _empty, _foreign, _without_tables, _cut, _overwritten])
async def test_a_damaged_journal_is_left_as_it_is(tmp_path: Path, damage: object) -> None:
    folder = tmp_path / "room"
    path = await written(folder, *(posted(number, "hello" * 200) for number in range(1, 60)))
    assert callable(damage)
    damage(path)
    before = contents(folder)
    for use in (RoomJournal.open, read_events):
        with pytest.raises(JournalCorrupt, match=re.escape(str(path))) as caught:
            use(folder)
        assert f"mv {folder} {folder}.damaged" in caught.value.hint
        left = contents(folder)
        assert {name: left[name] for name in before} == before
    assert holder(folder) == ""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("DELETE FROM events WHERE seq = 2", "event 2 is missing"),
        ("UPDATE events SET data = '{' WHERE seq = 3", "event 3: "),
        ("UPDATE events SET data = '[]' WHERE seq = 3", "event 3: an event is a JSON object"),
        ("UPDATE events SET data = replace(data, 'sender', 'x') WHERE seq = 3", "missing field: sender"),
        ('UPDATE events SET data = \'{"v":1,"type":"delta","text":""}\'', "`delta` is never committed"),
    ],
)
async def test_an_event_that_is_none_is_named(tmp_path: Path, change: str, problem: str) -> None:
    path = await written(tmp_path / "room", posted(1), posted(2), posted(3))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(change)
    with pytest.raises(JournalCorrupt, match=re.escape(problem)):
        read_events(tmp_path / "room")


FULL = """
import asyncio, resource, sys
from pathlib import Path
from org.errors import JournalError
from org.events import Posted
from org.journal import RoomJournal, read_events
from org.messages import EVERYONE, Message
def posted(number):
    return Posted(Message(number, "ada", "person", EVERYONE, "hello " * 500, 1_700_000_000.0))
async def main():
    folder = Path(sys.argv[1])
    async with RoomJournal.open(folder) as journal:
        await journal.append([posted(1)])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        count = 1
        try:
            while True:
                await journal.append([posted(count + 1), posted(count + 2), posted(count + 3)])
                count += 3
        except JournalError as error:
            print(count, flush=True)
            print(error.message, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        try:
            await journal.append([posted(0)])
        except JournalError as error:
            print(error.message, flush=True)
        print(len(journal.read()), flush=True)
asyncio.run(main())
"""


async def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "room"
    with process(FULL, folder) as child:
        count, message, again, kept = (read_line(child) for _ in range(4))
        assert child.wait() == 0
    assert int(count) > 10 and int(count) % 3 == 1
    assert message == again and str(folder / "journal.sqlite") in message
    assert kept == count  # all of what was acknowledged and nothing of what was not
    events = [posted(number, "hello " * 500) for number in range(1, int(count) + 1)]
    assert [entry.event for entry in read_events(folder)] == events
    async with RoomJournal.open(folder) as journal:
        await journal.append([posted(0)])
        assert [entry.event for entry in journal.read()] == [*events, posted(0)]


async def test_a_full_disk_says_so(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        journal._connection.execute("PRAGMA max_page_count = 1")  # SQLite's own "disk is full"
        with pytest.raises(JournalError, match="no space left for the journal") as caught:
            await journal.append([posted(1, "x" * 10_000), posted(2)])
        assert "org chat --resume room" in caught.value.hint
        journal._connection.execute("PRAGMA max_page_count = 1000000")
        with pytest.raises(JournalError, match="no space left for the journal"):
            await journal.append([posted(1)])
        assert journal.read() == []


async def test_another_writer_is_noticed_before_it_does_harm(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "room") as journal:
        await journal.append([posted(1)])
        with closing(sqlite3.connect(journal.path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO events SELECT 2, at, type, data FROM events")
        with pytest.raises(JournalError, match="UNIQUE"):
            await journal.append([posted(2), posted(3)])
        assert [entry.seq for entry in journal.read()] == [1, 2]


# -- killed at any instant

# Forks a writer for each line "folder"; the writer appends without end and says what is durable.
# (Forking spares the tests a hundred start-ups; nothing of the journal has been used before it.)
WRITERS = """
import asyncio, os, sys
from pathlib import Path
from org.events import Posted
from org.journal import RoomJournal
from org.messages import EVERYONE, Message
async def write(folder):
    journal = RoomJournal.open(folder)
    while True:
        first = journal.last + 1
        count = 1 + first % 4
        await journal.append([
            Posted(Message(number, f"of {count}", "person", EVERYONE, "hello " * (number % 300), 1.0))
            for number in range(first, first + count)
        ])
        os.write(1, b"%d\\n" % journal.last)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asyncio.run(write(Path(line.strip())))
    os.write(1, b"pid %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"killed\\n")
"""


def test_a_kill_at_any_instant_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(20_240)
    folder = tmp_path / "room-0"
    with process(WRITERS) as child:
        assert child.stdin is not None
        for instant in range(100):
            # Every fifth begins a room, so that kills fall into its making too; the others go on.
            if instant % 5 == 0:
                folder = tmp_path / f"room-{instant}"
            child.stdin.write(f"{folder}\n")
            child.stdin.flush()
            acknowledged = _kill_after(child, chance)
            _check(folder, acknowledged)


def _kill_after(child: subprocess.Popen[str], chance: random.Random) -> int:
    """Kill the writer after some of its words and a moment more; answers with the last it said."""
    acknowledged, pid, left = 0, 0, chance.choice([0, 0, 1, 2, 5, 20, 60])
    while True:
        if pid and left <= 0:
            time.sleep(chance.random() * 0.004)  # not to wait for something: to miss any fixed point
            os.kill(pid, signal.SIGKILL)
            left = 1_000_000
        line = read_line(child)
        assert line, "the writer itself failed"
        if line == "killed":
            return acknowledged
        if line.startswith("pid "):
            pid = int(line.removeprefix("pid "))
        else:
            acknowledged, left = int(line), left - 1


def _check(folder: Path, acknowledged: int) -> None:
    if not (folder / "journal.sqlite").exists():
        assert acknowledged == 0
        return
    messages = []
    for place, (seq, _, event) in enumerate(read_events(folder), 1):
        assert isinstance(event, Posted)
        assert (seq, event.message.id, event.message.content) == (place, place, "hello " * (place % 300))
        messages.append(event.message)
    assert len(messages) >= acknowledged
    while messages:  # each append is there whole
        size = int(messages[0].sender.removeprefix("of "))
        assert [message.sender for message in messages[:size]] == [f"of {size}"] * size
        del messages[:size]


# -- the rooms there are


@pytest.mark.parametrize("room", ["a", "0", "demo", "2026-01-31_a.b", "x" * 64])
def test_a_room_id(tmp_path: Path, room: str) -> None:
    assert room_folder(tmp_path, room) == tmp_path / room


@pytest.mark.parametrize(
    "room", ["", ".", "..", ".a", "-a", "A", "a/b", "../a", "a\n", "é", "a b", "x" * 65, "a\0"]
)
def test_no_room_id(tmp_path: Path, room: str) -> None:
    with pytest.raises(UsageError, match="not a room id"):
        room_folder(tmp_path, room)
    with pytest.raises(UsageError, match="not a room id"):
        remove_room(tmp_path, room)


async def test_the_rooms_with_the_last_used_first(tmp_path: Path) -> None:
    assert list_rooms(tmp_path / "nowhere") == []
    assert list_rooms(tmp_path) == []
    before = time.time()
    await written(
        tmp_path / "old",
        Joined("ada", "person"),
        Joined("coder", "model"),
        Joined("calc", "model"),
        posted(1),
        Left("coder"),
        posted(2),
        posted(3),
        Undone(2),
        posted(4),
    )
    await written(tmp_path / "broken", posted(1))
    _text(tmp_path / "broken" / "journal.sqlite")
    (tmp_path / "No room").mkdir()
    (tmp_path / "unfinished").mkdir()
    async with RoomJournal.open(tmp_path / "new", url="http://127.0.0.1:9") as journal:
        await journal.append([posted(1), posted(2, "secret")])
        new, old, broken = list_rooms(tmp_path)
    assert (new.id, new.messages, new.participants) == ("new", 2, ())
    assert new.busy == f"pid {os.getpid()}, http://127.0.0.1:9"
    assert (old.id, old.messages, old.participants, old.busy) == ("old", 2, ("ada", "calc"), "")
    assert before <= old.created <= old.last <= new.created <= new.last
    assert (broken.id, broken.last, broken.problem[:24]) == ("broken", 0.0, "the journal is damaged o")


async def test_of_what_was_said_a_list_reads_only_what_was_taken_back(tmp_path: Path) -> None:
    events: list[Committed] = [
        posted(1),
        posted(2),
        posted(3),
        Undone(3),
        posted(4),
        posted(5),
        posted(6),
        Undone(5),
    ]
    path = await written(tmp_path / "demo", *events, Undone(4), posted(7))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET data = 'nothing' WHERE seq = 1")
    (room,) = list_rooms(tmp_path)
    assert (room.messages, room.problem) == (3, "")


async def test_a_new_room_is_listed_before_anything_happens_in_it(tmp_path: Path) -> None:
    async with RoomJournal.open(tmp_path / "new"):
        (room,) = list_rooms(tmp_path)
    assert (room.id, room.messages, room.problem) == ("new", 0, "")
    assert room.last == room.created > 0


async def test_removing_a_room(tmp_path: Path) -> None:
    await written(tmp_path / "demo", posted(1))
    (tmp_path / "demo" / "work").mkdir()
    (tmp_path / "demo" / "work" / "a.txt").write_text("a")
    async with RoomJournal.open(tmp_path / "demo"):
        with pytest.raises(Busy, match=f"pid {os.getpid()}"):
            remove_room(tmp_path, "demo")
        assert (tmp_path / "demo" / "work" / "a.txt").exists()
    (tmp_path / ".removed" / "earlier").mkdir(parents=True)  # of a removal that was killed
    remove_room(tmp_path, "demo")
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError, match="no such room: demo"):
        remove_room(tmp_path, "demo")
    assert os.listdir(tmp_path) == []
    async with RoomJournal.open(tmp_path / "demo") as journal:
        assert journal.read() == []


async def test_who_waited_at_the_door_of_a_removed_room_gets_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file is opened, then the room removed, then the lock taken: on a file that is gone."""
    await written(tmp_path / "demo", posted(1))
    flock = fcntl.flock

    def remove_first(fd: int, operation: int) -> None:
        monkeypatch.undo()
        remove_room(tmp_path, "demo")
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    async with RoomJournal.open(tmp_path / "demo") as journal:
        assert fcntl.flock is flock
        assert journal.read() == []
        assert holder(tmp_path / "demo") == f"pid {os.getpid()}"


async def test_who_only_asks_for_the_holder_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`holder` shares the lock for a moment, and that moment is when another opens the room."""
    await written(tmp_path / "demo", posted(1))
    flock, asking = fcntl.flock, os.open(tmp_path / "demo" / "lock", os.O_RDONLY)
    tries: list[int] = []

    def ask_meanwhile(fd: int, operation: int) -> None:
        tries.append(operation)
        if len(tries) == 1:
            flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if len(tries) == 3:
            flock(asking, fcntl.LOCK_UN)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", ask_meanwhile)
    async with RoomJournal.open(tmp_path / "demo") as journal:
        assert journal.last == 1
    os.close(asking)
    assert [kind & ~fcntl.LOCK_NB for kind in tries] == [fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_EX]


async def test_a_file_of_an_audience_is_kept_too(tmp_path: Path) -> None:
    message = Message(1, "coder", "model", Audience.file("a.md"), "x", 1.0)
    await written(tmp_path / "room", Posted(message))
    assert read_events(tmp_path / "room")[0].event == Posted(message)
