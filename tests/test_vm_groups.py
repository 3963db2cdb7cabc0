"""Groups of commands in a guest, as far as folders go."""

from __future__ import annotations

from pathlib import Path

from org.sandbox.vm import groups


def test_a_group_goes_with_those_that_were_made_in_it(tmp_path: Path) -> None:
    (tmp_path / "1" / "keep").mkdir(parents=True)
    (tmp_path / "1" / "c0ffee").mkdir()
    (tmp_path / "2" / "keep").mkdir(parents=True)
    (tmp_path / "2" / "keep" / "somebody").touch()
    first, second = str(tmp_path / "1"), str(tmp_path / "2")
    assert groups.remove([first, second, str(tmp_path / "3")]) == [second]
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
