"""The names of files: all below their folder, no two alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from org.sandbox.vm import layout
from org.sandbox.vm.layout import ImageFolder, MachineFolder


@pytest.mark.parametrize("folder", [ImageFolder(Path("/x/a")), MachineFolder(Path("/x/a"))])
def test_every_file_has_a_name_of_its_own(folder: ImageFolder | MachineFolder) -> None:
    names = [name for name, value in vars(type(folder)).items() if isinstance(value, property)]
    paths = [getattr(folder, name) for name in names]
    assert len(set(paths)) == len(paths) >= 6
    assert {path.parent for path in paths} == {Path("/x/a")}


def test_the_folders_of_one_place_differ() -> None:
    place = Path("/x")
    assert len({layout.images(place), layout.packages(place), layout.machines(place)}) == 3


def test_sockets_of_a_usual_home_fit_into_an_address() -> None:
    folder = MachineFolder(
        layout.machines(Path("/home/somebody-with-a-long-name/.local/state/org")) / "default"
    )
    assert all(len(str(path)) < 104 for path in (folder.ctl, folder.net, folder.qmp, folder.socket))
