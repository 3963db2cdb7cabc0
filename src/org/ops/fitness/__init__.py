"""The gate: whether a candidate may become main."""

from __future__ import annotations

from collections.abc import Mapping

from org.errors import EnvironmentProblem
from org.ops.merges import Gate
from org.ops.program import Program


def run(program: Program, gate: Gate) -> Mapping[str, object]:
    """Try the merge of a gate; gives its verdict."""
    raise EnvironmentProblem(f"nothing here can judge {gate.branch}")
