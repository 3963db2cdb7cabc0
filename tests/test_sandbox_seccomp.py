import errno
import struct

import pytest

from org.sandbox.seccomp import program

ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS
X86, ARM = 0xC000003E, 0xC00000B7


def verdict(code: bytes, architecture: int, number: int, first: int = 1) -> int:
    """What the kernel would make of a call: the few instructions that the filter uses, interpreted."""
    steps = list(struct.iter_unpack("=HBBI", code))
    data = {0: number, 4: architecture, 16: first}
    at = loaded = 0
    while True:
        operation, then, otherwise, value = steps[at]
        at += 1
        if operation == 0x20:
            loaded = data[value]
        elif operation == 0x15:
            at += then if loaded == value else otherwise
        elif operation == 0x35:
            at += then if loaded >= value else otherwise
        else:
            assert operation == 0x06
            return int(value)


@pytest.mark.parametrize(
    ("machine", "architecture", "refused"),
    [
        ("x86_64", X86, {248, 249, 250, 298, 321, 323, 425}),
        ("aarch64", ARM, {217, 218, 219, 241, 280, 282, 425}),
    ],
)
def test_exactly_the_listed_calls_are_refused(machine: str, architecture: int, refused: set[int]) -> None:
    code = program(machine)
    found = {number for number in range(600) if verdict(code, architecture, number) == REFUSE}
    assert found == refused
    assert all(verdict(code, architecture, number) == ALLOW for number in set(range(600)) - refused)


@pytest.mark.parametrize(("machine", "architecture", "number"), [("x86_64", X86, 41), ("aarch64", ARM, 198)])
def test_only_the_common_families_of_sockets_are_there(machine: str, architecture: int, number: int) -> None:
    code = program(machine)
    allowed = {family for family in range(64) if verdict(code, architecture, number, family) == ALLOW}
    assert allowed == {1, 2, 10, 16}
    assert verdict(code, architecture, number, 40) == 0x00050000 | errno.EAFNOSUPPORT
    assert verdict(code, architecture, number + 1, 40) == ALLOW


def test_other_architectures_have_no_calls_at_all() -> None:
    assert {verdict(program("x86_64"), 0x40000003, number) for number in range(400)} == {REFUSE}
    assert {verdict(program("aarch64"), X86, number) for number in range(400)} == {REFUSE}
    assert verdict(program("x86_64"), X86, 0x40000000 + 1) == REFUSE


def test_an_unknown_machine_has_no_filter() -> None:
    assert program("riscv64") == b""
