"""The house rules that a machine checks, and that each of them fails when it is broken."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shape

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
MODULES = shape.load_tree(SOURCE)


# -- the rules hold


@pytest.mark.parametrize("check", shape.CHECKS, ids=lambda check: str(check.__name__))
def test_the_rule_holds_everywhere(check: shape.Check) -> None:
    assert [wrong for name, tree in MODULES.items() for wrong in check(name, tree)] == []


def test_no_module_imports_itself_through_others() -> None:
    assert shape.cycles(MODULES) == []


def test_the_floors_hold(tmp_path: Path) -> None:
    result = lint_imports(SOURCE)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", [*shape.PURE, "org.errors", "org.cli", "org.ops", "org.tools.driver"])
def test_what_the_rules_name_exists(name: str) -> None:
    assert name in MODULES


# -- each rule fails when it is broken


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (shape.imports_in_functions, "org.chat.room", "def f():\n    import org.errors"),
        (shape.imports_in_functions, "org.chat.room", "def f():\n    from org.errors import OrgError"),
        (shape.imports_in_functions, "org.chat.room", "async def f():\n    from . import loop"),
        (shape.imports_in_functions, "org.chat.room", "def f(n):\n    return importlib.import_module(n)"),
        (shape.imports_in_functions, "org.cli.chat", "class A:\n    def f(self):\n        import org.chat"),
        (shape.printing, "org.chat.room", "print(1)"),
        (shape.printing, "org.config.load", "def f():\n    print()"),
        (shape.broad_except, "org.chat.room", "try:\n    f()\nexcept:\n    pass"),
        (shape.broad_except, "org.chat.room", "try:\n    f()\nexcept Exception as error:\n    log(error)"),
        (
            shape.broad_except,
            "org.chat.room",
            "try:\n    f()\nexcept (OSError, builtins.BaseException):\n    g()",
        ),
        (
            shape.broad_except,
            "org.cli.chat",
            "try:\n    f()\nexcept BaseException as e:\n    raise SystemExit from e",
        ),
        (shape.purity, "org.llm.sse", "async def f():\n    pass"),
        (shape.purity, "org.llm.extract.stream", "from time import monotonic"),
        (shape.purity, "org.chat.routing", "import os.path"),
        (shape.purity, "org.chat.routing", "def f():\n    import random"),
        (shape.purity, "org.transcript", "datetime.now(UTC)"),
        (shape.purity, "org.messages", "open('x')"),
        (shape.purity, "org.new", '"""Something new. Pure."""\nimport socket'),
        (shape.rescue_needs_nothing, "org.ops.git", "from org.messages import Message"),
        (shape.rescue_needs_nothing, "org.ops.git", "def f():\n    import org.config"),
        (shape.rescue_needs_nothing, "org.ops", "import httptools"),
        (shape.rescue_needs_nothing, "org.__main__", "from org.cli import chat"),
        (shape.rescue_needs_nothing, "org.__main__", "import numpy"),
    ],
)
def test_a_broken_rule_is_seen(check: shape.Check, name: str, text: str) -> None:
    assert len(check(name, ast.parse(text))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("org.cli", "def f(verb):\n    return importlib.import_module(f'org.cli.{verb}')"),
        ("org", "def __getattr__(name):\n    from org.ports import Sandbox"),
        ("org.__main__", "import sys\nfrom org.errors import OrgError\ndef f():\n    import org.cli.chat"),
        ("org.__main__", "try:\n    f()\nexcept Exception as error:\n    print(error)"),
        ("org.cli.chat", "print(1)"),
        ("org.chat.room", "try:\n    f()\nexcept BaseException:\n    g()\n    raise"),
        ("org.chat.room", "import time, asyncio\nasync def f():\n    await g()"),
        ("org.llm.sse", "from datetime import UTC\nimport json, re"),
        ("org.ops.git", "import subprocess\nfrom org.errors import Busy\nfrom org.ops.steps import Step"),
    ],
)
def test_what_is_allowed_passes(name: str, text: str) -> None:
    assert [wrong for check in shape.CHECKS for wrong in check(name, ast.parse(text))] == []


@pytest.mark.parametrize(
    "texts",
    [
        {"org.a": "from org.b import f", "org.b": "import org.a"},
        {"org.a": "from org import b", "org.b": "from org import c", "org.c": "from org.a import f"},
        {"org.a": "if TYPE_CHECKING:\n    from org.b import B", "org.b": "from .a import f"},
    ],
)
def test_a_cycle_is_seen(texts: dict[str, str]) -> None:
    modules = {name: ast.parse(text) for name, text in {"org": "", "org.d": "import org.a", **texts}.items()}
    assert shape.cycles(modules) == [sorted(texts)]


def test_what_is_imported_late_makes_no_cycle() -> None:
    texts = {"org.a": "import org.b", "org.b": "def f():\n    import org.a"}
    assert shape.cycles({name: ast.parse(text) for name, text in texts.items()}) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("chat/guards.py", "from org import llm"),  # siblings are blind to each other
        ("journal/store.py", "from org.chat import routing"),
        ("config/load.py", "import org.sandbox"),
        ("chat/guards.py", "import org.cli"),  # nobody imports a verb
        ("ports.py", "import org.chat"),  # downwards only
        ("messages.py", "import org.events"),
        ("events.py", "import org.encoding"),
        ("tooling.py", "import org.messages"),
        ("errors.py", "import org.tooling"),
        ("ops/__init__.py", "import org.config"),  # beside the tower
        ("ops/__init__.py", "import org.messages"),
        ("chat/guards.py", "import org.ops"),
        ("aside.py", ""),  # a module without a floor
    ],
)
def test_a_broken_floor_is_seen(tmp_path: Path, module: str, text: str) -> None:
    shutil.copytree(SOURCE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "org" / module).open("a") as file:
        file.write(f"\n{text}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout


def lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    """The import contracts of pyproject.toml, checked on the package below `source`."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"],
        env={**os.environ, "PYTHONPATH": str(source)},
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
