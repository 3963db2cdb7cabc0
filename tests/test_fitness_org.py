"""The gate on `org` itself: rooms that are really served, asked over HTTP, on a model that recites."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from ops_kit import Shop

SOURCE = Path(__file__).parent.parent / "src"
NUMBERS = range(1, 13)
SCRIPTS = {f"square-{n}": [f"The square of that number is {n * n}."] for n in NUMBERS}
TASKS = "".join(
    f'[[task]]\nid = "square-{n}"\nprompt = "What is the square of {n}?"\nsystem = "[[square-{n}]]"\n'
    f"check.regex = '\\b{n * n}\\b'\n"
    for n in NUMBERS
)
ROOM = '[[participant]]\nid = "guide"\nprofile = "simple"\n'


class Program(Shop):
    """A repository that serves the `org` of these tests, with one participant."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        super().__init__(folder)
        self.env |= {"ORG_BASE": engine.base_url, "ORG_MODEL": engine.model}
        self.save("rooms", {"org.toml": self.settings(), "fitness.toml": TASKS})
        assert self.org("trust").returncode == 0

    def settings(self, more: str = "") -> str:
        return (
            '[generation]\nstart = ["{python}", "-P", "-m", "org", "serve"]\ncontract = 1\n'
            f'env = {{ PYTHONPATH = "{SOURCE}", PYTHONDONTWRITEBYTECODE = "1" }}\n'
            'probes = ["GET /v1/models", "GET /rooms", "GET /metrics"]\n'
            '[generation.ask]\nmodel = "org/main"\ntoken = "org/serve-token"\n'
            f"[generation.fitness]\npairs = 12\n{ROOM}{more}"
        )

    def told(self, *words: str) -> dict[str, Any]:
        done = self.org(*words, "--json")
        told: dict[str, Any] = json.loads(done.stdout or done.stderr)
        return told


@pytest.mark.engine
async def test_rooms_are_judged(
    tmp_path: Path, scripted: Callable[..., AbstractAsyncContextManager[Engine]]
) -> None:
    """Current ties with itself and fails when spoilt; an equal candidate passes, one that cuts its answers
    short does not."""
    async with scripted(SCRIPTS) as engine:
        await asyncio.to_thread(judge, Program(tmp_path, engine))


def judge(program: Program) -> None:
    program.change({"note": "1"})
    tested = program.told("fitness", "--self-test")
    assert (tested["reason"], tested["mean"], tested["pairs"]) == ("believable", 1.0, 12), tested
    same = program.told("fitness")
    assert same["verdict"] == "pass", same
    assert [one["gate"] for one in same["findings"] if not one["passed"]] == []
    assert all(pair["candidate"]["tokens"] for pair in same["pairs"])
    program.change({"org.toml": program.settings("max_tokens = 3\n")}, new=True)
    worse = program.told("fitness")
    assert (worse["verdict"], "below current" in worse["why"]) == ("fail", True), worse
