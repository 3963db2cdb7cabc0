"""`org doctor`: what it finds, and the exit code that it makes of it."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cli_kit import Desk, models_server
from engine import Engine
from org.cli.doctor import Finding, Report, as_text
from org.cli.style import Style
from org.errors import ExitCode
from org.sandbox.proof import Probe

HELD = Probe("tcp", "network", True, "connected: Connection refused")
FELL = Probe("home", "files", False, "listed /home\x1b[2J")
WARNING = Finding("models", "warning", "no model server", "start it\nor not")
MISSING = Finding("sandbox", "missing", "`bwrap` is not installed", "`apt-get install bubblewrap`")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    desk = Desk(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("ORG_BASE", "http://127.0.0.1:9/v1")
    return desk


@pytest.fixture
def without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("org.sandbox.bubblewrap.shutil.which", lambda *args, **kwargs: None)


def findings(desk: Desk, section: str) -> list[dict[str, Any]]:
    document = json.loads(desk.org("doctor", "--json").out)
    return [finding for finding in document["findings"] if finding["section"] == section]


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (Report((), (HELD,)), ExitCode.DONE),
        (Report((WARNING,), (HELD,)), ExitCode.DONE),  # of use without a server too
        (Report((WARNING,), (HELD, FELL)), ExitCode.FAILED),
        (Report((MISSING,), ()), ExitCode.ENVIRONMENT),
        (Report((MISSING,), (FELL,)), ExitCode.FAILED),
    ],
)
def test_exit_codes(report: Report, code: ExitCode) -> None:
    assert report.exit_code == code


def test_the_text() -> None:
    place = Finding("sandbox", "warning", "place: local")
    assert as_text(Report((WARNING, place), (HELD, FELL)), Style(False)).splitlines() == [
        "models",
        "  warning no model server",
        "          start it",
        "          or not",
        "",
        "sandbox",
        "  warning place: local",
        "  WALL      KIND     ATTEMPT  WHAT CAME OF IT",
        "  held      network  tcp      connected: Connection refused",
        "  NOT HELD  files    home     listed /home[2J",
        "  1 of 2 attempts got through",
    ]


@pytest.mark.sandbox
def test_all_walls_hold_here(desk: Desk) -> None:
    said = desk.org("doctor", "--sandbox", "bubblewrap")
    assert said.code == ExitCode.DONE, said.out
    assert "place: bubblewrap (flag): commands run in bubblewrap" in said.out
    assert "NOT HELD" not in said.out
    assert re.search(r"all \d+ attempts were held", said.out)
    assert "no model server at http://127.0.0.1:9/v1" in said.out
    assert said.err == ""


@pytest.mark.sandbox
def test_as_json(desk: Desk) -> None:
    document = json.loads(desk.org("doctor", "--json").out)
    assert (document["version"], document["exit_code"]) == (1, 0)
    assert {finding["section"] for finding in document["findings"]} == {
        "models",
        "sandbox",
        "rooms",
        "program",
        "settings",
    }
    assert {"name", "wall", "held", "detail"} == set(document["probes"][0])


def test_a_place_without_walls_is_found_out(desk: Desk) -> None:
    said = desk.org("doctor", "--sandbox", "local")
    assert said.code == ExitCode.FAILED
    assert "without a wall" in said.out
    assert "attempts got through" in said.out


@pytest.mark.usefixtures("without_bubblewrap")
def test_a_missing_sandbox(desk: Desk) -> None:
    for words in ([], ["--sandbox", "bubblewrap"]):
        said = desk.org("doctor", *words)
        assert said.code == ExitCode.ENVIRONMENT
        assert "MISSING" in said.out
        assert "apt-get install bubblewrap" in said.out
        assert "held" not in said.out


@pytest.mark.usefixtures("without_bubblewrap")
def test_the_chosen_model_and_its_context(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with models_server("one") as base:
        monkeypatch.setenv("ORG_BASE", base)
        server, model = findings(desk, "models")
        assert server["text"] == f"{base} (environment ORG_BASE) answers; models: 1"
        assert model["text"].startswith("model: one (the only one), context: ")
        (desk.home.project / "org.toml").write_text("context_tokens = 12345\n")
        assert findings(desk, "models")[1]["text"].endswith("context: 12,345 tokens")
    with models_server("one", "two") as base:
        monkeypatch.setenv("ORG_BASE", base)
        assert findings(desk, "models")[1] | {"hint": ""} == {
            "section": "models",
            "status": "note",
            "text": "no model is chosen",
            "hint": "",
        }
    with models_server(status=401) as base:
        monkeypatch.setenv("ORG_BASE", base)
        (refusal,) = findings(desk, "models")
        assert (refusal["status"], refusal["hint"]) == ("warning", "set the key in ORG_API_KEY")


@pytest.mark.engine
@pytest.mark.usefixtures("without_bubblewrap")
def test_the_context_is_what_the_server_runs_the_model_with(
    desk: Desk, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORG_BASE", engine.base_url)
    with urllib.request.urlopen(engine.base_url.removesuffix("/v1") + "/props") as answer:
        context = json.load(answer)["default_generation_settings"]["n_ctx"]
    text = f"model: {engine.model} (the only one), context: {context:,} tokens"
    assert findings(desk, "models")[1]["text"] == text


@pytest.mark.usefixtures("without_bubblewrap")
def test_a_model_file_needs_no_server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORG_MODEL", "m.gguf")
    assert findings(desk, "models")[0]["text"] == "no such model file: `m.gguf`"
    Path("m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("org.cli.doctor.has_engine", lambda: True)
    assert findings(desk, "models")[0]["status"] == "ok"
    monkeypatch.setattr("org.cli.doctor.has_engine", lambda: False)
    assert findings(desk, "models")[0]["hint"] == "`pipx install --force '.[embedded]'`"
    assert findings(desk, "program")[1]["status"] == "note"


@pytest.mark.usefixtures("without_bubblewrap")
def test_the_folder_of_the_rooms(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    state = desk.home.folder / "state" / "org"
    assert "(made when the first room opens)" in findings(desk, "rooms")[0]["text"]
    assert not state.exists()  # looking changes nothing
    state.mkdir(parents=True)
    state.chmod(0o777)
    kept, others = findings(desk, "rooms")
    assert kept["text"].startswith(f"kept in `{state}`, free on that disk: ")
    assert (others["status"], others["hint"]) == ("warning", f"`chmod go-w {state}`")
    assert os.listdir(state) == []
    (desk.home.folder / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(desk.home.folder / "file"))
    assert findings(desk, "rooms")[0]["status"] == "missing"


@pytest.mark.usefixtures("without_bubblewrap")
def test_what_a_project_asks_for_in_vain_is_a_warning(desk: Desk) -> None:
    (desk.home.project / "org.toml").write_text('[sandbox]\nplace = "local"\n')
    files, warning = findings(desk, "settings")
    assert str(desk.home.project / "org.toml") in files["text"]
    assert warning["status"] == "warning"
    assert "sandbox.place = local" in warning["text"]


@pytest.mark.sandbox
def test_in_a_terminal_it_says_what_it_is_doing(desk: Desk) -> None:
    with desk.home.terminal("doctor") as terminal:
        terminal.wait_for("attacking the sandbox's walls from inside: 0.")
        terminal.wait_for(" attempts were held")
        assert terminal.exit_code() == ExitCode.DONE
