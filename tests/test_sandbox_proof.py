import asyncio
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

import org
from cli_kit import models_server
from org.errors import EnvironmentProblem
from org.ports import Command, ExecResult, Sandbox
from org.sandbox import bubblewrap
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.limits import Limits
from org.sandbox.local import Local
from org.sandbox.proof import Outcome, Probe, Proof, inside, prove
from org.sandbox.proof import attempts as table
from org.sandbox.proof.attempts import Attempt, Control
from org.sandbox.proof.inside import prove_inside, virtual_machine
from org.sandbox.proof.prove import Came, attack, probes_of, reached
from org.sandbox.proof.targets import addresses, targets
from vm_kit import free_port

LIMITS = Limits(processes=32, memory=512 * 1024**2)
WALLS = {"network", "files", "system", "processes", "privileges", "filter", "environment", "limits"}


def fell(proof: Proof) -> set[str]:
    return {probe.name for probe in proof.probes if not probe.held}


@pytest.mark.sandbox
async def test_bubblewrap_holds_against_everything(tmp_path: Path) -> None:
    proof = await prove(Bubblewrap(tmp_path, LIMITS), LIMITS)
    assert [probe for probe in proof.probes if not probe.held] == []
    assert [control for control in proof.controls if not control.reached] == []
    assert set(proof.verdicts()) == WALLS
    assert proof.stands == ("namespaces", "seccomp", "no privileges", "limits")
    assert len({probe.name for probe in proof.probes}) == len(proof.probes)
    assert sum(probe.wall == "network" for probe in proof.probes) >= 30
    assert os.listdir(tmp_path) == []


async def test_without_walls_the_attempts_get_through(tmp_path: Path) -> None:
    proof = await prove(Local(tmp_path, LIMITS, unsafe=True), LIMITS, outwards=False)
    by_name = {probe.name: probe for probe in proof.probes}
    always = {
        "tcp",
        "udp",
        "unix",
        "outside",
        "system",
        "see",
        "kill",
        "processes",
        "privileges",
        "home",
        "keys",
        *(f"host-{address}" for address in addresses()),
    }
    assert always <= fell(proof)
    if os.geteuid() == 0:
        assert {"secrets", "trace"} <= fell(proof)
    assert by_name["tcp"].detail == "a connection arrived outside"
    assert "of the host" in by_name["see"].detail
    assert by_name["memory"].held  # the limits are the same without walls
    assert by_name["file_size"].held
    assert proof.verdicts()["network"] == "fell"
    assert proof.stands == ()
    assert os.listdir(tmp_path) == []


async def test_missing_limits_are_noticed(tmp_path: Path) -> None:
    place = Local(tmp_path, Limits(memory=64 * 1024**3, file_size=64 * 1024**3), unsafe=True)
    assert {"memory", "file_size"} <= fell(await prove(place, LIMITS, outwards=False))


# In front of the real one: puts its own options behind those that were given.
WEAKER = """#!/bin/bash
given=()
while [ "$1" != -- ]; do given+=("$1"); shift; done
exec {bwrap} "${{given[@]}}" {options} "$@"
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("options", "fallen"),
    [
        ("--share-net", {"tcp", "udp", "unix"}),  # with nothing to reach but this host
        ("--bind /tmp /tmp", {"outside"}),
        ("--ro-bind /etc /etc", {"secrets"}),
        ("--tmpfs /etc", {"system"}),
        ("--dev-bind /dev /dev", {"devices"}),
        ("--ro-bind /proc /proc", {"see"}),
        ("--setenv API_KEY secret", {"environment"}),
    ],
)
async def test_a_hole_in_a_wall_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, fallen: set[str]
) -> None:
    wrapper, work = tmp_path / "bin" / "bwrap", tmp_path / "work"
    wrapper.parent.mkdir()
    work.mkdir()
    wrapper.write_text(WEAKER.format(bwrap=shutil.which("bwrap"), options=options))
    wrapper.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "_OUTER", {"PATH": f"{wrapper.parent}:/usr/bin:/bin"})
    found = fell(await prove(Bubblewrap(work, LIMITS), LIMITS, outwards="--share-net" not in options))
    if os.geteuid() != 0:  # what only root could have reached is out of reach without the wall, too
        fallen = fallen - {"devices"}
    assert fallen <= found


class _Changed:
    """A place whose first argument is replaced, to see what becomes of a program that fails."""

    def __init__(self, place: Sandbox, argv: list[str]) -> None:
        self._place = place
        self._argv = argv

    async def exec(self, command: Command, on_output: object = None) -> ExecResult:
        return await self._place.exec(Command(self._argv, stdin=command.stdin))

    async def read_file(self, path: str, limit: int = 0) -> bytes:
        raise NotImplementedError

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("argv", "said"), [(["no-such-python"], "not found"), (["sh", "-c", "exit 7"], "exit code 7")]
)
async def test_a_place_that_cannot_be_tried(tmp_path: Path, argv: list[str], said: str) -> None:
    with pytest.raises(EnvironmentProblem, match=said):
        await prove(_Changed(Local(tmp_path, unsafe=True), argv), LIMITS, outwards=False)


# Started as root, so that it can read its own interpreter wherever that lies; then a user like any.
AS_USER = """
import asyncio, os, sys
from importlib.resources import files
from pathlib import Path
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.limits import Limits
from org.sandbox.proof import prove

folder, uid = Path(sys.argv[1]), int(sys.argv[2])
files("org.sandbox")  # imports what it needs
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
limits = Limits(processes=32, memory=512 * 1024**2)
proof = asyncio.run(prove(Bubblewrap(folder, limits), limits))
print(os.geteuid(), len(proof.probes) > 40, [probe for probe in proof.probes if not probe.held])
"""


@pytest.mark.sandbox
def test_it_holds_for_an_ordinary_user_too() -> None:
    uid = os.geteuid() or 65_534
    folder = Path(tempfile.mkdtemp(prefix="org-test-"))
    try:
        shutil.copytree(Path(org.__file__).parent, folder / "org")
        os.chown(folder, uid, uid)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "HOME": str(folder)}
        run = subprocess.run(
            [sys.executable, "-c", AS_USER, str(folder), str(uid)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(folder)
    assert (run.stdout, run.stderr) == (f"{uid} True []\n", "")


# -- what an attempt proves


FAR = Attempt("far", "network", "TCP", "tcp", control="tcp")


def judged(outcome: str, *, control: bool, arrived: bool = False) -> Probe:
    came = {
        "far": Came(outcome, "told", 0.1, b""),
        "control tcp": Came("fell" if control else "held", "", 0.1, b""),
    }
    controls = reached(table.CONTROLS, came)
    assert [one.reached for one in controls] == [control]
    (probe,) = probes_of([FAR], came, controls, {"far": "arrived"} if arrived else {})
    return probe


@pytest.mark.parametrize(
    ("told", "control", "arrived", "outcome"),
    [
        ("held", True, False, "held"),
        ("held", False, False, "inconclusive"),
        ("held", True, True, "fell"),
        ("held", False, True, "fell"),
        ("fell", False, False, "fell"),
        ("unknown", True, False, "inconclusive"),
        ("whatever a liar says", True, False, "inconclusive"),
    ],
)
def test_only_a_control_that_is_reached_makes_held_of_it(
    told: str, control: bool, arrived: bool, outcome: Outcome
) -> None:
    assert judged(told, control=control, arrived=arrived).outcome == outcome


def test_the_worst_of_a_wall_is_its_verdict() -> None:
    def probe(wall: str, outcome: Outcome) -> Probe:
        return Probe("one", wall, "", outcome, "")

    proof = Proof((probe("a", "held"), probe("b", "held"), probe("b", "fell"), probe("c", "inconclusive")))
    assert proof.verdicts() == {"b": "fell", "c": "inconclusive", "a": "held"}
    assert list(proof.verdicts()) == ["b", "c", "a"]
    assert not proof.held


# -- each kind of attempt by sockets is able to get through


async def tried(tmp_path: Path, *attempts: Attempt, controls: tuple[Control, ...] = ()) -> dict[str, str]:
    came = await attack(Local(tmp_path, unsafe=True), attempts, controls, {})
    return {name: one.outcome for name, one in came.items()}


def socket_attempt(name: str, kind: str, **given: object) -> Attempt:
    return Attempt(name, "network", "", kind, given)


async def test_what_listens_is_reached_by_each_kind(tmp_path: Path) -> None:
    with targets(apart=False) as aimed, models_server("one") as base:
        ports, model = aimed.ports, int(base.split(":")[2].split("/")[0])
        there = {"host": "127.0.0.1", "port": model}
        asked = {**there, "request": "GET /v1/models HTTP/1.0\r\n\r\n"}
        found = await tried(
            tmp_path,
            socket_attempt("tcp", "tcp", host="127.0.0.1", port=ports["tcp"]),
            socket_attempt("unix", "unix", unix=aimed.given["unix"]),
            socket_attempt("http", "http", **asked),
            socket_attempt("model", "model", **asked),
            socket_attempt("everybody", "everybody", host="127.0.0.1", port=ports["udp"], question="text"),
            socket_attempt("name", "resolve", host="localhost"),
            controls=(*table.CONTROLS, *table.OF_MACHINE[:1]),
        )
        assert aimed.reached().keys() == {"tcp", "unix", "udp"}
    assert found.items() == dict.fromkeys(found, "fell").items()
    assert {name for name in found if name.startswith("control ")} == {
        "control tcp",
        "control udp",
        "control unix",
        "control http",
    }


async def test_what_does_not_listen_is_not_reached(tmp_path: Path) -> None:
    port = free_port()
    asked = {"host": "127.0.0.1", "port": port, "request": "GET / HTTP/1.0\r\n\r\n"}
    found = await tried(
        tmp_path,
        socket_attempt("tcp", "tcp", host="127.0.0.1", port=port),
        socket_attempt("udp", "udp", host="127.0.0.1", port=port, question="text"),
        socket_attempt("unix", "unix", unix="org-nobody-listens-here"),
        socket_attempt("model", "model", **asked),
        socket_attempt("http", "http", **asked),
    )
    assert found == {"tcp": "held", "udp": "held", "unix": "held", "model": "held", "http": "unknown"}


@pytest.mark.parametrize(
    ("answer", "more", "outcome"),
    [
        ('HTTP/1.1 403 Refused\r\n\r\n{"error": {"message": "no", "type": "refused"}}', {}, "held"),
        ("HTTP/1.1 403 Forbidden\r\n\r\nnot of the relay", {}, "fell"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", {}, "fell"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", {}, "fell"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", {"allowed": True}, "held"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", {"second": True}, "held"),
        ("HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n{}", {"second": True}, "fell"),
        ("HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n{}", {"allowed": True}, "fell"),
        ('HTTP/1.1 502 Refused\r\n\r\n{"error": {"message": "dead", "type": "refused"}}', {}, "fell"),
        ('HTTP/1.1 503 Refused\r\n\r\n{"error": {"message": "busy", "type": "refused"}}', {}, "unknown"),
        ("", {}, "held"),
    ],
)
async def test_what_an_answer_of_the_relay_proves(
    tmp_path: Path, answer: str, more: dict[str, bool], outcome: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asked = {"host": "127.0.0.1", "port": port, "request": "GET / HTTP/1.0\r\n\r\n", **more}
        assert await tried(tmp_path, socket_attempt("one", "http", **asked)) == {"one": outcome}


async def test_an_attempt_that_breaks_proves_nothing_and_costs_only_itself(tmp_path: Path) -> None:
    found = await tried(
        tmp_path, socket_attempt("broken", "tcp"), socket_attempt("name", "resolve", host="localhost")
    )
    assert found == {"broken": "unknown", "name": "fell"}


# -- in a virtual machine of somebody else's


async def test_from_inside_the_model_server_is_what_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with targets(apart=False) as aimed, models_server("one") as base:
        port = aimed.ports["tcp"]

        def some(*given: object) -> list[Attempt]:
            return [socket_attempt("other", "tcp", host="127.0.0.1", port=port)]

        monkeypatch.setattr(table, "inside", some)
        proof = await prove_inside(base)
    assert [one.reached for one in proof.controls] == [True]
    assert fell(proof) == {"other"}


async def test_from_inside_nothing_is_proven_without_a_model_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Attempt("other", "network", "", "tcp", {"host": "127.0.0.1", "port": free_port()}, "model")
    monkeypatch.setattr(table, "inside", lambda *given: [other])
    proof = await prove_inside(f"http://127.0.0.1:{free_port()}/v1")
    assert [probe.outcome for probe in proof.probes] == ["inconclusive"]
    assert proof.probes[0].detail == "control not reached: model"


async def test_from_inside_the_model_server_must_have_an_address() -> None:
    with pytest.raises(EnvironmentProblem, match=r"not known here: nowhere\.invalid"):
        await prove_inside("http://nowhere.invalid/v1")


def test_inside_the_model_server_is_no_way_out_and_all_else_is() -> None:
    made = table.inside([], ["10.0.2.2"], [], ("10.0.2.2", 11434))
    names = {one.name for one in made}
    assert {"gateway-1-22", "gateway-1-443", "firewall", "shares", "dhcp", "icmp", "vsock-host"} <= names
    assert "gateway-1-11434" not in names
    assert {one.control for one in made} == {"model", ""}


@pytest.mark.parametrize(
    ("vendor", "flags", "kind"),
    [
        ("innotek GmbH", "fpu", "innotek GmbH"),
        ("QEMU", "fpu", "QEMU"),
        ("LENOVO", "fpu hypervisor sse", "by its processor"),
        ("LENOVO", "fpu sse", ""),
    ],
)
def test_a_virtual_machine_is_known_by_its_maker_or_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, kind: str
) -> None:
    (tmp_path / "sys_vendor").write_text(vendor + "\n")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(inside, "_DMI", tmp_path)
    monkeypatch.setattr(inside, "_CPU", tmp_path / "cpuinfo")
    assert virtual_machine() == kind


# -- the rules of a machine's own firewall


UFW = {  # read by somebody who is not root, and who therefore does not know all
    "on": ("ENABLED=yes", 'DEFAULT_OUTPUT_POLICY="DROP"\nIPV6=yes', "held"),
    "off": ("ENABLED=no", 'DEFAULT_OUTPUT_POLICY="DROP"', "unknown"),
    "open": ("ENABLED=yes", 'DEFAULT_OUTPUT_POLICY="ACCEPT"', "unknown"),
    "half": ("ENABLED=yes", 'DEFAULT_OUTPUT_POLICY="DROP"\nIPV6=no', "unknown"),
}


@pytest.fixture
def firewall(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """That part of the program, as it is where it is sent."""
    monkeypatch.syspath_prepend(str(files("org.sandbox.intruder")))
    for name in ("basics", "firewall"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))  # so that it is taken out again
        del sys.modules[name]
    return importlib.import_module("firewall")


@pytest.mark.parametrize("case", UFW)
def test_what_ufw_was_set_up_with(monkeypatch: pytest.MonkeyPatch, firewall: ModuleType, case: str) -> None:
    enabled, defaults, outcome = UFW[case]
    files = {"/etc/ufw/ufw.conf": enabled.encode(), "/etc/default/ufw": defaults.encode()}
    monkeypatch.setattr(firewall, "read", lambda path: files[path])
    monkeypatch.setattr(firewall, "_said", lambda *words: None)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    assert firewall.default_deny({})[0] == outcome


@pytest.mark.parametrize(
    ("rules", "tables", "outcome"),
    [
        ("type filter hook output priority filter; policy drop;", "", "held"),
        ("type filter hook output priority filter; policy accept;", "", "fell"),
        ("type filter hook input priority filter; policy drop;", "", "fell"),
        ("", "-P OUTPUT DROP", "held"),
        ("", "-P OUTPUT ACCEPT", "fell"),
        (None, None, "unknown"),
    ],
)
def test_what_root_is_told_of_the_rules(
    monkeypatch: pytest.MonkeyPatch,
    firewall: ModuleType,
    rules: str | None,
    tables: str | None,
    outcome: str,
) -> None:
    monkeypatch.setattr(firewall, "read", lambda path: b"")
    monkeypatch.setattr(firewall, "_said", lambda name, *words: rules if name == "nft" else tables)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    assert firewall.default_deny({})[0] == outcome
    if rules is None:
        monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo")])
        assert firewall.default_deny({})[0] == "held"
