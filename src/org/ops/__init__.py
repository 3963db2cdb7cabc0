"""Generations of a program: candidate and current. Standard library only."""
