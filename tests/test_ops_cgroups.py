"""Groups of generations: what is not to be done outside of a machine. That they hold is seen in one, see
`test_vm_generations.py`."""

from __future__ import annotations

from pathlib import Path

from org.ops import cgroups


def test_outside_of_a_machine_everybody_stays_where_they_are() -> None:
    own, rank = Path("/proc/self/cgroup"), Path("/proc/self/oom_score_adj")
    before = (own.read_text(), rank.read_text())
    cgroups.move_aside()
    with cgroups.bounded("c0ffee", 0.5, first=True):
        assert (own.read_text(), rank.read_text()) == before
    assert cgroups.close("c0ffee") == ""
    assert (own.read_text(), rank.read_text()) == before
