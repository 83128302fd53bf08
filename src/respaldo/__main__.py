"""Runs the command line as ``python -m respaldo``."""

from __future__ import annotations

from respaldo.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
