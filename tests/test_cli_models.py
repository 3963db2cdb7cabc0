"""`org models`: the server's list, what is chosen, and the ways out when there is no server."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from cli_kit import Desk, models_server
from org.errors import ExitCode

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_the_chosen_one_is_marked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORG_MODEL", "qwen3")
    with models_server("llama3:8b", "qwen3:latest") as base:
        assert desk.org("models", "--base", base).out.splitlines() == [
            f"{base} (flag): 2 models",
            "  llama3:8b",
            "* qwen3:latest",
            "",
            "chosen: qwen3 (from environment ORG_MODEL)",
        ]


def test_the_only_one_is_taken(desk: Desk) -> None:
    with models_server("llama3:8b") as base:
        assert desk.org("models", "--base", base).out.endswith("chosen: llama3:8b (the only one)\n")


def test_several_and_none_chosen(desk: Desk) -> None:
    with models_server("a", "b") as base:
        out = desk.org("models", "--base", base).out
    assert "*" not in out
    assert "none is chosen: take one with `-m NAME`" in out


def test_a_choice_that_the_server_does_not_list(desk: Desk) -> None:
    (desk.home.project / "org.toml").write_text('model = "gone"\n')
    with models_server("a", "b") as base:
        out = desk.org("models", "--base", base).out
    assert f"chosen: gone (from {desk.home.project / 'org.toml'}; this server does not list it)" in out


def test_a_model_file_need_not_be_listed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORG_MODEL", "./m.gguf")
    with models_server("a") as base:
        assert "chosen: ./m.gguf (from environment ORG_MODEL)\n" in desk.org("models", "--base", base).out


def test_a_server_without_models(desk: Desk) -> None:
    with models_server() as base:
        assert "`ollama pull " in desk.org("models", "--base", base).out


def test_as_json(desk: Desk) -> None:
    with models_server("a", "b") as base:
        document = json.loads(desk.org("models", "--json", "--base", base).out)
    assert document.pop("why")
    assert document == {
        "version": 1,
        "base": base,
        "base_source": "flag",
        "models": ["a", "b"],
        "chosen": None,
    }


def test_names_cannot_drive_the_terminal(desk: Desk) -> None:
    with models_server("a\x1b[2J", "b") as base:
        assert "\x1b" not in desk.org("models", "--base", base).out


def test_without_a_server_it_says_what_it_tried_and_the_ways_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    said = desk.org("models")
    assert (said.code, said.out) == (ExitCode.ENVIRONMENT, "")
    assert f"no model server at {NOBODY}" in said.err
    assert "(from environment OLLAMA_HOST)" in said.err
    for way in ("`ollama serve`", "`ollama pull ", "ORG_BASE", "`-m ./model.gguf`"):
        assert way in said.err


@pytest.mark.parametrize("engine", [True, False])
def test_a_missing_engine_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch, engine: bool) -> None:
    monkeypatch.setattr("org.cli.choose.has_engine", lambda: engine)
    assert ("pipx install --force '.[embedded]'" in desk.org("models", "--base", NOBODY).err) is not engine


def test_a_server_that_refuses(desk: Desk) -> None:
    with models_server(status=401) as base:
        said = desk.org("models", "--base", base)
    assert said.code == ExitCode.FAILED
    assert "ORG_API_KEY" in said.err


def test_a_server_that_says_nothing_is_not_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("org.compose.servers.ANSWER_PROBE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = desk.org("models", "--base", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
    assert said.code == ExitCode.ENVIRONMENT
    assert "within 0.05 s" in said.err
    assert "`ollama serve`" in said.err
