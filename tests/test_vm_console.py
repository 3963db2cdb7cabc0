"""What a guest says is kept, within bounds, whatever it says."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from org.sandbox.vm.console import MOST, Console, older


async def test_what_is_said_is_kept_to_the_end(tmp_path: Path) -> None:
    said = asyncio.StreamReader()
    console = Console(tmp_path / "console")
    said.feed_data(b"one\n")
    said.feed_data(b"two\n")
    said.feed_eof()
    await console.keep(said)
    assert (tmp_path / "console").read_bytes() == b"one\ntwo\n"
    assert console.last_words() == "; its last words: one | two"


def test_no_more_is_kept_than_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "console"
    console = Console(path)
    for number in itertools.takewhile(lambda number: number * 60_000 < 5 * MOST, itertools.count()):
        console.add(b"%8d\n" % number * 6_666)
        kept = path.stat().st_size + (older(path).stat().st_size if older(path).exists() else 0)
        assert kept <= MOST
    assert path.read_bytes().endswith(b"%8d\n" % number)
    assert older(path).stat().st_size > MOST // 4


def test_a_new_start_begins_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"of before")
    older(path).write_bytes(b"of long before")
    assert Console(path).last_words() == ""
    assert path.read_bytes() == b""
    assert not older(path).exists()


def test_a_machine_outlives_the_place_for_its_words(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    console = Console(folder / "console")
    (folder / "console").unlink()
    folder.rmdir()
    console.add(b"nobody hears it\n")
    assert console.last_words().endswith("nobody hears it")


@given(st.lists(st.binary(max_size=200)))
def test_last_words_are_one_line_that_can_be_shown(said: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        console = Console(Path(folder, "console"))
        for data in said:
            console.add(data)
    words = console.last_words()
    assert words == "" or words.startswith("; its last words: ")
    assert words.isprintable() and len(words) <= 2020


def test_why_a_kernel_panicked_is_what_is_told(tmp_path: Path) -> None:
    console = Console(tmp_path / "console")
    console.add(b"[ 1.0] usual\n[ 8.3] Kernel panic - not syncing: why\n" + b"[ 8.4] R10: 0 R11: 0\n" * 300)
    assert console.last_words() == "; its last words: [ 8.3] Kernel panic - not syncing: why"


def test_the_firmware_has_no_last_words(tmp_path: Path) -> None:
    console = Console(tmp_path / "console")
    console.add(
        b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\nBooting from ROM...\r\n\x1bc\x1b[?7l\x1b[2J"
    )
    assert console.last_words() == ""
    console.add(b"\x1b[31mout of\x1b[0m disks\r\n")
    assert console.last_words() == "; its last words: out of disks"
