"""Modules that are loaded when something of them is first asked for.

Defining what all commands need takes longer than many a command: of the start-up of a listing, a third was dataclasses
of which it used few.
"""

from __future__ import annotations

from importlib import import_module


class Later:
    """Stands for a module of a package, of the façade unless another is named."""

    def __init__(self, name: str, package: str = "respaldo.api") -> None:
        self._name = f"{package}.{name}"

    def __getattr__(self, attribute: str) -> object:
        """Loads the module, and returns what it has."""
        return getattr(import_module(self._name), attribute)
