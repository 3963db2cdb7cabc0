"""The gate on real processes: well-behaved candidates, hostile ones, and a suite that tells nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fitness_kit
from fitness_kit import TASKS, Bakery, parsed
from generation_kit import wait_for
from org.errors import ConfigError, ExitCode
from org.ops import candidate, verdicts, worktrees
from org.ops.fitness import inputs, report
from org.ops.fitness.arena import place_of
from org.ops.fitness.case import Wish
from org.ops.layout import Layout


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    made = Bakery(tmp_path_factory.mktemp("bakery"))
    yield made
    made.close()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[list[Bakery]]:
    made: list[Bakery] = []
    yield made
    for one in made:
        one.close()


def leftovers(layout: Layout) -> list[Path]:
    return list(place_of(layout).root.glob("*/run/*.keeper"))


@pytest.mark.parametrize(
    ("mode", "verdict", "why"),
    [
        ("well", "pass", "as good as current"),
        ("half", "fail", "below current"),
        ("nan", "fail", "below current|answers are missing: status 200, and no completion"),
        ("garbage", "fail", "answers are missing"),
        ("crash", "fail", "answers are missing"),
        ("tired", "fail", "it ended by itself"),
        ("endpoint", "fail", "answers are missing: status 503"),
        ("slow", "fail", "an answer takes .* s, current's"),
        ("wordy", "fail", "an answer takes 5000 tokens, current's 10"),
        ("rude", "fail", "probes: POST /v1/chat/completions: 500, current says 400"),
        ("dead", "fail", "start: .*the oven is cold"),
        ("spoil", "fail", "files: its own files were changed while it was tried: org.toml"),
        ("vanish", "fail", "files: its own files were changed .*answers are missing"),
        ("escape", "fail", "answers are missing: status 500:  ]0;mine   ✓ all is well"),
    ],
)
def test_what_becomes_of_a_candidate(bakery: Bakery, mode: str, verdict: str, why: str) -> None:
    found = bakery.judged(mode)
    assert (found["verdict"], found["branch"]) == (verdict, candidate.branch_of(bakery.program))
    assert re.search(why, found["why"]), found["why"]
    assert json.loads(verdicts.canonical(found)) == json.loads(json.dumps(found))
    assert leftovers(bakery.layout) == []


def test_the_files_of_candidates_do_not_pile_up(bakery: Bakery) -> None:
    for number in range(4):
        bakery.judged(f"well #{number}")
    folders = [path for path in bakery.layout.generations.iterdir() if not path.name.startswith(".")]
    assert bakery.main in [path.name for path in folders]
    assert len(folders) <= worktrees.KEPT + 1


def test_a_verdict_names_all_that_it_depends_on(bakery: Bakery) -> None:
    found = bakery.judged("well")
    gate = bakery.pinned()
    assert (found["merge"], found["main"]) == (gate.merge, gate.main)
    assert found["tree"] == bakery.repo.run("rev-parse", f"{gate.merge}^{{tree}}")
    assert (found["attempt"], found["alpha"], found["spent"]) == (1, 0.05, 1)
    assert found["anchor"] == gate.main
    assert (found["asked"], found["known"]) == (12, dict.fromkeys(found["known"], 1.0))
    assert found["known"].keys() == {pair["task"] for pair in found["pairs"]}
    assert [pair["task"] for pair in found["pairs"]] != sorted(pair["task"] for pair in found["pairs"])
    assert {pair["task"] for pair in found["pairs"]} == {f"double-{n}" for n in range(1, 13)}
    assert {pair["candidate_first"] for pair in found["pairs"]} == {True, False}
    assert len({pair["seed"] for pair in found["pairs"]}) == 12
    assert [one["gate"] for one in found["findings"]] == ["files", "start", "drain", "probes", "costs"]


def test_a_verdict_stands_while_nothing_differs(bakery: Bakery, tmp_path: Path) -> None:
    found = bakery.judged("well")
    assert inputs.stands(bakery.repo, found)
    for name in ("main", "suite", "config", "model", "gate_code"):
        assert not inputs.stands(bakery.repo, found | {"inputs": found["inputs"] | {name: "other"}})
    tasks = tmp_path / "mine.toml"
    tasks.write_text(TASKS)
    mine = bakery.judged("well", Wish(tasks=str(tasks)))
    assert inputs.stands(bakery.repo, mine)
    tasks.write_text(TASKS.replace("double 3", "double 13"))
    assert not inputs.stands(bakery.repo, mine)
    tasks.unlink()
    assert not inputs.stands(bakery.repo, mine)


def test_each_attempt_is_harder_whatever_the_branch(bakery: Bakery) -> None:
    """The branch goes on, another begins with the same files, another with a byte more: each is one more."""
    bakery.forget()
    bakery.change({"mode": "well", "try": "1"}, new=True)
    bounds = []
    for number, change in enumerate(({"try": "2"}, {"x": "1"}, {"x": "2"}), 1):
        found = bakery.judge()
        bakery.keep(found)
        assert (found["attempt"], found["spent"], found["verdict"]) == (number, number, "pass")
        bounds.append(found["bounds"][-1])
        bakery.change(change, new=number > 1)
    assert [(pairs, round(bound, 2)) for pairs, bound in bounds] == [(12, 1.73), (17, 2.02), (21, 2.29)]
    bakery.keep({"since": "", "spent": 20})
    found = bakery.judge()  # nobody is refused for what others have tried
    assert (found["attempt"], found["verdict"], found["alpha"]) == (21, "pass", 0.05 / 2**7)


def test_to_break_off_is_an_attempt(bakery: Bakery, monkeypatch: pytest.MonkeyPatch) -> None:
    bakery.forget()
    bakery.change({"mode": "well", "broken": "off"}, new=True)

    async def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("org.ops.fitness.pairs.play", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bakery.judge()
    monkeypatch.undo()
    kept = verdicts.read(bakery.repo, bakery.pinned().merge)
    assert kept is not None
    assert (kept["verdict"], kept["why"], kept["spent"]) == ("inconclusive", "it was interrupted", 1)
    assert leftovers(bakery.layout) == []
    assert bakery.judge()["attempt"] == 2


# -- what cannot be judged


@pytest.mark.parametrize(
    ("mode", "tasks", "said"),
    [
        ("endpoint", TASKS, "cannot be compared with itself: .*the model server failed"),
        ("nan", TASKS, "cannot be compared with itself: current failed at"),
        ("dead", TASKS, "current does not start here"),
        ("well", TASKS.replace("\\b", "never"), "does not fail: .*as good as current"),
    ],
)
def test_a_gate_that_cannot_be_believed_decides_nothing(
    another: list[Bakery], tmp_path: Path, mode: str, tasks: str, said: str
) -> None:
    another.append(Bakery(tmp_path, mode, tasks))
    found = another[0].judged("well")
    assert found["verdict"] == "inconclusive"
    assert re.search(said, found["why"]), found["why"]
    assert leftovers(another[0].layout) == []


def test_what_could_not_be_decided_is_kept_and_told_as_all_else(
    another: list[Bakery], tmp_path: Path
) -> None:
    """A program that takes no tasks, say."""
    another.append(Bakery(tmp_path, "nan"))
    bakery = another[0]
    bakery.change({"note": "1"})
    page = tmp_path / "out.html"
    done = bakery.org("fitness", "--json", "--report", str(page))
    told = json.loads(done.stdout)
    assert (done.returncode, told["verdict"]) == (ExitCode.INCONCLUSIVE, "inconclusive")
    assert [one["gate"] for one in told["findings"]] == ["files", "start", "drain", "probes"]
    assert "`POST /v1/chat/completions`" in told["hint"]
    assert "`pairs = 0`" in told["hint"]
    log = Path(told["hint"].rpartition(" ")[2])
    assert (log.name, log.parent) == ("current.log", place_of(bakery.layout).root)
    assert str(log) in "".join(parsed(page.read_text()).words)
    assert verdicts.read(bakery.repo, bakery.pinned().merge) == {
        name: value for name, value in told.items() if name not in ("v", "code", "reason", "where")
    }
    shown = bakery.org("fitness").stdout.splitlines()
    assert shown[-3].startswith("  tasks are asked by `POST /v1/chat/completions`")
    refused = bakery.org("promote")
    assert (refused.returncode, "current failed at" in refused.stderr) == (ExitCode.INCONCLUSIVE, True)
    assert str(log) in refused.stderr


def test_a_program_may_say_that_it_takes_no_tasks(another: list[Bakery], tmp_path: Path) -> None:
    another.append(Bakery(tmp_path, "nan", budget={"pairs": 0}, more='probes = ["GET /v1/models"]'))
    bakery = another[0]
    found = bakery.judged("half")
    assert (found["verdict"], found["asked"], "pairs" in found) == ("pass", 0, False)
    assert "no tasks were asked" in found["why"]
    assert parsed(report.html(found)).words
    assert bakery.org("promote").returncode == 0
    assert bakery.judged("rude")["verdict"] == "fail"
    refused = bakery.org("fitness", "--self-test")
    assert (refused.returncode, "no tasks are asked here" in refused.stderr) == (ExitCode.USAGE, True)


def test_current_that_does_as_never_before_is_no_measure(another: list[Bakery], tmp_path: Path) -> None:
    """Its scores were known; then what both ask answers nonsense, and ties."""
    another.append(Bakery(tmp_path, "half", budget={"pairs": 60}))
    bakery = another[0]
    found = bakery.judged("half")
    assert found["verdict"] == "pass"
    cache = place_of(bakery.layout).root / "selftest.json"
    kept = json.loads(cache.read_text())
    known = json.loads(kept["known"])
    known["band"] |= {"mean": 0.99, "spread": 0.1}
    cache.write_text(json.dumps(kept | {"known": json.dumps(known)}))
    found = bakery.judged("half")
    assert (found["verdict"], found["why"][:36]) == ("inconclusive", "current itself does as never before:")


def test_what_main_says_has_to_be_trusted(another: list[Bakery], tmp_path: Path) -> None:
    another.append(Bakery(tmp_path))
    assert another[0].org("trust", "--remove").returncode == 0
    with pytest.raises(ConfigError, match="not trusted"):
        another[0].judged("well")


# -- as commands


def test_from_the_first_word_to_a_promote(another: list[Bakery], tmp_path: Path) -> None:
    another.append(Bakery(tmp_path))
    bakery = another[0]
    bakery.change({"mode": "well", "x": "1"})
    page = tmp_path / "out.html"
    told = bakery.org("fitness", "--self-test")
    assert told.returncode == 0, told.stderr
    assert "the gate can be believed" in told.stdout
    judged = bakery.org("fitness", "--report", str(page))
    assert judged.returncode == 0, judged.stderr
    assert "self-test" not in judged.stderr  # that was done
    assert "passes: as good as current" in judged.stdout
    assert page.read_text().startswith("<!doctype html>")
    again = json.loads(bakery.org("fitness", "--json").stdout)
    assert (again["reason"], again["code"], again["attempt"]) == ("pass", 0, 1)
    # Who wants more pairs than it was judged by gets them, once.
    for _ in range(2):
        more = json.loads(bakery.org("fitness", "--pairs", "24", "--json").stdout)
        assert (more["verdict"], more["attempt"], more["asked"], more["planned"]) == ("pass", 2, 24, 33)
    assert json.loads(bakery.org("fitness", "--json").stdout)["attempt"] == 2
    assert bakery.org("fitness", "--pairs", "0").returncode == ExitCode.USAGE
    assert bakery.org("promote").returncode == 0
    assert bakery.org("fitness").returncode == ExitCode.STALE
    bakery.change({"mode": "half"})
    refused = bakery.org("promote")  # runs the gate, which was not run
    assert (refused.returncode, "has failed the gate" in refused.stderr) == (1, True)
    assert bakery.org("fitness", "--json").returncode == 1
    kept = verdicts.read(bakery.repo, bakery.pinned().merge)
    assert kept is not None
    assert (kept["since"], kept["attempt"]) == (bakery.main, 1)
    # As if the gate's own code had changed since: what was said is of another gate.
    bakery.keep(kept | {"verdict": "pass", "inputs": {}})
    assert bakery.org("promote").returncode == 1


def test_protected_files_need_a_word(another: list[Bakery], tmp_path: Path) -> None:
    another.append(Bakery(tmp_path, more='protected = ["rescue/"]', files={"rescue/rollback.py": "x = 1\n"}))
    bakery = another[0]
    bakery.edit({"mode": "well", "y": "1"})
    (bakery.layout.candidate / "rescue" / "rollback.py").unlink()
    bakery.change({})
    done = bakery.org("fitness", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["findings"][0]["passed"]) == (1, False)
    assert "rescue/rollback.py" in found["why"]
    assert bakery.org("promote").returncode == 1
    lifted = bakery.org("fitness", "--allow-protected", "--report", str(tmp_path / "out.html"))
    assert (lifted.returncode, "protection was lifted" in lifted.stdout) == (0, True)
    assert "lifted: `--allow-protected`" in parsed((tmp_path / "out.html").read_text()).words
    kept = verdicts.read(bakery.repo, bakery.pinned().merge)
    assert (kept or {})["allow_protected"] is True
    assert bakery.org("fitness").returncode == 1  # without the word that does not count
    assert bakery.org("promote").returncode == 1
    assert bakery.org("fitness", "--allow-protected").returncode == 0
    assert bakery.org("promote").returncode == 0


def test_a_self_test_takes_no_words_of_a_verdict(another: list[Bakery], tmp_path: Path) -> None:
    another.append(Bakery(tmp_path))
    for words in (("--report", "x.html"), ("--again",), ("--allow-protected",), ("cand/1",)):
        assert another[0].org("fitness", "--self-test", *words).returncode == ExitCode.USAGE
    assert not (another[0].checkout / "x.html").exists()


# -- its own tests


def test_each_test_that_passes_with_current_has_to_pass(another: list[Bakery], tmp_path: Path) -> None:
    """Also when the candidate sees to it that pytest itself ends well."""
    words = ["{python}", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml={report}", "test_it.py"]
    tests = "def test_one():\n    assert open('mode').read().strip() == 'well'\ndef test_two():\n    pass\n"
    another.append(Bakery(tmp_path, more=f"tests = {json.dumps(words)}", files={"test_it.py": tests}))
    bakery = another[0]
    bakery.change({"note": "1"}, new=True)
    found = bakery.judge()
    tested = next(one for one in found["findings"] if one["gate"] == "tests")
    assert (found["verdict"], tested["about"]) == ("pass", "2 tests pass as with current")
    fixed = "import os\ndef pytest_sessionfinish(session, exitstatus):\n    session.exitstatus = 0\n"
    bakery.change({"conftest.py": fixed, "test_it.py": "def test_two():\n    pass\n"}, new=True)
    found = bakery.judge()
    assert found["verdict"] == "fail"
    assert "1 of 2 tests that pass with current do not pass: test_it::test_one" in found["why"]


def test_the_kit_answers_what_it_is_asked() -> None:
    assert fitness_kit.answer("well", "double 21", 0) == "42"


# -- when it is broken off


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_it_nothing_runs_on(
    another: list[Bakery], tmp_path: Path, number: signal.Signals
) -> None:
    another.append(Bakery(tmp_path))
    bakery = another[0]
    bakery.change({"mode": "slow"})
    merge = bakery.pinned().merge
    argv = [sys.executable, "-m", "org", "fitness"]
    null = subprocess.DEVNULL
    judging = subprocess.Popen(argv, cwd=bakery.checkout, env=bakery.env, stdout=null, stderr=null)
    wait_for(lambda: verdicts.read(bakery.repo, merge) is not None)  # the first pair is asked
    judging.send_signal(number)
    assert judging.wait() != 0
    wait_for(lambda: leftovers(bakery.layout) == [])
    assert at_work(bakery) == []
    done = bakery.org("promote")
    assert (done.returncode, "it was interrupted" in done.stderr) == (ExitCode.INCONCLUSIVE, True)


def at_work(bakery: Bakery) -> list[str]:
    """What runs among the files of generations."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.append(os.readlink(process / "cwd"))
    return [folder for folder in found if folder.startswith(str(bakery.layout.generations))]
