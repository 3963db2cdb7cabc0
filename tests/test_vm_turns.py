"""One at a time, and the others know for whom they wait."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from org.sandbox.vm.turns import turn


async def test_the_second_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", list[str]()
    told = asyncio.Event()
    begun = asyncio.Event()

    def waiting(text: str) -> None:
        order.append(text)
        told.set()

    async def first() -> None:
        async with turn(path, "bakes bread", order.append):
            begun.set()
            await told.wait()
            order.append("baked")

    async def second() -> None:
        await begun.wait()
        async with turn(path, "eats bread", waiting):
            order.append("eaten")

    async with asyncio.timeout(60):
        await asyncio.gather(first(), second())
    assert order == [f"waiting for another process: bakes bread (pid {os.getpid()})", "baked", "eaten"]


async def test_a_turn_ends_with_who_had_it(tmp_path: Path) -> None:
    heard: list[str] = []
    for _ in range(2):
        async with turn(tmp_path / "lock", "does something", heard.append):
            assert "does something" in (tmp_path / "lock").read_text()
    assert heard == []
