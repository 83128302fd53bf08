"""All scenarios, of all modules that make them."""

from __future__ import annotations

from tests.hostile import bombs, forgery, restoring, storing
from tests.hostile.scenario import SCENARIOS

MODULES = (bombs, forgery, restoring, storing)
__all__ = ["MODULES", "SCENARIOS"]
