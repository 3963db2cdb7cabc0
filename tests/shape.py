"""The checks of the code's shape: each takes a module's name and its syntax tree, and names what is wrong."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

Check: TypeAlias = Callable[[str, ast.Module], list[str]]

# Where something is printed. The rescue path has an edge of its own, since it may import nothing else.
RENDERERS = ("org.cli", "org.__main__", "org.ops.cli", "org.ops.__main__")
# Where a process ends: what nobody expected becomes a message and an exit code here, and nowhere else.
PROCESS_EDGES = ("org.__main__", "org.ops.__main__", "org.tools.driver", "org.sandbox.vm.warm")
# The verb table, the lazy exports of the root, and the full screen, which plain rooms never read.
LAZY = ("org", "org.__main__", "org.ops.__main__", "org.cli", "org.tui")
# May import the standard library and `org.errors`, so that a rescue needs nothing that may be broken.
RESCUE = ("org.ops", "org.__main__")

PURE = (
    "org.chat.context",
    "org.chat.flow",
    "org.chat.guards",
    "org.chat.present",
    "org.chat.routing",
    "org.encoding",
    "org.events",
    "org.llm.assemble",
    "org.llm.extract",
    "org.llm.sse",
    "org.llm.wire",
    "org.messages",
    "org.serve.completions",
    "org.serve.dialogue",
    "org.tooling",
    "org.tools.clip",
    "org.transcript",
    "org.wording",
)
IMPURE_IMPORTS = frozenset(
    {
        *("asyncio", "multiprocessing", "signal", "subprocess", "threading"),
        *("fcntl", "glob", "io", "logging", "os", "pathlib", "shutil", "sqlite3", "tempfile"),
        *("http", "select", "selectors", "socket", "ssl", "urllib.request"),
        *("random", "secrets", "time", "uuid"),
    }
)
IMPURE_CALLS = frozenset({"open", "input", "print", "now", "utcnow", "today"})

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Import(NamedTuple):
    """An imported module as written (`from a import b` names `a.b`), and whether in a function."""

    target: str
    line: int
    in_function: bool


def load_tree(source: Path) -> dict[str, ast.Module]:
    """Every module below `source` by its dotted name, a package by its own."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def imports(name: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of a module, relative ones resolved as in a plain module, dynamic ones with a
    constant name among them."""
    for node, in_function in _walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno, in_function)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join(name.split(".")[:-level]) if level else ""
                prefix = ".".join(part for part in (base, module) if part)
                for alias in names:
                    yield Import(f"{prefix}.{alias.name}", node.lineno, in_function)
            case ast.Call(func=function) if _called(function) in ("import_module", "__import__"):
                argument = node.args[0] if node.args else None
                constant = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                # A name that is computed could be any module of ours.
                target = argument.value if constant else "org"  # type: ignore[union-attr]
                yield Import(str(target), node.lineno, in_function)


def _walk(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(tree):
        yield child, in_function
        yield from _walk(child, in_function or isinstance(child, FUNCTIONS))


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


# -- the checks


def imports_in_functions(name: str, tree: ast.Module) -> list[str]:
    """Modules of ours are imported at the top, but for the lazy tables."""
    if name in LAZY:
        return []
    return [
        f"{name}:{found.line}: imports {found.target} inside a function"
        for found in imports(name, tree)
        if found.in_function and within(found.target, ["org"])
    ]


def printing(name: str, tree: ast.Module) -> list[str]:
    """Only renderers print."""
    if within(name, RENDERERS):
        return []
    return [
        f"{name}:{node.lineno}: prints"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def broad_except(name: str, tree: ast.Module) -> list[str]:
    """Nothing unexpected is swallowed but at a process edge. To tidy up and raise again is no swallowing."""
    if name in PROCESS_EDGES:
        return []
    return [
        f"{name}:{node.lineno}: catches everything"
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _raises_again(node)
    ]


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(element) for element in caught.elts)
    return caught is None or (
        isinstance(caught, ast.Name | ast.Attribute) and _called(caught) in ("Exception", "BaseException")
    )


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def purity(name: str, tree: ast.Module) -> list[str]:
    """A module that says so, or is listed, has no I/O, clock, chance or await."""
    if not within(name, PURE) and not _says_pure(tree):
        return []
    wrong = [
        f"{name}:{found.line}: pure, but imports {found.target}"
        for found in imports(name, tree)
        if within(found.target, IMPURE_IMPORTS)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            wrong.append(f"{name}:{node.lineno}: pure, but asynchronous")
        elif isinstance(node, ast.Call) and _called(node.func) in IMPURE_CALLS:
            wrong.append(f"{name}:{node.lineno}: pure, but calls {_called(node.func)}()")
    return wrong


def _says_pure(tree: ast.Module) -> bool:
    return re.search(r"\bPure[.:,;]", ast.get_docstring(tree) or "") is not None


def rescue_needs_nothing(name: str, tree: ast.Module) -> list[str]:
    """The entry and `ops` import the standard library and `org.errors` on their way in."""
    if not within(name, RESCUE):
        return []
    return [
        f"{name}:{found.line}: imports {found.target}"
        for found in imports(name, tree)
        if not (found.in_function and name in LAZY)
        and not within(found.target, ["org.errors", "org.ops", "org.__version__"])
        and found.target.split(".")[0] not in sys.stdlib_module_names
    ]


CHECKS: tuple[Check, ...] = (imports_in_functions, printing, broad_except, purity, rescue_needs_nothing)


def cycles(modules: Mapping[str, ast.Module]) -> list[list[str]]:
    """Groups of modules that import one another on the way in, imports for types only included.

    A package that gathers what its modules define does not count as imported by `from package import
    module`; that names the module.
    """
    graph = {
        name: {_module_of(found.target, modules) for found in imports(name, tree) if not found.in_function}
        - {"", name}
        for name, tree in modules.items()
    }
    order: list[str] = []
    seen: set[str] = set()
    for name in graph:
        order += _postorder(name, graph, seen)
    backward: dict[str, set[str]] = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            backward[target].add(name)
    seen = set()
    groups = [_postorder(name, backward, seen) for name in reversed(order)]
    return [sorted(group) for group in groups if len(group) > 1]


def _module_of(target: str, modules: Mapping[str, ast.Module]) -> str:
    """The module of ours that an imported name means, or nothing."""
    if target in modules:
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in modules else ""


def _postorder(name: str, graph: Mapping[str, set[str]], seen: set[str]) -> list[str]:
    if name in seen:
        return []
    seen.add(name)
    order = []
    for target in sorted(graph[name]):
        order += _postorder(target, graph, seen)
    return [*order, name]
