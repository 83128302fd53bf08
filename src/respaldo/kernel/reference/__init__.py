"""The verbs of `respaldo.kernel` in Python: what `native.c` is compared with, and what works without a compiler.

Same arguments, same results bit by bit, same types of errors. Written to be read; a hundredfold slower at `cut`,
several times at the others.
"""

from __future__ import annotations

from respaldo.kernel.reference.chunks import cut
from respaldo.kernel.reference.listing import scan
from respaldo.kernel.reference.reading import gather
from respaldo.kernel.reference.writing import scatter

__all__ = ["cut", "gather", "scan", "scatter"]
