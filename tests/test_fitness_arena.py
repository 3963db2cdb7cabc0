"""Where generations are tried: how they begin and end, and whose token is read."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

import generation_kit
from fitness_kit import Bakery, environment
from ops_kit import Shop
from org.errors import EnvironmentProblem
from org.ops import worktrees
from org.ops.fitness import ask, gates
from org.ops.fitness.arena import MOST_STARTS, Side, arena, place_of, read_own
from org.ops.fitness.rules import Ask, Rules


def side(bakery: Bakery, mode: str = "well") -> Side:
    bakery.change({"mode": mode, "another": "1"})
    merge = bakery.pinned().merge
    with bakery.program.hold("test") as git:
        folder = worktrees.ensure(bakery.layout, git, merge)
    return Side(bakery.layout, "candidate", merge, folder, Ask())


async def test_one_that_ends_by_itself_is_started_again_some_times(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    tried = side(bakery, "crash")
    with environment(bakery.env):
        async with arena(bakery.layout):
            await tried.start()
            for crash in range(1, MOST_STARTS + 1):
                reply = ask.put(tried.door, "double 2", seed=1, seconds=20)
                assert reply.kind == "broken"
                await tried.gone()
                assert await tried.revive() == (crash < MOST_STARTS)
            assert tried.crashes == MOST_STARTS
            assert not await tried.revive()
            await tried.stop()


@pytest.mark.parametrize("settings", [None, "nonsense = [", "[generation]\nstart = 1"])
async def test_one_that_spoils_how_it_is_started_does_not_start(tmp_path: Path, settings: str | None) -> None:
    bakery = Bakery(tmp_path)
    tried = side(bakery, "crash")
    folder = bakery.layout.worktree(tried.commit)
    with environment(bakery.env):
        async with arena(bakery.layout):
            await tried.start()
            folder.chmod(0o755)
            (folder / "org.toml").unlink()
            if settings is not None:
                (folder / "org.toml").write_text(settings)
            ask.put(tried.door, "double 2", seed=1, seconds=20)
            await tried.gone()
            assert not await tried.revive()
            with pytest.raises(EnvironmentProblem, match="cannot be started from its files"):
                await tried.run(["true"], {}, 20)
            tests = await gates.test(tried, tried, Rules(tests=("true", "{report}")))
            assert not tests.passed


async def test_nothing_says_that_it_is_tried(tmp_path: Path) -> None:
    """Its environment is as that of a candidate which is served, but for its places; all sides' are alike."""
    bakery = Bakery(tmp_path)
    candidate = side(bakery)
    folder = bakery.layout.worktree(candidate.commit)
    current = Side(bakery.layout, "current", candidate.commit, folder, Ask())
    seen = []
    with environment(bakery.env):
        async with arena(bakery.layout):
            for tried in (current, candidate):
                ended = await tried.run(["sh", "-c", "env -0 > $XDG_STATE_HOME/seen"], {}, 20)
                assert ended is not None
                text = (tried.home / "seen").read_text()
                seen.append(dict(line.split("=", 1) for line in text.split("\0") if line))
    assert len({given["XDG_STATE_HOME"] for given in seen}) == 2
    for given in seen:
        state = Path(given["XDG_STATE_HOME"])
        assert state.name == bakery.layout.candidate_home.name
        assert state.parents[2] == bakery.layout.root
        said = "\n".join(f"{name}={value}" for name, value in given.items()).replace(str(bakery.folder), "")
        assert not re.search("fitness|candidate|current|judge|gate|trial|test", said, re.IGNORECASE)
    assert seen[0].keys() == seen[1].keys()


async def test_what_is_left_of_it_is_removed(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    tried = side(bakery)
    with environment(bakery.env):
        async with arena(bakery.layout):
            await tried.start()
            (tried.home / "kept").write_text("something")
            assert list(place_of(bakery.layout).root.glob("*/run/*.keeper"))
            pid = (await tried.health())["pid"]
            assert isinstance(pid, int)
        assert not generation_kit.alive(pid)
        assert not tried.home.exists()
        await tried.stop()


async def test_its_last_words_are_told(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    tried = side(bakery, "dead")
    with environment(bakery.env):
        async with arena(bakery.layout):
            with pytest.raises(EnvironmentProblem) as caught:
                await tried.start()
            await tried.stop()
    assert "the oven is cold" in caught.value.hint


async def test_a_drain_is_rehearsed(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path)
    tried = side(bakery)
    with environment(bakery.env):
        async with arena(bakery.layout):
            await tried.start()
            found = await gates.rehearse(tried)
            assert found.passed, found
            await tried.start()  # and again
            assert (await gates.probe(tried, tried, Rules(), "/health")).passed
            await tried.stop()


def test_a_token_is_its_own_or_none(tmp_path: Path) -> None:
    own = tmp_path / "token"
    own.write_text(" secret\n")
    assert read_own(own, os.geteuid()) == "secret"
    assert read_own(own, os.geteuid() + 1) == ""  # somebody else's, to which it may have linked
    assert read_own(tmp_path / "missing", os.geteuid()) == ""
    assert read_own(tmp_path, os.geteuid()) == ""
    os.mkfifo(tmp_path / "pipe")
    assert read_own(tmp_path / "pipe", os.geteuid()) == ""
    own.write_text("two\nlines: header injection")
    assert read_own(own, os.geteuid()) == ""
    assert len(read_own(Path("/dev/zero"), 0)) == 0


# -- programs that speak the contract


class Served(Shop):
    """The kit of generations: what a mode does is said there."""

    def __init__(self, folder: Path, mode: str) -> None:
        super().__init__(folder)
        start = json.dumps([sys.executable, generation_kit.__file__, mode])
        self.save(mode, {"org.toml": f"[generation]\nstart = {start}\ncontract = 1\ndrain_timeout = 3\n"})
        self.edit({"x": "1"})

    def side(self) -> Side:
        with self.program.hold("test") as git:
            folder = worktrees.ensure(self.layout, git, self.main)
        return Side(self.layout, "candidate", self.main, folder, Ask("/stream"))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("well", "drained in "),
        ("deaf", "it does not say that it drains; it does not end by itself: SIGKILL"),
        ("daemon", "drained in "),  # what it left is gone too
    ],
)
async def test_a_stream_outlasts_the_order_to_drain(tmp_path: Path, mode: str, said: str) -> None:
    shop = Served(tmp_path, mode)
    tried = shop.side()
    with environment(shop.env):
        async with arena(shop.layout):
            await tried.start()
            assert (await tried.health())["commit"] == shop.main
            found = await gates.rehearse(tried)
            await tried.stop()
    assert (found.passed, found.about[: len(said)]) == (mode != "deaf", said)


async def test_who_names_another_commit_does_not_start(tmp_path: Path) -> None:
    shop = Served(tmp_path, "wrong")
    tried = shop.side()
    with environment(shop.env):
        async with arena(shop.layout):
            with pytest.raises(EnvironmentProblem, match="says that it is 'another'"):
                await tried.start()
            await tried.stop()
