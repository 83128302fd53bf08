"""Runs the command line as ``python -m respaldo``."""

from __future__ import annotations

from respaldo.cli.main import start

if __name__ == "__main__":
    start()
