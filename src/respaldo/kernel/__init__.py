"""Four verbs that do the work of a whole buffer or directory in one call: cut, scan, gather, scatter.

They are written in C (`native.c`, which states their algebra) and once more in Python (`reference`); both give the same
results bit by bit, and the same errors. Where the C module is missing, the reference does the work, many times slower:
``NATIVE`` tells which of the two is at work, ``WHY_NOT_NATIVE`` why.

The one look at the environment in this library is here: with ``RESPALDO_REQUIRE_KERNEL=1`` the import fails where the
C module is missing, so that a test run or a package can not pass on the reference by accident.

The verbs take plain buffers and return ``bytes`` of fixed-width rows, laid out in `layout`. They hold no GIL while they
work (the reference does), keep no state, and may run on any number of threads; only two scans of one descriptor at once
disturb one another.

Raised by all: ``TypeError`` for arguments of wrong types, ``BufferError`` for buffers that are not contiguous or, where
they are written to, read-only, ``ValueError`` for numbers out of range, unknown options and columns whose lengths
contradict one another.

cut(data, table, sip_key, minimum, average, maximum, strict, loose, final) -> lengths
    Cuts data into content-defined chunks. Returns their lengths, u32 each; the bytes behind the last cut, if any, are
    to be put before what follows. With ``final`` nothing is left over. ``table``: 256 u64 (2048 bytes); ``sip_key``:
    16 bytes; 64 <= minimum <= average <= maximum < 2**31; ``strict`` and ``loose``: thresholds in [0, 2**64).

scan(dir_fd, recent_ns, options) -> (names, meta, ident)
    Lists and stats a directory. Names are in bytewise order, each with a NUL behind it; `layout.META` and
    `layout.IDENT` rows are in the same order. The descriptor is rewound first and stays open. Raises ``OSError`` when
    the directory itself cannot be read; an entry that cannot be looked at has a row with `layout.ENTRY_FAILED`.

gather(dir_fd, names, meta, ident, out) -> rows
    Reads many small regular files of one directory into ``out``, each at the sum of the sizes before it. Names and
    rows as `scan` gave them. Returns a `layout.GATHERED` row per file. An ino or ctime of 0 is not compared.

scatter(dir_fd, names, meta, counts, pieces, prefix, options) -> rows
    Creates many regular files in one directory, each from its next ``counts[i]`` (u32) of the ``pieces``, with mode,
    time and, if asked, owner. Temporary names are prefix + decimal index. Under its own name a file is whole or
    absent; a name that exists is never replaced (EEXIST). With `layout.SCATTER_PRIVATE` a file has its own name from
    the first, for a directory that gets its name later. Returns a `layout.SCATTERED` row per file. A full or read-only
    file system stops the batch: every row behind it says ECANCELED.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING, Final

from respaldo.kernel import layout

__all__ = ["NATIVE", "WHY_NOT_NATIVE", "cut", "gather", "layout", "scan", "scatter"]


def _load_native() -> tuple[ModuleType | None, str]:
    """Loads the C module; without one, says why."""
    try:
        from respaldo.kernel import _native  # noqa: PLC0415 - may be missing
    except ImportError as error:
        return None, f"the C kernel could not be loaded: {error}"
    if _native.REVISION != layout.REVISION:
        return None, f"the C kernel has revision {_native.REVISION}, {layout.REVISION} is needed: build it again"
    return _native, ""


_loaded, _reason = _load_native()

NATIVE: Final[bool] = _loaded is not None
WHY_NOT_NATIVE: Final[str] = _reason

if not NATIVE and os.environ.get("RESPALDO_REQUIRE_KERNEL") == "1":
    message = f"RESPALDO_REQUIRE_KERNEL=1, but {WHY_NOT_NATIVE}"
    raise ImportError(message)

if TYPE_CHECKING or NATIVE:
    from respaldo.kernel._native import cut, gather, scan, scatter
else:
    from respaldo.kernel.reference import cut, gather, scan, scatter
