"""The rescue path stands on its own: with every other module broken, what was promoted is rolled back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import org
from ops_kit import Shop

SOURCE = Path(org.__file__).parent
NEEDED = ("__init__.py", "__main__.py", "errors.py")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the whole program in which every module but the rescue path is no Python."""
    copy = tmp_path / "broken"
    shutil.copytree(SOURCE, copy / "org", ignore=shutil.ignore_patterns("__pycache__"))
    for module in (copy / "org").rglob("*.py"):
        name = str(module.relative_to(copy / "org"))
        if name not in NEEDED and not name.startswith("ops/"):
            module.write_text("def broken(:\n")
    return copy


def run(shop: Shop, broken: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", *words],
        cwd=shop.checkout,
        env=shop.env | {"PYTHONPATH": str(broken)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("entry", ["org", "org.ops"])
def test_with_everything_else_broken_it_rolls_back(tmp_path: Path, broken: Path, entry: str) -> None:
    shop = Shop(tmp_path / "user")
    shop.change({"menu.txt": "poison\n"})
    shop.promote()
    assert run(shop, broken, "-m", entry, "chat").returncode != 0  # it is broken indeed
    for words in (["history"], ["rollback"], ["recover"], ["history", "--json"], ["candidate", "diff"]):
        done = run(shop, broken, "-m", entry, *words)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert shop.files() == {"menu.txt": "tea\n"}
    again = run(shop, broken, "-m", entry, "rollback")
    assert again.returncode == 1
    assert again.stderr == "org: there is no promote to roll back\n     `org history` tells what was done\n"


def test_with_the_gate_broken_too_all_but_what_judges_goes(tmp_path: Path, broken: Path) -> None:
    shop = Shop(tmp_path / "user")
    shop.change({"menu.txt": "poison\n"})
    shop.promote()
    for module in (broken / "org/ops/fitness").glob("*.py"):
        module.write_text("def broken(:\n")
    for words in (
        ["status"],
        ["rollback"],
        ["history"],
        ["recover"],
        ["candidate", "edit"],
        ["candidate", "diff"],
    ):
        done = run(shop, broken, "-m", "org.ops", *words, "--json")
        assert (done.returncode, done.stderr) == (0, ""), words
    for words in (["start", "current"], ["stop", "current"], ["logs"]):
        assert "SyntaxError" not in run(shop, broken, "-m", "org.ops", *words).stderr, words
    assert shop.files() == {"menu.txt": "tea\n"}


def test_it_imports_the_standard_library_and_errors_alone(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.change({"a": "1"})
    shop.promote()
    program = (
        "import sys; before = set(sys.modules)\n"
        "from org.__main__ import main; main(['rollback'])\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "ours = {name for name in sys.modules if name.startswith('org.') and name[:7] != 'org.ops'}\n"
        "print(new, sorted(ours), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=shop.checkout, env=shop.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "{'org'} ['org.__main__', 'org.errors']\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["chat"]])
def test_without_a_verb_of_its_own_it_names_them(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "org.ops", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "rollback" in done.stderr
