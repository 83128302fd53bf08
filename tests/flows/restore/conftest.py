"""The ordinary user of the tests of the file system, for restores."""

from __future__ import annotations

from tests.fs.conftest import ordinary

__all__ = ["ordinary"]
