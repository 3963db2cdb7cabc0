"""The rules for a machine of another program; that they hold is tried in a machine (`test_vm_install.py`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cli_kit import Desk
from org.errors import ExitCode, UsageError
from org.sandbox.harden import rules, script


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_everything_is_denied_before_something_is_allowed_and_enabled_last() -> None:
    found = rules("10.0.2.2", 11434, "10.0.0.0/8")
    assert found[0] == "ufw --force reset"
    assert found[-1] == "ufw --force enable"
    assert [line for line in found if " allow " in line] == [
        "ufw allow out to 10.0.2.2 port 11434 proto tcp",
        "ufw allow in from 10.0.0.0/8 to any port 22 proto tcp",
    ]
    denied = [found.index(f"ufw default deny {way}") for way in ("incoming", "outgoing", "routed")]
    assert max(denied) < found.index("ufw allow out to 10.0.2.2 port 11434 proto tcp")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_model_server_in_the_machine_itself_needs_no_way_out(host: str) -> None:
    assert not [line for line in rules(host, 11434) if " allow " in line]


def test_an_address_of_the_other_kind() -> None:
    assert "ufw allow out to fd00::2 port 80 proto tcp" in rules("fd00:0::2", 80)


@pytest.mark.parametrize(
    ("host", "port", "ssh"),
    [
        ("example.org", 80, ""),
        ("", 80, ""),
        ("10.0.2.2; reboot", 80, ""),
        ("10.0.2.2", 0, ""),
        ("10.0.2.2", 65536, ""),
        ("10.0.2.2", 80, "any"),
        ("10.0.2.2", 80, "10.0.2.2/8"),
        ("10.0.2.2", 80, "$(reboot)"),
    ],
)
def test_what_is_no_address_never_becomes_a_rule(host: str, port: int, ssh: str) -> None:
    with pytest.raises(UsageError):
        rules(host, port, ssh)


def test_the_script_is_one_that_a_shell_reads() -> None:
    text = script(rules("10.0.2.2", 11434))
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    assert "set -e\n" in text


def test_it_is_printed_and_nothing_is_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORG_BASE", "http://10.0.2.2:8080/v1")
    assert desk.org("vm", "harden", "--print").out == script(rules("10.0.2.2", 8080))
    given = desk.org("vm", "harden", "--print", "--model", "[fd00::2]:80", "--ssh", "10.1.0.0/16")
    assert given.out == script(rules("fd00::2", 80, "10.1.0.0/16"))


@pytest.mark.parametrize(
    "words",
    [(), ("--print", "--model", "10.0.2.2"), ("--print", "--model", "10.0.2.2:x"), ("--print", "--ssh", "x")],
)
def test_what_cannot_be_printed_is_refused(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.org("vm", "harden", *words).code == ExitCode.USAGE
