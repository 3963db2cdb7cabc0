"""What README, CHANGELOG and docs/ say is so: examples run, and what they name is there."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import org
from engine import Engine
from org.__main__ import VERBS
from org.cli import parsers
from org.commands import COMMANDS
from org.config.files import parse_file
from org.config.schema import KEYS, MEMBER_KEYS
from org.errors import ExitCode
from org.lock import ChannelLock
from org.sandbox.bubblewrap import WORKSPACE

REPO = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"``? ?([^`\n]+?) ?`?`")
HOSTS = {"127.0.0.1", "HOST", "keepachangelog.com", "ollama.com", "semver.org"}


class Block(NamedTuple):
    page: Path
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(page, *found) for found in BLOCK.findall(page.read_text("utf-8"))]


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text("utf-8"))


def spans(page: Path) -> list[str]:
    """What stands between backticks in the text."""
    return SPAN.findall(prose(page))


def in_pages(pattern: str) -> list[tuple[str, str]]:
    """(page, span) for each span of all pages that matches."""
    return [(page.name, span) for page in PAGES for span in spans(page) if re.match(pattern, span)]


def named(page: Path) -> str:
    return str(page.relative_to(REPO))


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


# -- the examples of api.md

API = blocks(REPO / "docs" / "api.md")
EXAMPLES = [block.text for block in API if block.language == "python"]


def example(marker: str) -> dict[str, Any]:
    """The names that the one example with `marker` in it leaves."""
    (source,) = [text for text in EXAMPLES if marker in text]
    names: dict[str, Any] = {}
    exec(compile(source, "api.md", "exec"), names)
    return names


def test_the_first_example_prints_what_stands_behind_it() -> None:
    first, text = API[0], API[1]
    assert (first.language, text.language) == ("python", "text")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", first.text], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, text.text, "")


@pytest.mark.engine
@pytest.mark.sandbox
async def test_the_room_with_models(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = await example("ModelParticipant")["main"](engine.base_url, engine.model, tmp_path)
    assert stopped.reason == "quiet"
    assert "Posted(message=Message(id=2, sender='coder'" in capsys.readouterr().out


async def test_the_room_that_is_kept(tmp_path: Path) -> None:
    say = example("RoomJournal")["say"]
    assert await say(tmp_path / "room", "one") == ["one", "one"]
    assert await say(tmp_path / "room", "two") == ["one", "one", "two", "two"]


@pytest.mark.engine
async def test_the_completion(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    answer = await example("async def ask")["ask"](engine.base_url, engine.model, "What do you do?")
    assert answer.startswith("I only recite")
    assert capsys.readouterr().out == answer


def test_the_calls_in_a_text() -> None:
    names = example("extract_tool_calls")
    assert names["found"].content == "On it. "


async def test_the_lock() -> None:
    lock = ChannelLock("an example")
    await example("ChannelLock")["use"](lock)
    assert not lock.locked


def test_there_is_no_example_that_none_of_these_runs() -> None:
    assert len(EXAMPLES) == 6


# -- what is named is there


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def known() -> Mapping[str, argparse.ArgumentParser]:
    return {verb: parser for verb, (_, parser) in parsers().items() if parser is not None}


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `org ...` in lines of a shell."""
    for line in text.splitlines():
        if found := re.match(r"(?:.*\| )?(?:[A-Z_]+=\S+ )*org(?: (.*))?$", line):
            words = shlex.split(found[1] or "", comments=True)
            yield words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&")), len(words))]


def verb_of(words: list[str]) -> tuple[str, list[str]]:
    """(verb, the rest): without a verb it is `chat`."""
    return (words[0], words[1:]) if words and not words[0].startswith("-") else ("chat", words)


@every_page
def test_command_lines_are_understood(page: Path) -> None:
    for block in blocks(page):
        for words in commands(block.text) if block.language == "sh" else ():
            verb, rest = verb_of(words)
            known()[verb].parse_args(rest)  # raises for what it does not know


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Those of a verb, and of the verbs below it."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options |= {option for inner in action.choices.values() for option in options_of(inner)}
    return options


@every_page
def test_commands_in_the_text_exist(page: Path) -> None:
    for span in spans(page):
        for words in commands(span.replace("…", "")):
            verb, rest = verb_of(words)
            assert verb in VERBS, span
            options = options_of(known()[verb])
            assert {word for word in rest if re.match("--?[a-zA-Z]", word)} <= options, span


def test_options_named_alone_exist() -> None:
    options = {option for parser in known().values() for option in options_of(parser)}
    for page, span in in_pages(r"-{1,2}[a-zA-Z]"):
        assert span.split()[0] in options, (page, span)


def test_slash_commands_exist() -> None:
    folders = ["/tmp", WORKSPACE]
    found = [(page, span) for page, span in in_pages(r"/[a-z]+( |$)") if span not in folders]
    assert {span.split()[0][1:] for _, span in found} <= COMMANDS.keys()
    assert len(found) > 3


def test_settings_exist() -> None:
    names = {key.name for key in KEYS}
    for page, span in in_pages(r"\[[a-z]+\] \w+"):
        table, key = re.findall(r"\w+", span)[:2]
        assert f"{table}.{key}" in names, (page, span)
    for page, span in in_pages(r"\[[a-z]+\]$|[a-z]+\.\*$"):
        tables = {name.split(".")[0] for name in names if "." in name}
        assert re.findall(r"\w+", span)[0] in tables, (page, span)
    leaves = {name.split(".")[-1] for name in names} | {key.name for key in MEMBER_KEYS}
    for page, span in in_pages(r"[a-z]+_(tokens|timeout_s|model)$"):
        assert span in leaves, (page, span)


@every_page
def test_settings_files_are_understood(page: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            assert parse_file(block.text, page.name)


def test_variables_exist() -> None:
    source = "".join(path.read_text("utf-8") for path in (REPO / "src").rglob("*.py"))
    found = in_pages(r"(ORG|OLLAMA|OPENAI)_[A-Z_]+$")
    assert not [(page, name) for page, name in found if name not in source]
    assert len(found) > 5


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_the_tables_of_exit_codes(page: str) -> None:
    rows = re.findall(r"\| (\d+) \| (\w+) (?=\|)", (REPO / page).read_text("utf-8"))
    assert {(int(code), name) for code, name in rows} == {
        (code.value, code.name.lower()) for code in ExitCode
    }


# -- what does not belong there


@every_page
def test_no_page_names_this_machine_or_a_foreign_host(page: Path) -> None:
    text = page.read_text("utf-8")
    assert set(re.findall(r"https?://([\w.]+)", text)) <= HOSTS
    assert str(REPO) not in text
    assert str(Path.home()) not in text


def test_the_picture_stands_alone() -> None:
    text = (REPO / "docs" / "demo.svg").read_text("utf-8")
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()}
    assert tags == {"svg", "rect", "g", "text"}
    assert text.count("://") == 1  # the name of the format
    assert "only recite" in text
    assert str(Path.home()) not in text


# -- the names of the package


def test_the_lazy_names_are_the_public_ones() -> None:
    lazy = [name for names in org._HOMES.values() for name in names]
    assert sorted([*lazy, "__version__"]) == sorted(org.__all__)
    assert sorted(org.__all__) == dir(org)


def test_checkers_are_told_the_same_names() -> None:
    tree = ast.parse(Path(org.__file__).read_text("utf-8"))
    (told,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        node.module: tuple(alias.name for alias in node.names)
        for node in told.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
    }
    assert homes == org._HOMES


@pytest.mark.parametrize("name", org.__all__)
def test_every_name_imports(name: str) -> None:
    value = getattr(org, name)
    if name in org._HOME_OF:
        assert value is getattr(importlib.import_module(org._HOME_OF[name]), name)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'org' has no attribute 'Romm'"):
        org.Romm  # noqa: B018


def test_examples_use_public_names_only() -> None:
    for source in EXAMPLES:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("org"):
                assert {alias.name for alias in node.names} <= {*org.__all__}
