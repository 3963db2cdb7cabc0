"""The proof of a machine's walls: that it holds, and that each attempt is able to get through."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cli_kit import models_server
from guest import Guest, guest, image, overlay
from machine_kit import MEMORY, Owner
from org.errors import ExitCode
from org.sandbox.proof import Proof, box
from org.sandbox.proof.attempts import Attempt, as_root
from org.sandbox.proof.machine import prove_machine, told
from org.sandbox.proof.prove import Came, _program, attack
from org.sandbox.vm import qemu
from org.sandbox.vm.channel import Surroundings
from org.sandbox.vm.layout import MachineFolder
from org.sandbox.vm.place import VirtualMachine

pytestmark = pytest.mark.vm

KEY = "sk-only-outside-of-the-machine"
WALLS = {
    "network",
    "relay",
    "files",
    "system",
    "processes",
    "environment",
    "limits",
    "hardware",
    "secrecy",
    "box",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> None:
    await image()


@pytest.fixture(scope="module")
def owner(made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """With a machine that is up and has a key, for tests that leave it so."""
    with models_server("only") as base:
        one = Owner(tmp_path_factory.mktemp("vm"), base)
        one.env["ORG_API_KEY"] = KEY
        one.up()
        yield one
        assert one.vm("rm", "-y").returncode == 0


async def proof_of(owner: Owner) -> Proof:
    return await prove_machine(owner.machine, VirtualMachine(owner.machine, "doctor", memory=MEMORY), KEY)


def fell(proof: Proof) -> set[str]:
    return {probe.name for probe in proof.fell}


async def test_the_doctor_finds_every_wall_held_and_every_control_reached(owner: Owner) -> None:
    done = owner.doctor("--sandbox", "vm", "--json")
    assert done.returncode == 0, done.stdout
    proof = json.loads(done.stdout)
    assert [probe for probe in proof["probes"] if not probe["held"]] == []
    assert [control for control in proof["controls"] if not control["reached"]] == []
    assert {control["name"] for control in proof["controls"]} == {
        *("tcp", "udp", "unix", "http", "icmp", "packet", "model")
    }
    assert set(proof["verdicts"]) == WALLS
    assert set(proof["verdicts"].values()) == {"held"}
    assert len({probe["name"] for probe in proof["probes"]}) == len(proof["probes"])
    assert sum(probe["wall"] in ("network", "relay") for probe in proof["probes"]) >= 30
    status = await owner.machine.up_or_gone()
    user = "uid 65534 in its namespace, without capabilities"
    assert proof["stands"] == [status.facts["walls"][0], "bubblewrap", "seccomp", user]
    (details,) = [probe["detail"] for probe in proof["probes"] if probe["name"] == "box-user"]
    assert details == f"uid 65534 in a namespace of its own, uid {os.geteuid()} outside"
    assert KEY not in done.stdout


async def test_qemu_has_of_its_machine_the_disk_and_no_variable_of_its_owner(owner: Owner) -> None:
    status = await owner.machine.up_or_gone()
    assert status.pid is not None
    hypervisor = next(box._below(status.pid))
    folder = owner.machine.folder
    own = {folder.overlay.name, folder.ram.name}
    assert set(os.listdir(f"/proc/{hypervisor}/root{folder.path}")) <= own
    assert not folder.ram.exists()
    assert "/snapshots/" not in Path(f"/proc/{hypervisor}/mountinfo").read_text()
    for pid in (hypervisor, int(box._status(hypervisor)["PPid"])):
        words = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert {word.partition("=")[0] for word in words if word} <= {"PATH", "LANG", "PWD"}
    assert KEY not in Path(f"/proc/{status.pid}/environ").read_text()
    for path in (folder.ctl, folder.net, folder.qmp, folder.socket):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_what_a_machine_reaches_is_reported(owner: Owner) -> None:
    """The addresses of a host given to the guest itself, and listeners at the host's very ports."""
    given = "10.0.2.2/32 169.254.169.254/32 1.1.1.1/32"
    for word in given.split():
        assert owner.vm("exec", "--root", "--", "ip", "addr", "add", word, "dev", "lo").returncode == 0
    try:
        proof = await proof_of(owner)
    finally:
        for word in given.split():
            assert owner.vm("exec", "--root", "--", "ip", "addr", "del", word, "dev", "lo").returncode == 0
    assert fell(proof) == {
        "qemu-host",
        "metadata",
        "dns-udp-cloudflare",
        "dns-tcp",
        "https",
        "quic",
        "icmp-raw",
    }
    assert proof.verdicts()["network"] == "fell"
    assert proof.verdicts()["relay"] == "held"


async def by_root(owner: Owner, *names: str) -> dict[str, Came]:
    """What comes of some attempts of root alone."""
    tried = [one for one in as_root() if one.name in names]
    assert len(tried) == len(names)
    async with owner.machine.channel(Surroundings("/root", "root", memory=MEMORY)) as root:
        return await attack(root, tried, (), {})


async def test_a_machine_whose_rules_are_gone_is_reported(owner: Owner) -> None:
    assert (await by_root(owner, "firewall"))["firewall"].outcome == "held"
    assert owner.vm("exec", "--root", "--", "nft", "flush", "ruleset").returncode == 0
    try:
        assert (await by_root(owner, "firewall"))["firewall"].outcome == "fell"
    finally:
        assert owner.vm("exec", "--root", "--", "nft", "-f", "/run/org/nftables.conf").returncode == 0


@pytest.mark.parametrize("file", ["/root/key", "/etc/key"])
async def test_a_secret_that_came_in_is_reported(owner: Owner, file: str) -> None:
    words = f"echo {shlex.quote(KEY)} > {file}"
    assert owner.vm("exec", "--root", "--", "sh", "-c", words).returncode == 0
    try:
        came = await by_root(owner, "processes-and-files")
    finally:
        assert owner.vm("exec", "--root", "--", "rm", file).returncode == 0
    assert [probe.outcome for probe in told(came, {"api-key": ("the API key", KEY)})] == ["fell"]


@pytest.fixture
def lonely(made: None, tmp_path: Path) -> Iterator[Owner]:
    """With a machine whose model server went away."""
    with models_server("only") as base:
        one = Owner(tmp_path, base)
        one.up()
    yield one
    assert one.vm("rm", "-y").returncode == 0


def test_without_the_model_server_the_relay_is_not_proven(lonely: Owner) -> None:
    done = lonely.doctor()
    assert done.returncode == ExitCode.ENVIRONMENT
    assert re.findall(r"control (\w+) not reached: the", done.stdout) == ["model"]
    assert re.findall(r"(\w+) +UNKNOWN  0 of", done.stdout) == ["relay"]
    assert re.search(r"16 of \d+ attempts prove nothing; none got through", done.stdout)
    assert "+ bubblewrap + seccomp + uid 65534 in its namespace, without capabilities" in done.stdout


def test_words_are_looked_for_in_all_that_was_read() -> None:
    came = {
        "firmware": Came("held", "", 0.1, "a name: workshop".encode("utf-16-le")),
        "pci": Came("held", "", 0, b""),
    }
    words = {
        "host-name": ("this host's name", "workshop"),
        "host-user": ("your name", "ada"),
        "api-key": ("the API key", ""),
        "host-folder": ("the folder", "/home/somebody"),
    }
    probes = {probe.name: probe for probe in told(came, words)}
    assert {name for name, probe in probes.items() if not probe.held} == {"host-name"}
    assert probes["host-name"].detail == "firmware shows it"
    assert probes["host-user"].detail == "ada is a name like any"
    assert probes["api-key"].detail == "the API key: there is none"


# -- a machine as it must not be


# What its hardware must not have, as QEMU is told of it.
HOLES = (
    ("-device", "virtio-net-pci"),
    ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
    ("-fw_cfg", "name=opt/of/the/host,string=workshop"),
    ("-smbios", "type=1,serial=workshop-of-ada"),
)
AIMED = ("pci", "disks", "virtio-ports", "debug-ports", "configuration", "org.net-twice", "firmware")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def leaky(made: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """What root's attempts come to in a machine that has one hole for each of them."""
    folder = MachineFolder(tmp_path_factory.mktemp("leaky"))
    of = await image()
    plain = qemu.argv
    with pytest.MonkeyPatch.context() as patch:
        holes = [word for hole in HOLES for word in hole]
        patch.setattr(qemu, "argv", lambda spec: [*plain(spec), *holes])
        await overlay(folder.path / "more.qcow2", of.folder.root)
        await overlay(folder.overlay, of.folder.root)
        drives = (qemu.Drive(str(folder.overlay)), qemu.Drive(str(folder.path / "more.qcow2")))
        names = ("org.ctl", "org.net", "org.more")
        ports = tuple(map(qemu.Port, names))
        async with guest(folder.path, of, drives=drives, ports=ports) as one:
            yield await attacked(one, [each for each in as_root() if each.name in AIMED])


async def attacked(one: Guest, attempts: list[Attempt]) -> dict[str, Any]:
    asked = {"common": {}, "attempts": [(each.name, each.kind, dict(each.given)) for each in attempts]}
    await one.ask(f"open('/tmp/intruder', 'w').write({_program().decode()!r})")
    said = await one.ask(f"run({'python3 -S /tmp/intruder ' + shlex.quote(json.dumps(asked))!r})")
    found: dict[str, Any] = json.loads(said)
    return found


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("pci", "1af4:1000 (class 0200)"),
        ("disks", "vdb"),
        ("virtio-ports", "org.more"),
        ("debug-ports", "a debug exit answers at port 0xf4"),
        ("configuration", "opt/of/the/host"),
        ("org.net-twice", "opened /dev/virtio-ports/org.net"),
    ],
)
def test_a_hole_in_the_hardware_is_seen(leaky: dict[str, Any], name: str, detail: str) -> None:
    assert leaky[name]["outcome"] == "fell"
    assert detail in leaky[name]["detail"]


@pytest.mark.parametrize("name", ["firmware", "configuration"])
def test_what_firmware_is_told_of_the_host_is_read(leaky: dict[str, Any], name: str) -> None:
    came = {name: Came("held", "", 0.1, base64.b64decode(leaky[name]["seen"]))}
    assert [probe.outcome for probe in told(came, {"host-name": ("the name", "workshop")})] == ["fell"]


# -- the box around QEMU, looked at from outside


@pytest.mark.parametrize("name", ["h\xf6me", "a b\tc\nd\\e", "\u3000\u2028\x85\r\x0b", "\udcff", r"\040"])
def test_a_place_is_known_by_its_name_whatever_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    written = b"".join(
        b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in os.fsencode(name)
    )
    (tmp_path / "7").mkdir()
    line = b"44 30 0:40 / /%b rw,nosuid shared:1 - ext4 /dev/vda rw\n" % written
    (tmp_path / "7" / "mountinfo").write_bytes(line * 2)
    monkeypatch.setattr(box, "_PROC", tmp_path)
    assert box._mounts(7, writable=True) == [(f"/{name}", "ext4")] * 2


def test_this_process_is_in_no_box() -> None:
    """What holds of a machine's QEMU does not hold of whoever looks at it."""
    me = os.getpid()
    status = box._status(me)
    assert not box._user(me)[0] or os.geteuid() != 0
    assert not box._filtered(status | {"Seccomp": "0"})[0]
    assert not box._capabilities(status | {"CapEff": "0000000000000001"})[0]
    assert not box._no_more(status | {"NoNewPrivs": "0"})[0]
    assert not any(box._namespace(me, name)[0] for name in box._NAMESPACES)
    assert not box._writes(me, Path("/nowhere"))[0]
    assert not box._variables(me)[0]
    assert box._devices(me)[0] == ([name for _, name in socket.if_nameindex()] == ["lo"])


def test_a_home_that_is_seen_is_reported(tmp_path: Path) -> None:
    (tmp_path / "letters").touch()
    assert box._home(os.getpid(), tmp_path) == (False, f"it sees {tmp_path / 'letters'}")


def test_a_box_without_its_process_proves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as childless:
        probes, stands = box.look(childless.pid, tmp_path)
        childless.kill()
    assert [(probe.outcome, probe.detail) for probe in probes] == [
        ("inconclusive", "its process is not to be seen")
    ]
    assert stands == ()
