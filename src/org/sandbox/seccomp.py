"""A filter of system calls that namespaces do not cover: the keyrings of the person who started us,
sockets that know nothing of network namespaces (a virtual machine's to its host, for one), and parts
of the kernel that only widen what can be attacked. Pure.
"""

from __future__ import annotations

import errno
import struct

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of classic BPF
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # offsets within the data that a filter sees
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0000 | errno.ENOSYS
_NO_FAMILY = 0x0005_0000 | errno.EAFNOSUPPORT
_FAMILIES = (1, 2, 10, 16)  # unix, IPv4, IPv6, netlink
_X32 = 0x4000_0000  # the same calls under other numbers, on x86-64

# By machine: the architecture's own number, that of socket, and those of add_key, request_key, keyctl,
# bpf, perf_event_open, userfaultfd and io_uring_setup.
_REFUSED = {
    "x86_64": (0xC000_003E, 41, (248, 249, 250, 321, 298, 323, 425)),
    "aarch64": (0xC000_00B7, 198, (217, 218, 219, 280, 241, 282, 425)),
}


def program(machine: str) -> bytes:
    """The filter for `machine` (as `os.uname` names it), as the kernel reads it; empty for one that
    is not known here. Calls it refuses do not exist, to the program that makes them; nor does any
    call of another architecture (32-bit programs), nor any but the common families of sockets."""
    if machine not in _REFUSED:
        return b""
    architecture, socket, refused = _REFUSED[machine]
    tests = [(_IF_AT_LEAST, _X32), *((_IF_EQUAL, number) for number in refused)]
    families = len(_FAMILIES)
    refuse = len(tests) + families + 4  # its distance from the first of the tests
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, refuse + 1, architecture),
        (_LOAD, 0, 0, _NUMBER),
        *((test, refuse - place - 1, 0, value) for place, (test, value) in enumerate(tests)),
        (_IF_EQUAL, 0, families + 2, socket),
        (_LOAD, 0, 0, _FIRST),
        *((_IF_EQUAL, families - place, 0, family) for place, family in enumerate(_FAMILIES)),
        (_RETURN, 0, 0, _NO_FAMILY),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
