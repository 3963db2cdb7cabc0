"""What a machine says of its Python, before anything is put there."""

from __future__ import annotations

from typing import cast

import pytest

from org.errors import EnvironmentProblem
from org.ports import Command, ExecResult
from org.sandbox.vm.channel import Channel
from org.sandbox.vm.install import _look
from org.sandbox.vm.wheels import Target


class Saying:
    """A machine that says the same to whatever runs in it."""

    def __init__(self, told: str) -> None:
        self.told = told

    async def exec(self, command: Command) -> ExecResult:
        return ExecResult(0, self.told.encode(), b"", 0, False, 0.0)


async def looked(told: str) -> tuple[Target, str]:
    return await _look(cast(Channel, Saying(told)))


async def test_what_packages_must_run_on_is_heard() -> None:
    target, current = await looked('[[3, 11, 2], "/usr/bin/python3", "x86_64", "glibc 2.36", "abc"]')
    assert target == Target((3, 11, 2), "/usr/bin/python3", "x86_64", (2, 36))
    assert current == "abc"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ('[[3, 10, 1], "/usr/bin/python3", "x86_64", "glibc 2.36", ""]', "Python 3.10; org needs 3.11"),
        ('[[3, 11, 1], "/usr/bin/python3", "x86_64", "", ""]', "GNU C library"),
        ('[[3, 11, 1], "/usr/bin/python3", "riscv64", "glibc 2.36", ""]', "processor: riscv64"),
        ('["something else"]', "does not say what it is"),
        ("nothing", "does not say what it is"),
    ],
)
async def test_a_python_that_cannot_run_it_is_named(told: str, reason: str) -> None:
    with pytest.raises(EnvironmentProblem, match=reason):
        await looked(told)
