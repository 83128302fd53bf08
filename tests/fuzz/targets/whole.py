"""Targets: whole repositories."""
from tests.fuzz.target import Target
TARGETS: list[Target] = []
