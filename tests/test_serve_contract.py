"""What a process is handed; `test_serve_drain` has the words in their order."""

from __future__ import annotations

import os

import pytest

from org.errors import EnvironmentProblem
from org.serve.contract import Contract


def test_without_a_contract_nothing_is_waited_for() -> None:
    contract = Contract.of({"HOME": "/root"})
    assert contract == Contract()
    assert not contract.takes_over
    contract.say("ready")  # to nobody


def test_what_is_handed_is_not_inherited_by_what_we_run() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    contract = Contract.of({"ORG_CONTRACT": "1", "ORG_GO_FD": str(reading), "ORG_NONCE": "n"})
    assert (contract.go_fd, contract.nonce, contract.takes_over) == (reading, "n", True)
    assert not os.get_inheritable(reading)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"ORG_CONTRACT": "2"}, "ORG_CONTRACT=2"),
        ({"ORG_GO_FD": "x"}, "not the number"),
        ({"ORG_ACK_FD": "-1"}, "not the number"),
        ({"ORG_LISTEN_FD": "987654"}, "ORG_LISTEN_FD=987654"),
    ],
)
def test_what_is_no_contract(env: dict[str, str], message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=message):
        Contract.of(env)
