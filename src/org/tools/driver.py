"""Runs the Python code on standard input as an interactive session would: in `__main__`, the value
of a last bare expression shown, tracebacks with the code's own lines and nothing of this file.

This is a program for the sandbox, never imported. It reads its input to the end before the code
starts, so that the code finds an empty standard input.
"""

import ast
import linecache
import sys
import traceback
import types

_NAME = "<code>"


def _shown(tree: ast.Module) -> ast.Module:
    """The same code, a last bare expression handed to `sys.displayhook`."""
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body[-1]
        hook = ast.parse("__import__('sys').displayhook", mode="eval").body
        for node in ast.walk(hook):
            ast.copy_location(node, last.value)
        last.value = ast.copy_location(ast.Call(hook, [last.value], []), last.value)
    return tree


def _run(source: str, module: types.ModuleType) -> int:
    linecache.cache[_NAME] = (len(source), None, source.splitlines(keepends=True), _NAME)
    try:
        exec(compile(_shown(ast.parse(source, _NAME)), _NAME, "exec"), module.__dict__)
    except Exception as error:  # noqa: BLE001 -- the edge of this process
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename != _NAME:
            frames = frames.tb_next
        traceback.print_exception(error.with_traceback(frames))
        return 1
    return 0


if __name__ == "__main__":
    # Each line goes out at once: what was printed before a timeout is not lost.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    code = sys.stdin.buffer.read().decode()
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.exit(_run(code, sys.modules["__main__"]))
