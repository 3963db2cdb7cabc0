"""The first process of a guest: prepares what udev and an init system would, starts the agent, and
buries whoever has lost its parent. Runs from `/run/org` in the guest, with its standard library only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys

HERE = "/run/org"
AGENT = HERE + "/agent.py"
MARKER = "/run/org-guest"
_NFT = "/usr/sbin/nft"
_CONTROLLERS = "+cpu +memory +pids"
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1


def main() -> None:
    _prepare()
    agent = os.fork()
    if agent == 0:
        _run_agent()
        return
    _close_network()
    status = _bury_until(agent)
    # Without its agent nobody reaches the machine: it ends, for its supervisor to see.
    _say(f"the agent ended with status {os.waitstatus_to_exitcode(status)}")
    os.sync()
    for key in "uo":  # mount read-only, power off: asked for, and done in the kernel's own time
        _write("/proc/sysrq-trigger", key)
    signal.pause()


def _prepare() -> None:
    os.umask(0o022)
    os.environ.clear()
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["LANG"] = "C.UTF-8"
    os.chdir("/")
    socket.sethostname("org")
    _loopback_up()
    _write("/sys/fs/cgroup/cgroup.subtree_control", _CONTROLLERS)
    _write("/proc/sys/kernel/sysrq", "1")
    _name_ports()
    _write(MARKER, "")
    # What the kernel had to report until here goes to the console; commands must not slow it down.
    _write("/proc/sys/kernel/printk", "3")


def _close_network() -> None:
    """A second wall, put up behind the agent's back: there is no network device anyway."""
    try:
        os.posix_spawn(_NFT, [_NFT, "-f", HERE + "/nftables.conf"], os.environ)
    except FileNotFoundError:  # in a root that was made elsewhere
        _say("no firewall: the root has no nftables")


def _say(text: str) -> None:
    """For the console, which the host keeps."""
    sys.stdout.write(f"org-boot: {text}\n")
    sys.stdout.flush()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        flags = struct.unpack("16sh14x", answer)[1] | _IFF_UP
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def _name_ports() -> None:
    """Links in /dev/virtio-ports by the names that the host gave, as udev would make them."""
    os.makedirs("/dev/virtio-ports", exist_ok=True)
    for device in os.listdir("/sys/class/virtio-ports"):
        with open(f"/sys/class/virtio-ports/{device}/name", encoding="ascii") as file:
            os.symlink(f"../{device}", "/dev/virtio-ports/" + file.read().strip())


def _run_agent() -> None:
    """In the child, in this interpreter: starting another takes longer than all the rest here."""
    os.setsid()
    _write("/proc/self/oom_score_adj", "-1000")
    sys.path.insert(0, HERE)
    sys.argv = [AGENT]
    with open(AGENT, "rb") as file:
        program = compile(file.read(), AGENT, "exec")
    exec(program, {"__name__": "__main__", "__file__": AGENT})


def _bury_until(agent: int) -> int:
    """Take in the ends of processes until the agent's; its status."""
    while True:
        pid, status = os.wait()
        if pid == agent:
            return status


if __name__ == "__main__":
    main()
