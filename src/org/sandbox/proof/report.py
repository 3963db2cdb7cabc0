"""What a proof says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["held", "fell", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to get through a wall. `detail` says in words what stopped it or what it reached; it is
    inconclusive when it could not be made, or when what it must be able to reach was not reached."""

    name: str
    wall: str
    tried: str
    outcome: Outcome
    detail: str
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return self.outcome == "held"


@dataclass(frozen=True, slots=True)
class Reached:
    """A control: whether a kind of attempt reaches what it must."""

    name: str
    tried: str
    reached: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Proof:
    """`stands` names the walls that do, the outermost last."""

    probes: tuple[Probe, ...] = ()
    controls: tuple[Reached, ...] = ()
    stands: tuple[str, ...] = ()

    @property
    def fell(self) -> tuple[Probe, ...]:
        return tuple(probe for probe in self.probes if probe.outcome == "fell")

    @property
    def held(self) -> bool:
        """Whether every attempt was made and held against."""
        return all(probe.held for probe in self.probes)

    def verdicts(self) -> dict[str, Outcome]:
        """Wall to verdict: those that fell first, then those of which nothing is known."""
        made: dict[str, Outcome] = {}
        for outcome in ("fell", "inconclusive", "held"):
            for probe in self.probes:
                if probe.outcome == outcome:
                    made.setdefault(probe.wall, probe.outcome)
        return made
