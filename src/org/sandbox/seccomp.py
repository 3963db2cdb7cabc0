"""A filter of system calls that namespaces do not cover: the keyrings of the person who started us,
and parts of the kernel that only widen what can be attacked. Pure.
"""

from __future__ import annotations

import errno
import struct

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of classic BPF
_NUMBER, _ARCHITECTURE = 0, 4  # offsets within the data that a filter sees
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0000 | errno.ENOSYS
_X32 = 0x4000_0000  # the same calls under other numbers, on x86-64

# By machine: the architecture's own number, and those of add_key, request_key, keyctl, bpf,
# perf_event_open, userfaultfd and io_uring_setup.
_REFUSED = {
    "x86_64": (0xC000_003E, (248, 249, 250, 321, 298, 323, 425)),
    "aarch64": (0xC000_00B7, (217, 218, 219, 280, 241, 282, 425)),
}


def program(machine: str) -> bytes:
    """The filter for `machine` (as `os.uname` names it), as the kernel reads it; empty for one that
    is not known here. Calls it refuses do not exist, to the program that makes them; nor does any
    call of another architecture (32-bit programs)."""
    if machine not in _REFUSED:
        return b""
    architecture, refused = _REFUSED[machine]
    tests = [(_IF_AT_LEAST, _X32), *((_IF_EQUAL, number) for number in refused)]
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, len(tests) + 2, architecture),
        (_LOAD, 0, 0, _NUMBER),
        *((test, len(tests) - place, 0, value) for place, (test, value) in enumerate(tests)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
