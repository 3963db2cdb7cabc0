from pathlib import Path

import pytest

from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.local import Local
from org.tooling import ToolCall, ToolResult
from org.tools.python_run import python_run


async def run(tmp_path: Path, code: str, **more: object) -> ToolResult:
    place = Local(tmp_path, unsafe=True)
    return await python_run(place).run(ToolCall("7", "python_run", {"code": code, **more}), lambda _: None)


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2\n"),
        ("x = 3\nx * 2", "6\n"),
        ("x = 3", ""),
        ("None", ""),
        ("'text'", "'text'\n"),
        ("print('a')\n[1, 'ü']", "a\n[1, 'ü']\n"),
        ("print('a')", "a\n"),
        ("import sys\nrepr(sys.stdin.read())", "\"''\"\n"),
        ("__name__", "'__main__'\n"),
        ("", ""),
        ("# only a comment", ""),
        ("import sys\nsys.argv", "['-c']\n"),
        ("print('\\ud800')", "\\ud800\n"),
        ("dir()", "['__builtins__', '__doc__', '__loader__', '__name__', '__package__', '__spec__']\n"),
        ("if __name__ == '__main__':\n    print('main')\n", "main\n"),
        ("import os\nos.listdir()", "[]\n"),
        (
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass A:\n    x: int\nA(1)",
            "A(x=1)\n",
        ),
        ("import pickle\nclass A: pass\ntype(pickle.loads(pickle.dumps(A()))) is A", "True\n"),
        ("import sys\n'site' in sys.modules", "False\n"),
    ],
)
async def test_what_it_shows(tmp_path: Path, code: str, output: str) -> None:
    result = await run(tmp_path, code)
    assert (result.output, result.error, result.exit_code) == (output, None, 0)


async def test_a_traceback_has_the_code_s_lines_and_no_others(tmp_path: Path) -> None:
    result = await run(tmp_path, "def half(x):\n    return x / 0  # here\n\nhalf(3)")
    assert "line 4, in <module>\n    half(3)" in result.output
    assert "line 2, in half\n    return x / 0  # here" in result.output
    assert result.output.endswith("ZeroDivisionError: division by zero\n[exit code 1]")
    assert result.output.count("File ") == 2
    assert result.error is not None and result.error.kind == "failed"


async def test_a_chain_of_errors_too(tmp_path: Path) -> None:
    code = "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('b')"
    output = (await run(tmp_path, code)).output
    assert "{}['a']" in output
    assert "raise ValueError('b')" in output
    assert output.count("File ") == 2


async def test_a_syntax_error(tmp_path: Path) -> None:
    output = (await run(tmp_path, "print('a')\nprint('b'")).output
    assert output.startswith("  File \"<code>\", line 2\n    print('b'\n")
    assert "SyntaxError" in output
    assert "driver" not in output


@pytest.mark.parametrize(
    ("code", "exit_code", "output"),
    [
        ("raise SystemExit(4)", 4, "[exit code 4]"),
        ("import sys\nsys.exit('sorry')", 1, "sorry\n[exit code 1]"),
        ("import os\nos.abort()", -6, "[killed by SIGABRT]"),
        ("raise SystemExit", 0, ""),
    ],
)
async def test_exits(tmp_path: Path, code: str, exit_code: int, output: str) -> None:
    result = await run(tmp_path, code)
    assert (result.exit_code, result.output) == (exit_code, output)


async def test_what_was_printed_before_a_timeout_is_kept(tmp_path: Path) -> None:
    result = await run(tmp_path, "print('so far')\nwhile True: pass", timeout_s=2)
    assert result.output.startswith("so far\n[timed out after 2 s")


async def test_code_longer_than_an_argument_may_be(tmp_path: Path) -> None:
    code = "x = 0\n" + "x += 1  # padding padding padding\n" * 10_000 + "x"
    assert (await run(tmp_path, code)).output == "10000\n"


async def test_nothing_stays(tmp_path: Path) -> None:
    await run(tmp_path, "open('made', 'w').write('x')")
    assert list(tmp_path.iterdir()) == []


async def test_bad_arguments(tmp_path: Path) -> None:
    result = await run(tmp_path, "1", timeout="3")
    assert result.output == (
        "`timeout` is no argument of python_run; expected python_run(code: string, timeout_s?: number)"
    )


@pytest.mark.sandbox
async def test_within_bubblewrap(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    code = "import os\nopen('made', 'w').close()\nos.getcwd(), os.listdir()"
    result = await python_run(Bubblewrap(tmp_path)).run(ToolCall("7", "python_run", {"code": code}), print)
    assert result.output == "('/workspace', ['made'])\n"
