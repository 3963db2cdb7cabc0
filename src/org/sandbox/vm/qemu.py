"""The command line of a machine. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Accel: TypeAlias = Literal["kvm", "hvf", "tcg"]

# quiet: the serial line is slow. panic, reboot: a dead guest ends QEMU at once instead of waiting.
# The rest leaves out self-tests and waits that a guest without such devices has no use for.
_APPEND = "quiet panic=-1 reboot=t random.trust_cpu=on cryptomgr.notests rdinit=/init"


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk of the guest, in order: /dev/vda, /dev/vdb and so on."""

    path: str
    format: Literal["raw", "qcow2"] = "qcow2"
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """A virtio-serial port `name` in the guest; QEMU listens for the host's end at a unix socket, which
    it is given as the descriptor `fd`."""

    name: str
    fd: int = -1


@dataclass(frozen=True, slots=True)
class Memory:
    """The guest's memory, of its own unless there is a file. With `share` what the guest writes goes
    there; without, the machine keeps what it changes to itself, and the file stays as it is. QEMU opens
    it for writing all the same: each machine needs one of its own."""

    path: str = ""
    share: bool = False


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine to start. `memory_mib` is in MiB; `arch` as in `uname -m`.

    An empty `console` is QEMU's standard output. `qmp` is the control socket's descriptor, as of a port;
    below 0 there is none. `cpu` is a model of QEMU's, empty for the fullest that the accelerator has; a
    snapshot that is to be read under KVM needs a named one. With `incoming` the machine waits for a
    snapshot instead of booting, and needs no kernel.
    """

    kernel: str
    initrd: str
    drives: tuple[Drive, ...] = ()
    ports: tuple[Port, ...] = ()
    accel: Accel = "tcg"
    arch: str = "x86_64"
    cpu: str = ""
    memory_mib: int = 512
    cpus: int = 1
    console: str = ""
    qmp: int = -1
    memory: Memory = Memory()
    incoming: bool = False
    append: str = ""


def program(arch: str) -> str:
    """The name of the QEMU that runs guests of `arch`."""
    return f"qemu-system-{arch}"


def argv(spec: MachineSpec) -> list[str]:
    """The whole command line, the program first. The machine has no network device."""
    arm = spec.arch == "aarch64"
    # Always so: a state says by which name its memory goes.
    machine = f"{'virt' if arm else 'q35'},accel={spec.accel},memory-backend=ram"
    console = "ttyAMA0" if arm else "ttyS0"
    words = [program(spec.arch), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-nic", "none"]
    words += ["-machine", machine, "-cpu", spec.cpu or _fullest(spec.accel)]
    words += ["-m", str(spec.memory_mib), "-smp", str(spec.cpus)]
    if spec.accel == "tcg":
        words += ["-accel", "tcg,tb-size=256" + (",thread=single" if spec.cpus == 1 else "")]
        words[words.index(machine)] = machine.replace(",accel=tcg", "")
    if spec.incoming:
        words += ["-incoming", "defer"]
    else:
        words += ["-kernel", spec.kernel, "-initrd", spec.initrd]
        words += ["-append", " ".join(filter(None, (f"console={console}", _APPEND, spec.append)))]
    words += ["-serial", f"file:{_escaped(spec.console)}" if spec.console else "stdio"]
    words += ["-object", _memory(spec.memory, spec.memory_mib)]
    if spec.qmp >= 0:
        words += ["-chardev", _listening("qmp", spec.qmp), "-mon", "chardev=qmp,mode=control"]
    for number, drive in enumerate(spec.drives):
        words += _drive(drive, f"disk{number}")
    words += ["-device", "virtio-rng-pci"]
    words += _ports(spec.ports)
    return words


def _fullest(accel: Accel) -> str:
    return "max" if accel == "tcg" else "host"


def _memory(memory: Memory, mib: int) -> str:
    if not memory.path:
        return f"memory-backend-ram,id=ram,size={mib}M"
    sharing = "share=on" if memory.share else "share=off"
    return f"memory-backend-file,id=ram,size={mib}M,mem-path={_escaped(memory.path)},{sharing}"


def _drive(drive: Drive, name: str) -> list[str]:
    # unsafe: a guest's disk is worth nothing after the host's own crash, and costs less without flushes.
    # werror: a guest learns that the disk here is full; by default it would be halted, and look dead.
    options = (
        f"id={name},file={_escaped(drive.path)},format={drive.format},if=none,cache=unsafe,discard=unmap"
    )
    options += ",werror=report,rerror=report"
    if drive.read_only:
        options += ",read-only=on"
    return ["-drive", options, "-device", f"virtio-blk-pci,drive={name}"]


def _ports(ports: Sequence[Port]) -> list[str]:
    if not ports:
        return []
    words = ["-device", "virtio-serial-pci"]
    for number, port in enumerate(ports):
        words += ["-chardev", _listening(f"port{number}", port.fd)]
        words += ["-device", f"virtserialport,chardev=port{number},name={port.name}"]
    return words


def _listening(name: str, fd: int) -> str:
    return f"socket,id={name},fd={fd},server=on,wait=off"


def _escaped(path: str) -> str:
    """A path within a list of options, where a comma is written twice."""
    return path.replace(",", ",,")
