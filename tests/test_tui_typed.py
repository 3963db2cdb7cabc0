"""What was typed before, kept in a file."""

from __future__ import annotations

import stat
from pathlib import Path

from org.tui.typed import Typed


def test_it_is_kept_for_the_next_time_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    first = Typed(path)
    first.add("one")
    first.add("two\nlines")
    first.add("two\nlines")  # the same again is no news
    assert Typed(path).texts == ["one", "two\nlines"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_the_plain_prompts_file_too(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("one\nfirst \\\nsecond\n\n", encoding="utf-8")
    assert Typed(path).texts == ["one", "first \nsecond"]


def test_a_file_that_cannot_be_had_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    typed = Typed(tmp_path / "file" / "history")
    typed.add("one")
    assert typed.texts == ["one"]
    assert Typed(None).texts == []
