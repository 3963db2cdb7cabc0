import os
import resource
import subprocess

import pytest

from org.sandbox.limits import Limits, limited, within

SH = os.path.realpath("/bin/sh")
LIMITS = Limits(processes=77, memory=1024**3, file_size=1024**2, cpu_s=99)
SHOW = "import resource as r; print([r.getrlimit(getattr(r, 'RLIMIT_' + n)) for n in {}])"
NAMES = ("CORE", "AS", "FSIZE", "CPU")
VALUES = [(0, 0), (1024**3, 1024**3), (1024**2, 1024**2), (99, 99)]


def shown(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("shell", ["sh", "bash", "/bin/sh", "/bin/bash"])
def test_a_shell_s_script_runs_within_the_limits(shell: str) -> None:
    script = f'/usr/bin/env python3 -c "{SHOW.format(NAMES)}"'
    assert shown(limited([shell, "-c", script], LIMITS, SH, processes=False)) == str(VALUES)


def test_any_other_program_runs_within_the_limits() -> None:
    argv = ["/usr/bin/env", "python3", "-c", SHOW.format(NAMES)]
    assert shown(limited(argv, LIMITS, SH, processes=False)) == str(VALUES)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_number_of_processes(shell: str) -> None:
    letter = "u" if "bash" in (shell, os.path.basename(SH)) else "p"
    assert shown(limited([shell, "-c", f"ulimit -{letter}"], LIMITS, SH, processes=True)) == "77"
    assert shown(limited([shell, "-c", f"ulimit -{letter}"], LIMITS, SH, processes=False)) != "77"


def test_arguments_and_line_numbers_of_a_script_stay() -> None:
    argv = limited(
        ["bash", "-c", 'echo "$0 $1 $LINENO"\necho $LINENO', "name", "one"], LIMITS, SH, processes=True
    )
    assert shown(argv) == "name one 1\n2"


def test_arguments_of_a_program_stay() -> None:
    argv = ["printf", "%s|", "a b", "", "$HOME", "-c", "é\n"]
    assert shown(limited(argv, LIMITS, SH, processes=False)) == "a b||$HOME|-c|é\n|".strip()


def test_limits_above_those_of_this_process_are_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = {resource.RLIMIT_NPROC: 50, resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_CPU: 100}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (0, hard.get(kind, 1000)))
    assert within(LIMITS) == Limits(processes=50, memory=1024**3, file_size=1000, cpu_s=99)
