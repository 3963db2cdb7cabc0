"""Whether the system inside refuses, by rules of its own, whatever it was not told to let out."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.intruder.basics import FELL, HELD, UNKNOWN, Finding, Given, read
else:  # sent along with this part
    from basics import FELL, HELD, UNKNOWN, Finding, Given, read

_ASKED_S = 10.0


def default_deny(given: Given) -> Finding:
    """By what root is told; somebody else can only read what ufw was set up with."""
    rules = _said("nft", "list", "ruleset")
    if rules:
        heads = [line for line in rules.splitlines() if "hook output" in line]
        if any("policy drop" in line for line in heads):
            return HELD, "nft: the policy for what goes out is drop"
    tables = {name: _said(name, "-S", "OUTPUT") for name in ("iptables", "ip6tables")}
    if all("-P OUTPUT DROP" in (said or "") for said in tables.values()):
        return HELD, "iptables: the policy for what goes out is DROP, of IPv6 too"
    ufw = _ufw()
    if ufw[0] == HELD or rules is not None:
        return ufw
    if all(name == "lo" for _, name in socket.if_nameindex()):
        return HELD, "there is no device that anything could go out by"
    return UNKNOWN, f"only root sees the rules; {ufw[1]}"


def _ufw() -> Finding:
    def value(path: str, name: str) -> str:
        for line in read(path).decode(errors="replace").splitlines():
            if line.startswith(f"{name}="):
                return line.partition("=")[2].strip().strip('"')
        return ""

    if value("/etc/ufw/ufw.conf", "ENABLED") != "yes":
        return FELL, "nothing refuses what goes out: ufw is not enabled"
    policy = value("/etc/default/ufw", "DEFAULT_OUTPUT_POLICY")
    if policy not in ("DROP", "REJECT"):
        return FELL, f"ufw lets out whatever no rule forbids ({policy or 'no policy'})"
    if value("/etc/default/ufw", "IPV6") == "no":
        return FELL, "ufw leaves out IPv6"
    return HELD, f"ufw is enabled, what goes out meets {policy}"


def _said(*words: str) -> str | None:
    """What a program prints, None when it cannot be asked."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_ASKED_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
