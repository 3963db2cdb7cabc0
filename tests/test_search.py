"""Searching all rooms: an index that keeps up with the journals, and any words as a query."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from org.errors import JournalError, UsageError
from org.events import CallFinished, Committed, Posted, Stopped, Undone
from org.journal import Hit, RoomJournal, remove_room, search
from org.messages import EVERYONE, Message
from org.tooling import ToolCall, ToolResult


def posted(id: int, content: str, sender: str = "ada", at: float = 100.0) -> Posted:
    return Posted(Message(id, sender, "person", EVERYONE, content, at))


def called(output: str) -> CallFinished:
    return CallFinished("coder", 1, ToolCall("c1", "sh", {}), ToolResult("c1", output))


async def written(folder: Path, *events: Committed) -> None:
    async with RoomJournal.open(folder) as journal:
        await journal.append(events)


class House:
    """Rooms and their index."""

    def __init__(self, folder: Path) -> None:
        self.rooms = folder / "rooms"
        self.index = folder / "cache" / "search.sqlite"

    def places(self, words: str) -> set[tuple[str, int]]:
        found = search(self.rooms, self.index, words)
        assert found.skipped == ()
        return {(hit.room, hit.seq) for hit in found.hits}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_messages_and_tool_outputs_are_found(house: House) -> None:
    await written(house.rooms / "one", posted(1, "Where is the Café?", at=5.0), called("a café\nin Paris"))
    await written(house.rooms / "two", posted(1, "no such place"), Stopped("quiet", "café"))
    found = search(house.rooms, house.index, "CAFE")
    by_seq = {hit.seq: hit for hit in found.hits}
    assert by_seq.keys() == {1, 2}
    assert by_seq[1] == Hit("one", 1, "ada", 5.0, "Where is the [Café]?")
    assert (by_seq[2].sender, by_seq[2].snippet) == ("coder", "a [café]\nin Paris")
    assert house.places("place such") == {("two", 1)}
    assert house.places("place café") == set()
    assert stat.S_IMODE(house.index.stat().st_mode) == 0o600


async def test_a_long_text_is_cut_and_hits_are_limited(house: House) -> None:
    await written(
        house.rooms / "one", *(posted(n, "hay " * 500 + "needle" + " hay" * 500) for n in range(1, 9))
    )
    found = search(house.rooms, house.index, "needle", limit=3)
    assert len(found.hits) == 3
    assert all("[needle]" in hit.snippet and len(hit.snippet) < 200 for hit in found.hits)


def test_nothing_is_there_yet(house: House) -> None:
    assert search(house.rooms, house.index, "x").hits == ()


@pytest.mark.parametrize("words", ["", " \n", "* ( ) ^", '"', "\0", "\ud83d"])
def test_nothing_to_search_for(house: House, words: str) -> None:
    with pytest.raises(UsageError, match="nothing to search for"):
        search(house.rooms, house.index, words)
    assert not house.index.exists()


async def test_the_index_keeps_up(house: House) -> None:
    async with RoomJournal.open(house.rooms / "one") as journal:
        await journal.append([posted(1, "apple")])
        assert house.places("apple") == {("one", 1)}
        await journal.append([posted(2, "pear"), posted(3, "apple pie")])
        assert house.places("apple") == {("one", 1), ("one", 3)}
        assert house.places("apple") == {("one", 1), ("one", 3)}
        await written(house.rooms / "two", posted(1, "apple"))
        assert house.places("apple") == {("one", 1), ("one", 3), ("two", 1)}


async def test_what_was_indexed_is_not_read_again(house: House) -> None:
    await written(house.rooms / "one", posted(1, "apple"))
    assert house.places("apple") == {("one", 1)}
    with closing(sqlite3.connect(house.rooms / "one" / "journal.sqlite", isolation_level=None)) as journal:
        journal.execute("UPDATE events SET data = 'unreadable'")
    await written(house.rooms / "one", posted(2, "apple"))
    assert house.places("apple") == {("one", 1), ("one", 2)}


async def test_a_removed_room_and_one_made_anew(house: House) -> None:
    await written(house.rooms / "one", posted(1, "apple"), posted(2, "apple"))
    await written(house.rooms / "two", posted(1, "apple"))
    assert house.places("apple") == {("one", 1), ("one", 2), ("two", 1)}
    remove_room(house.rooms, "one")
    remove_room(house.rooms, "two")
    await written(house.rooms / "two", posted(1, "pear"), posted(2, "plum"), posted(3, "apple"))
    assert house.places("apple") == {("two", 3)}
    assert house.places("pear") == {("two", 1)}


async def test_what_was_undone_is_not_found(house: House) -> None:
    async with RoomJournal.open(house.rooms / "one") as journal:
        await journal.append([posted(1, "apple"), posted(2, "apple"), called("apple"), posted(3, "apple")])
        assert len(house.places("apple")) == 4
        await journal.append([Undone(2), posted(2, "apple"), Undone(9)])
        assert house.places("apple") == {("one", 1), ("one", 6)}
        await journal.append([Undone(1)])
        assert house.places("apple") == set()


async def test_any_text_can_be_indexed(house: House) -> None:
    await written(house.rooms / "one", posted(1, "apple\0pear \ud83d plum"), called("\ude00\0"))
    for word in ("apple", "pear", "plum"):
        assert house.places(word) == {("one", 1)}


async def test_any_words_are_a_query(house: House) -> None:
    await written(house.rooms / "one", posted(1, 'he said "stop AND think" (NEAR the C++ col:umn) don\'t*'))
    for words in ('"stop', "AND think", "(near", "C++", "col:umn", "don't*", "said"):
        assert house.places(words) == {("one", 1)}, words

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(st.characters() | st.sampled_from('"*()^:-+{}\0\ud83d ANDORNOTNEAR,'), max_size=20))
    @example('a"b')
    @example("a OR")
    @example("NEAR(a b, 2)")
    @example("content : a")
    @example("-a")
    def check(words: str) -> None:
        try:
            found = search(house.rooms, house.index, words)
        except UsageError:
            return
        assert found.skipped == ()

    check()


async def test_a_broken_journal_is_named_and_the_others_are_searched(house: House) -> None:
    await written(house.rooms / "one", posted(1, "apple"))
    await written(house.rooms / "two", posted(1, "apple"))
    (house.rooms / "two" / "journal.sqlite").write_text("no journal" * 100)
    found = search(house.rooms, house.index, "apple")
    assert [(hit.room, hit.seq) for hit in found.hits] == [("one", 1)]
    ((room, why),) = found.skipped
    assert room == "two" and why.startswith("the journal is damaged or not one")


def _text(index: Path) -> None:
    index.write_text("no index" * 1000)


def _cut(index: Path) -> None:
    os.truncate(index, index.stat().st_size // 2)


def _overwritten(index: Path) -> None:
    with index.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (index.stat().st_size - 4096))


def _sql(*statements: str) -> object:
    def change(index: Path) -> None:
        with closing(sqlite3.connect(index, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        _text,
        _cut,
        _overwritten,
        _sql("DROP TABLE texts"),
        _sql("DROP TABLE texts_data"),
        _sql("PRAGMA user_version = 7"),
        _sql("PRAGMA application_id = 0"),
    ],
    ids=["text", "cut", "overwritten", "no texts", "no data", "version", "foreign"],
)
async def test_a_broken_index_is_built_again(house: House, damage: object) -> None:
    await written(house.rooms / "one", *(posted(n, f"apple number{n}") for n in range(1, 200)))
    assert house.places("number7") == {("one", 7)}
    assert callable(damage)
    damage(house.index)
    assert house.places("number7") == {("one", 7)}
    assert house.places("number199") == {("one", 199)}


async def test_an_index_that_cannot_be_made(house: House) -> None:
    house.rooms.mkdir()
    house.index.parent.write_text("")
    with pytest.raises(JournalError, match="no index can be kept at"):
        search(house.rooms, house.index, "apple")


async def test_an_index_that_vanished_is_built_again(house: House) -> None:
    await written(house.rooms / "one", posted(1, "apple"))
    assert house.places("apple") == {("one", 1)}
    shutil.rmtree(house.index.parent)
    assert house.places("apple") == {("one", 1)}
