"""`org doctor`: what it finds, and the exit code that it makes of it."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cli_kit import Desk, models_server
from engine import Engine
from org.cli import doctor
from org.cli.doctor import Finding, Report, as_text
from org.cli.style import Style
from org.config import load
from org.errors import ExitCode
from org.sandbox.proof import Probe, Proof, Reached, attempts
from org.sandbox.proof.attempts import Attempt
from vm_kit import free_port

HELD = Probe("tcp", "network", "TCP 127.0.0.1 port 7", "held", "Connection refused")
FELL = Probe("home", "files", "list your home", "fell", "listed /home\x1b[2J")
OPEN = Probe("pull", "relay", "POST /api/pull", "inconclusive", "control not reached: model")
FAILED = Finding(
    "sandbox", "failed", 'sandbox.require = "vm" (user): no machine is up', "`org vm up` starts one"
)
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
    ("findings", "probes", "code"),
    [
        ((), (HELD,), ExitCode.DONE),
        ((WARNING,), (HELD,), ExitCode.DONE),
        ((WARNING,), (HELD, OPEN), ExitCode.INCONCLUSIVE),
        ((WARNING,), (HELD, OPEN, FELL), ExitCode.FAILED),
        ((MISSING,), (), ExitCode.ENVIRONMENT),
        ((MISSING,), (OPEN,), ExitCode.ENVIRONMENT),
        ((MISSING,), (FELL,), ExitCode.FAILED),
        ((FAILED,), (), ExitCode.FAILED),
        ((MISSING, FAILED), (HELD,), ExitCode.FAILED),
    ],
)
def test_exit_codes(findings: tuple[Finding, ...], probes: tuple[Probe, ...], code: ExitCode) -> None:
    assert Report(findings, Proof(probes)).exit_code == code


def test_the_text() -> None:
    place = Finding("sandbox", "warning", "place: vm")
    controls = (
        Reached("tcp", "a listener in there", True, "connected"),
        Reached("model", "GET", False, "502"),
    )
    proof = Proof((HELD, OPEN, FELL), controls, ("TCG", "seccomp"))
    assert as_text(Report((WARNING, place), proof), Style(False)).splitlines() == [
        "models",
        "  warning no model server",
        "          start it",
        "          or not",
        "",
        "sandbox",
        "  warning place: vm",
        "  OUTCOME   WALL   ATTEMPT  TRIED           ANSWER",
        "  NOT HELD  files  home     list your home  listed /home[2J",
        "  UNKNOWN   relay  pull     POST /api/pull  control not reached: model",
        "",
        "  control model not reached: GET: 502",
        "",
        "  WALL     VERDICT   HELD    FOR ONE",
        "  files    NOT HELD  0 of 1  list your home: listed /home[2J",
        "  relay    UNKNOWN   0 of 1  POST /api/pull: control not reached: model",
        "  network  held      1 of 1  TCP 127.0.0.1 port 7: Connection refused",
        "  1 of 3 attempts got through",
        "  walls that stand: TCG + seccomp",
    ]


def test_the_text_of_every_attempt() -> None:
    place = Finding("sandbox", "ok", "place: vm")
    proof = Proof((HELD,), (Reached("tcp", "a listener in there", True, "connected"),), ("KVM",))
    assert as_text(Report((place,), proof), Style(False), every=True).splitlines() == [
        "sandbox",
        "  ok      place: vm",
        "  OUTCOME  WALL     ATTEMPT  TRIED                 ANSWER",
        "  held     network  tcp      TCP 127.0.0.1 port 7  Connection refused",
        "",
        "  control tcp: a listener in there: connected",
        "",
        "  WALL     VERDICT  HELD    FOR ONE",
        "  network  held     1 of 1  TCP 127.0.0.1 port 7: Connection refused",
        "  all 1 attempts were held",
        "  walls that stand: KVM",
    ]


@pytest.mark.sandbox
def test_all_walls_hold_here(desk: Desk) -> None:
    with models_server("one") as base:
        said = desk.org("doctor", "--sandbox", "bubblewrap", "--base", base)
    assert said.code == ExitCode.DONE, said.out
    assert "place: bubblewrap (flag): commands run in bubblewrap" in said.out
    assert "NOT HELD" not in said.out
    assert re.search(r"all \d+ attempts were held", said.out)
    assert "walls that stand: namespaces + seccomp + no privileges + limits" in said.out
    assert said.err == ""


@pytest.mark.sandbox
def test_without_a_model_server_the_walls_are_tried_all_the_same(desk: Desk) -> None:
    said = desk.org("doctor", "--sandbox", "bubblewrap")
    assert said.code == ExitCode.ENVIRONMENT
    assert "MISSING no model server at http://127.0.0.1:9/v1" in said.out
    assert re.search(r"all \d+ attempts were held", said.out)


@pytest.mark.sandbox
def test_as_json(desk: Desk) -> None:
    document = json.loads(desk.org("doctor", "--json").out)
    assert (document["version"], document["exit_code"]) == (1, 7)
    assert {finding["section"] for finding in document["findings"]} == {
        "models",
        "sandbox",
        "rooms",
        "program",
        "settings",
    }
    assert {"name", "wall", "tried", "outcome", "held", "detail", "seconds"} == set(document["probes"][0])
    assert {control["name"] for control in document["controls"]} == {"tcp", "udp", "unix"}
    assert set(document["verdicts"].values()) == {"held"}
    assert document["stands"] == ["namespaces", "seccomp", "no privileges", "limits"]


def test_a_place_without_walls_is_found_out(desk: Desk) -> None:
    said = desk.org("doctor", "--sandbox", "local")
    assert said.code == ExitCode.FAILED
    assert "without a wall" in said.out
    assert "attempts got through" in said.out
    assert "walls that stand: none" in said.out


@pytest.mark.parametrize("words", [[], ["--sandbox", "vm"], ["--sandbox", "bubblewrap"]])
def test_a_machine_that_is_required_and_not_up_is_a_failure(desk: Desk, words: list[str]) -> None:
    desk.home.user_settings('[sandbox]\nrequire = "vm"')
    said = desk.org("doctor", *words)
    assert said.code == ExitCode.FAILED
    assert re.search(r'FAILED  sandbox\.require = "vm" \(.*\): .*machine', said.out)


def test_a_machine_that_is_only_wished_for_is_missing(desk: Desk) -> None:
    said = desk.org("doctor", "--sandbox", "vm")
    assert said.code == ExitCode.ENVIRONMENT
    assert "MISSING no machine is up" in said.out


@pytest.mark.usefixtures("without_bubblewrap")
def test_a_sandbox_that_is_required_and_missing_is_a_failure(desk: Desk) -> None:
    desk.home.user_settings("[sandbox]\nrequire = true")
    said = desk.org("doctor")
    assert said.code == ExitCode.FAILED
    assert "FAILED  sandbox.require = true" in said.out


def test_from_inside_of_a_virtual_machine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    aim = {"host": "127.0.0.1", "port": free_port()}
    other = Attempt("other", "network", "TCP elsewhere", "tcp", aim, "model")
    monkeypatch.setattr(attempts, "inside", lambda *given: [other])
    with models_server("one") as base:
        said = desk.org("doctor", "--inside", "--base", base)
        assert said.code == ExitCode.DONE, said.out
        assert f"only {base} may be reached" in said.out
        assert "all 1 attempts were held" in said.out
        with socket.create_server((aim["host"], aim["port"])):
            said = desk.org("doctor", "--inside", "--base", base)
    assert said.code == ExitCode.FAILED
    assert "NOT HELD  network  other" in said.out
    assert "org vm harden --print" in said.out


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
        assert terminal.exit_code() == ExitCode.ENVIRONMENT


def test_a_machine_that_reaches_another_server_is_told(desk: Desk) -> None:
    settings = load(cwd=desk.home.project, flags={"base": "https://there"}, env=desk.home.env)
    told = list(doctor._relayed(settings, "http://there:80/v1"))
    assert [(one.status, one.text) for one in told] == [
        ("note", "the machine reaches http://there/v1, rooms ask https://there/v1")
    ]
    assert list(doctor._relayed(settings, "https://there:443/v1")) == []
    assert list(doctor._relayed(settings, "")) == []
