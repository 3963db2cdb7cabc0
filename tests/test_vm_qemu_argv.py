"""The command line of a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from org.sandbox.vm.qemu import Drive, MachineSpec, Memory, Port, argv

SPEC = MachineSpec(
    kernel="/i/vmlinuz",
    initrd="/m/initrd.cpio",
    drives=(Drive("/m/overlay.qcow2"), Drive("/i/root.tar", "raw", read_only=True)),
    ports=(Port("org.ctl", 4), Port("org.net", 5)),
    console="/m/console",
    qmp=3,
)


def option(words: list[str], name: str) -> list[str]:
    """The values of an option, in order."""
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def test_a_machine_has_no_network_device_and_nothing_by_default() -> None:
    words = argv(SPEC)
    assert words[0] == "qemu-system-x86_64"
    assert option(words, "-nic") == ["none"]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(words)
    assert not [word for word in words if "netdev" in word or "virtio-net" in word or "hostfwd" in word]


def test_disks_and_ports_are_in_order() -> None:
    words = argv(SPEC)
    first, second = option(words, "-drive")
    # A disk of this machine that is full is an error there, and halts nobody.
    assert all("werror=report,rerror=report" in drive for drive in (first, second))
    assert "file=/m/overlay.qcow2,format=qcow2" in first and "read-only" not in first
    assert "file=/i/root.tar,format=raw" in second and "read-only=on" in second
    devices = option(words, "-device")
    assert devices.index("virtio-blk-pci,drive=disk0") < devices.index("virtio-blk-pci,drive=disk1")
    assert [device for device in devices if device.startswith("virtserialport")] == [
        "virtserialport,chardev=port0,name=org.ctl",
        "virtserialport,chardev=port1,name=org.net",
    ]
    assert option(words, "-chardev") == [
        "socket,id=qmp,fd=3,server=on,wait=off",
        "socket,id=port0,fd=4,server=on,wait=off",
        "socket,id=port1,fd=5,server=on,wait=off",
    ]
    assert option(words, "-mon") == ["chardev=qmp,mode=control"]


@pytest.mark.parametrize(
    ("accel", "machine", "cpu"),
    [("kvm", "q35,accel=kvm", "host"), ("hvf", "q35,accel=hvf", "host"), ("tcg", "q35", "max")],
)
def test_the_accelerator_decides_the_processor(accel: str, machine: str, cpu: str) -> None:
    words = argv(replace(SPEC, accel=accel))  # type: ignore[arg-type]
    assert option(words, "-machine") == [f"{machine},memory-backend=ram"]
    assert option(words, "-cpu") == [cpu]
    assert len(option(words, "-accel")) == (accel == "tcg")


def test_a_processor_may_be_named() -> None:
    assert option(argv(replace(SPEC, accel="kvm", cpu="Nehalem")), "-cpu") == ["Nehalem"]


def test_emulation_of_one_processor_needs_one_thread() -> None:
    assert "thread=single" in option(argv(SPEC), "-accel")[0]
    assert "thread=single" not in option(argv(replace(SPEC, cpus=2)), "-accel")[0]


def test_another_architecture_has_another_machine_and_console() -> None:
    words = argv(replace(SPEC, arch="aarch64"))
    assert words[0] == "qemu-system-aarch64"
    assert option(words, "-machine") == ["virt,memory-backend=ram"]
    assert "console=ttyAMA0" in option(words, "-append")[0]


@pytest.mark.parametrize(("share", "expected"), [(True, "share=on"), (False, "share=off")])
def test_memory_may_be_a_file(share: bool, expected: str) -> None:
    words = argv(replace(SPEC, memory=Memory("/m/ram", share), memory_mib=300))
    assert expected in option(words, "-object")[0] and "size=300M" in option(words, "-object")[0]
    (own,) = option(argv(replace(SPEC, memory_mib=300)), "-object")
    assert own == "memory-backend-ram,id=ram,size=300M"


def test_a_machine_that_waits_for_a_state_is_given_no_kernel() -> None:
    words = argv(replace(SPEC, incoming=True))
    assert option(words, "-incoming") == ["defer"]
    assert not {"-kernel", "-initrd", "-append"} & set(words)


def test_a_comma_in_a_path_stays_part_of_it() -> None:
    words = argv(replace(SPEC, drives=(Drive("/a,readonly=on/b"),), console="/c,d"))
    assert "file=/a,,readonly=on/b," in option(words, "-drive")[0]
    assert option(words, "-serial") == ["file:/c,,d"]


def test_without_a_console_file_the_console_is_standard_output() -> None:
    words = argv(replace(SPEC, console="", qmp=-1, ports=()))
    assert option(words, "-serial") == ["stdio"]
    assert "-mon" not in words and "virtio-serial-pci" not in words


def test_words_for_the_kernel_are_added() -> None:
    assert option(argv(replace(SPEC, append="a=1 b")), "-append")[0].endswith(" a=1 b")
