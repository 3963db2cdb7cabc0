"""What the walls of a place are worth: it is attacked from inside, and what happened is told."""

from org.sandbox.proof.prove import prove
from org.sandbox.proof.report import Outcome, Probe, Proof, Reached

__all__ = ["Outcome", "Probe", "Proof", "Reached", "prove"]
